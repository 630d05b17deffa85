"""BERT tokenizer folders in every layout, texts, and the ids transformers' BertTokenizer makes of them.

Usage: make_word_piece.py OUTPUT
  OUTPUT/<name>/          a tokenizer folder
  OUTPUT/texts.json       list of texts
  OUTPUT/unicode.json     texts that together hold every code point, for the folders whose vocabulary has them all
  OUTPUT/expected/<name>.json  {"cls", "sep", "pad", "encoded": [[ids]], "unicode": [[ids]]}
"""

import pathlib
import sys
import unicodedata

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import BertTokenizer

from clip_vocabulary import TEXT, added, write_json
from tokenizer_prompts import HAND_PICKED, code_points, random_prompts

SPECIALS = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
OWN = [
    "[UNK]", "[CLS] a cat [SEP]", "a[MASK]b", "[mask]", "[PAD][PAD]", "[ UNK ]", "[DEC] x [ENC]", "unaffable", "##able", "# # ##a", "a##b",
    "x" * 100, "x" * 101, "\u00e9" * 100, "e\u0301" * 60, "a" * 99 + " " + "b" * 102 + " c", "\u7ea2" * 120, "photo" * 21, "\u0301" * 101,
    chr(0x2B81F) + "x" + chr(0x2B820) + "y" + chr(0x2B91F) + "z" + chr(0x2B920), chr(0x2CEAF) + chr(0x2CEB0),
    chr(0x9FFF) + chr(0xA000) + chr(0x33FF) + chr(0x3400) + chr(0x4DBF) + chr(0x4DC0), "\uf900\ufaff\ufb00\uf8ff", chr(0x20000) + chr(0x2A6DF) + chr(0x2A6E0) + chr(0x2FA1F),
    "a\u00ad\u200bb\u200d\ufeffc", "a\ufffdb", "\x7f\x80\x9f", "\x1c\x1d", "a\u2028b\u2029c\u0085d", "$5 + 3 = 8 ^ ~ ` | <>", "\u00a7 \u00b6 \u20ac \u00b1 \u00d7", "\u166d \u1400 \u2e5d \U00010ead",
    "\u1734a \u1885b \u1886c \ua9bdd \U000111c9e \u08ca\u1acef", "\U00011938 \U00011935\U00011930", "\u0130I\u0307\u0131", "\ufb01\ufb03 \u01c4 \u1e9e\u00df", "\uac00\u11a8 \u1100\u1161", "\u304c \u304b\u3099",
]


def write(root, name, vocab, config=None, special_map=None, added_json=None, as_json=None, newline="\n", end="\n"):
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    if as_json is None:
        (folder / "vocab.txt").write_bytes((newline.join(vocab) + end).encode())
    else:
        write_json(folder / "tokenizer.json", as_json)
    for file, value in (("tokenizer_config.json", config), ("special_tokens_map.json", special_map), ("added_tokens.json", added_json)):
        if value is not None:
            write_json(folder / file, value)


def trained(lowercase):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(TEXT.splitlines() * 2, trainers.WordPieceTrainer(vocab_size=1500, special_tokens=SPECIALS, show_progress=False))
    vocab = tokenizer.get_vocab()
    return sorted(vocab, key=vocab.get)


def file_of(vocab, lowercase=True, strip_accents=None, chinese=True, extra=(), **changes):
    tokens = [dict(added(token, special=True), id=i) for i, token in enumerate(vocab) if token in SPECIALS and token != "[unused0]"]
    value = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens + list(extra),
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": chinese, "strip_accents": strip_accents, "lowercase": lowercase},
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": None, "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": {token: i for i, token in enumerate(vocab)}},
    }
    value.update(changes)
    return value


def every_character():
    """A vocabulary in which each character that normalization can leave is a token, alone and inside a word."""
    left = set()
    for code in code_points():
        text = chr(code)
        for form in (text, unicodedata.normalize("NFD", text), text.lower(), unicodedata.normalize("NFD", text).lower(), unicodedata.normalize("NFD", text.lower())):
            left.update(form)
    characters = sorted(c for c in left if c not in "\n\r")
    return SPECIALS + characters + ["##" + c for c in characters]


def layouts(root):
    uncased, cased = trained(True), trained(False)
    config = {"do_lower_case": True, "tokenizer_class": "BertTokenizer", "model_max_length": 512, "strip_accents": None, "tokenize_chinese_chars": True, "never_split": None}
    write(root, "vocab_alone", uncased)
    write(root, "crlf_no_last_newline", uncased, newline="\r\n", end="")
    write(root, "uncased", uncased, config, {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"})
    write(root, "cased", cased, {**config, "do_lower_case": False})
    write(root, "cased_stripped", cased, {**config, "do_lower_case": False, "strip_accents": True})
    write(root, "lower_with_accents", uncased, {**config, "strip_accents": False})
    write(root, "chinese_in_words", uncased, {**config, "tokenize_chinese_chars": False})
    write(root, "json", uncased, config, as_json=file_of(uncased))
    write(root, "json_alone", uncased, as_json=file_of(uncased))
    write(root, "json_cased", cased, {**config, "do_lower_case": False}, as_json=file_of(cased, lowercase=False))
    extra = [dict(added("<cat-toy>"), id=len(uncased), special=False), dict(added("SKS", single_word=True, normalized=True), id=len(uncased) + 1, special=False)]
    write(root, "json_added", uncased, config, as_json=file_of(uncased, extra=extra))
    write(root, "added_json", uncased, config, added_json={"[DEC]": len(uncased), "[ENC]": len(uncased) + 1})
    write(root, "other_specials", ["<p>", "<u>", "<c>", "<s>"] + uncased, {**config, "pad_token": "<p>", "unk_token": "<u>", "cls_token": "<c>", "sep_token": "<s>"})
    write(root, "split_special", uncased, {**config, "split_special_tokens": True})
    everything = every_character()
    write(root, "everything", everything)
    write(root, "everything_cased", everything, {"do_lower_case": False, "tokenize_chinese_chars": False})


def main():
    root = pathlib.Path(sys.argv[1])
    (root / "expected").mkdir(parents=True, exist_ok=True)
    layouts(root)
    texts = OWN + HAND_PICKED + random_prompts(200)
    write_json(root / "texts.json", texts)
    codes = code_points()
    every = [" ".join(f"x{chr(c)}x" for c in codes[i : i + 500]) for i in range(0, len(codes), 500)]
    write_json(root / "unicode.json", every)
    for folder in sorted(p for p in root.iterdir() if p.is_dir() and p.name != "expected"):
        tokenizer = BertTokenizer.from_pretrained(folder)
        encode = lambda texts: tokenizer(texts, add_special_tokens=False)["input_ids"]
        write_json(root / "expected" / f"{folder.name}.json", {
            "cls": tokenizer.cls_token_id, "sep": tokenizer.sep_token_id, "pad": tokenizer.pad_token_id, "encoded": encode(texts),
            "unicode": encode(every) if folder.name.startswith("everything") else [],
        })


main()
