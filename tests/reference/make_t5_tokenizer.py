"""T5 tokenizer folders in every layout, texts, and what transformers' T5Tokenizer makes of them.

Usage: make_t5_tokenizer.py OUTPUT
  OUTPUT/<name>/           a tokenizer folder
  OUTPUT/texts.json        list of texts
  OUTPUT/unicode.json      texts that together hold every code point, for the folders whose vocabulary has them all
  OUTPUT/expected/<name>.json  {"eos", "pad", "num_ids", "encoded": [[ids]], "length", "input_ids": [[ids]], "attention_mask": [[0 or 1]]}
  OUTPUT/damaged/<name>/   folders that must be refused
"""

import base64
import json
import pathlib
import shutil
import sys

from sentencepiece import sentencepiece_model_pb2 as spm_proto
from tokenizers import Tokenizer, models, normalizers
from transformers import PreTrainedTokenizerFast, T5Tokenizer

from clip_vocabulary import added, write_json
from t5_vocabulary import train
from tokenizer_prompts import HAND_PICKED, code_points, random_prompts

OWN = [
    "</s>", "a </s> b", "a</s>b", "</S>", "<pad>", "a<pad>b", "<unk>", "<unk><unk> x", "<s>", "<extra_id_0>", "a <extra_id_0> b<extra_id_99>c", "<extra_id_100>", "<extra_id_7><extra_id_6>", "<extra_id_ 0>", "< extra_id_0>",
    "a   b", " a", "a ", "\ta\n\nb\r\n", "a\u3000b\u00a0c\u2009d", "\u2581", "\u2581\u2581", "a\u2581b", "\u2581a \u2581\u2581b\u2581", " \u2581 ", "a \u2581b", "\u200b", "a\u200b b", "\u200ba",
    "\uff21\uff22\uff23 \uff11\uff12", "\u2460\u2461\u246b", "\ufb01ne o\ufb03ce", "\u00aa\u0301", "\u00b2\u0301x", "\u1d62\u032e", "\u00bd cup", "\u3392 \u338f", "\u2126\u212b", "\ufdfa", "e\u0301 \u00e9", "\u1e9b\u0323", "\u212f\u0301", "\u2122\ufe0f", "A\u0301A\U000e0100",
    "\u0600\u00aa", "a\r\nb", "\u0e33 \u0eb3", "\u1100\u1161\u11a8\u11a8", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea\U0001f1eb", "1\ufe0f\u20e3", "qzqzqz", "\u7e41\u9ad4\u5b57 zz \u7e41", "x\u7e41\u7e41y", "USER_word a", "auser_WORD", "user_word",
    "-", "--- , . ...", "(a:1.2)", "a photo of a cat, " * 30, "photo" * 200, "\u7ea2" * 700, "a b " * 300, "</s> " * 40,
]


def charsmap_of(model):
    proto = spm_proto.ModelProto()
    proto.ParseFromString(model)
    return proto.normalizer_spec.precompiled_charsmap


def pieces_of(model):
    proto = spm_proto.ModelProto()
    proto.ParseFromString(model)
    return [(p.piece, p.score) for p in proto.pieces]


def precompiled(model):
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap_of(model)).decode()}


def tokenizer_json(pieces, normalizer, extra=(), **changes):
    """As transformers 4 converted T5's spiece.model."""
    specials = [dict(added(token, special=True), id=i) for i, token in enumerate(("<pad>", "</s>", "<unk>"))]
    value = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": specials + list(extra), "normalizer": normalizer,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
        "post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
                           "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}},
        "decoder": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
        "model": {"type": "Unigram", "unk_id": 2, "vocab": [list(p) for p in pieces], "byte_fallback": False},
    }
    value.update(changes)
    return value


def every_character(model):
    """A vocabulary in which each character that normalization can leave is a token."""
    normalizer = normalizers.Precompiled(charsmap_of(model))
    left = set()
    for code in code_points():
        left.add(chr(code))
        left.update(normalizer.normalize_str(chr(code)))
    return [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)] + [(c, -3.0) for c in sorted(left - {"\u2581"})]


def unicode_texts():
    """Every code point beside letters, and beside those that normalization replaces together with their marks."""
    texts = []
    for pattern in ("\u00aa{}", "{}\u00aa\u0301 ", "A{}\u0301", "\u0600{}\u200d"):
        parts = [pattern.format(chr(code)) for code in code_points()]
        texts += ["".join(parts[i : i + 500]) for i in range(0, len(parts), 500)]
    return texts


def layouts(root):
    plain = train(700)
    folding = train(500, normalization_rule_name="nmt_nfkc_cf", user_defined_symbols=["USER_word", "<sep>"], split_digits=True)
    bare = train(400, normalization_rule_name="identity", character_coverage=0.98)
    sentinels = [f"<extra_id_{i}>" for i in range(100)]
    specials = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    config = {**specials, "extra_ids": 100, "additional_special_tokens": sentinels, "model_max_length": 512, "tokenizer_class": "T5Tokenizer", "sp_model_kwargs": {}, "clean_up_tokenization_spaces": True}

    def write(name, model=None, json_value=None, config=None, special_map=None, added_json=None):
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        if model is not None:
            (folder / "spiece.model").write_bytes(model)
        for file, value in (("tokenizer.json", json_value), ("tokenizer_config.json", config), ("special_tokens_map.json", special_map), ("added_tokens.json", added_json)):
            if value is not None:
                write_json(folder / file, value)

    write("spm_alone", plain)
    write("spm_folding", folding)
    write("spm_bare", bare)
    write("spm_config", plain, config=config, special_map={**specials, "additional_special_tokens": sentinels})
    write("spm_map_alone", plain, special_map={**specials, "additional_special_tokens": sentinels})
    write("spm_legacy", plain, config={**config, "legacy": True})
    write("spm_not_legacy", plain, config={**config, "legacy": False, "add_prefix_space": False})
    write("spm_no_extra", plain, config={**specials, "extra_ids": 0, "additional_special_tokens": []})
    write("spm_few_extra", folding, config={"extra_ids": 7})
    write("spm_left", plain, config={**config, "padding_side": "left", "truncation_side": "left"})
    write("spm_other_specials", bare, config={"eos_token": "[EOS]", "pad_token": "[PAD]", "unk_token": "<unk>", "extra_ids": 3})
    write("spm_rich_specials", plain, special_map={"eos_token": added("</s>", lstrip=True), "pad_token": added("<pad>", rstrip=True), "unk_token": "<unk>"})
    write("spm_split_special", plain, config={"split_special_tokens": True})
    write("spm_added", plain, config={"extra_ids": 5}, added_json={"<cat-toy>": 805, "Blue Sky": 806})
    decoder = {str(i): added(token, special=True) for i, token in enumerate(("<pad>", "</s>", "<unk>"))}
    extra = [added("<cat-toy>"), added("sks", single_word=True, normalized=True), added("Blue Sky", normalized=True), added("<l>", lstrip=True), added("<r>", rstrip=True), added("<lr>", lstrip=True, rstrip=True, special=True)]
    num = len(pieces_of(plain))
    numbered = [dict(token, id=num + 100 + i, special=token.get("special", False)) for i, token in enumerate(extra)]
    full = {**decoder, **{str(num + 99 - i): added(s, special=True) for i, s in enumerate(sentinels)}, **{str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in numbered}}
    write("spm_added_decoder", plain, config={**config, "added_tokens_decoder": full, "legacy": False})
    # What another class of transformers, which obeys all of a tokenizer.json, makes of T5's.
    shutil.copytree(root / "spm_few_extra", root / "generic")
    PreTrainedTokenizerFast(tokenizer_object=T5Tokenizer.from_pretrained(root / "generic").backend_tokenizer, eos_token="</s>", pad_token="<pad>", unk_token="<unk>").save_pretrained(root / "generic")
    for name in ("spm_alone", "spm_folding", "spm_bare", "spm_added_decoder"):
        T5Tokenizer.from_pretrained(root / name).save_pretrained(root / name.replace("spm_", "saved_"))

    with_sentinels = pieces_of(plain) + [(s, 0.0) for s in reversed(sentinels)]
    old = {"type": "Sequence", "normalizers": [precompiled(plain), {"type": "Strip", "strip_left": False, "strip_right": True}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "\u2581"}]}
    numbered_sentinels = [dict(added(s, special=True), id=num + 99 - i) for i, s in enumerate(sentinels)]
    write("json_old", json_value=tokenizer_json(with_sentinels, old, extra=numbered_sentinels), config=config)
    write("json_alone", json_value=tokenizer_json(with_sentinels, precompiled(plain), extra=numbered_sentinels))
    write("json_no_sentinels", json_value=tokenizer_json(pieces_of(plain), precompiled(plain)), config={"extra_ids": 12})
    write("json_no_normalizer", json_value=tokenizer_json(with_sentinels, None), config={**config, "extra_ids": 100})
    write("json_trained", json_value=tokenizer_json(with_sentinels, {"type": "Sequence", "normalizers": [{"type": "Nmt"}, {"type": "NFKC"}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]}))
    write("json_added", json_value=tokenizer_json(with_sentinels, old, extra=numbered_sentinels + numbered))
    write("json_sections", json_value=tokenizer_json(with_sentinels, precompiled(plain), truncation={"direction": "Left", "max_length": 12, "strategy": "LongestFirst", "stride": 0},
                                                     padding={"strategy": {"Fixed": 12}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 5, "pad_type_id": 0, "pad_token": "<unk>"}))
    # Both layouts that disagree.
    write("both", bare, json_value=tokenizer_json(with_sentinels, old), config=config)
    duplicated = pieces_of(plain) + [(piece, score - 0.5) for piece, score in pieces_of(plain)[50:80]] + [("zz", -40.0), ("\u7e41\u9ad4", -70.0)]
    write("json_duplicates", json_value=tokenizer_json(duplicated, precompiled(plain)))
    for name, model in (("everything", plain), ("everything_folding", folding)):
        write(name, json_value=tokenizer_json(every_character(model), precompiled(model)), config={"extra_ids": 0})
    damaged(root / "damaged", plain, config, with_sentinels, old)


def damaged(root, model, config, pieces, normalizer):
    def write(name, **files):
        (root / name).mkdir(parents=True)
        for file, content in files.items():
            path = root / name / file.replace("_json", ".json").replace("_model", ".model")
            path.write_bytes(content) if isinstance(content, bytes) else write_json(path, content)

    for cut in (1, 2, 40, 1000, len(model) // 2, len(model) - 1):
        write(f"cut_{cut}", spiece_model=model[:cut])
    write("empty", spiece_model=b"")
    write("text", spiece_model=b"this is no model at all\n" * 20)
    write("bpe_model", spiece_model=train(600, model_type="bpe"))
    write("bpe_json", tokenizer_json=json.loads(Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")])).to_str()))
    write("two_pieces", tokenizer_json=tokenizer_json(pieces[:2], normalizer))
    write("scores_missing", tokenizer_json=tokenizer_json([[p[0]] for p in pieces], normalizer))
    write("score_is_text", tokenizer_json=tokenizer_json([[p[0], str(p[1])] for p in pieces], normalizer))
    write("charsmap_cut", tokenizer_json=tokenizer_json(pieces, {"type": "Precompiled", "precompiled_charsmap": normalizer["normalizers"][0]["precompiled_charsmap"][:4000]}))
    write("charsmap_no_base64", tokenizer_json=tokenizer_json(pieces, {"type": "Precompiled", "precompiled_charsmap": "!!!!"}))
    write("other_class", spiece_model=model, tokenizer_config_json={"tokenizer_class": "LlamaTokenizer"})
    write("generic_class", tokenizer_json=tokenizer_json(pieces, normalizer), tokenizer_config_json={"tokenizer_class": "PreTrainedTokenizerFast"})
    write("sentinels_missing", spiece_model=model, tokenizer_config_json={"extra_ids": -1})
    write("nothing", tokenizer_config_json=config)


def main():
    root = pathlib.Path(sys.argv[1])
    (root / "expected").mkdir(parents=True, exist_ok=True)
    layouts(root)
    texts = HAND_PICKED + OWN + random_prompts(300)
    write_json(root / "texts.json", texts)
    every = unicode_texts()
    write_json(root / "unicode.json", every)
    for number, folder in enumerate(sorted(p for p in root.iterdir() if p.is_dir() and p.name not in ("expected", "damaged"))):
        tokenizer = (PreTrainedTokenizerFast if folder.name == "generic" else T5Tokenizer).from_pretrained(folder)
        is_everything = folder.name.startswith("everything")
        some = every if is_everything else texts
        length = [8, 77, 1, 256][number % 4]
        batch = tokenizer(texts[::3], padding="max_length", max_length=length, truncation=True)
        write_json(
            root / "expected" / f"{folder.name}.json",
            {"eos": tokenizer.eos_token_id, "pad": tokenizer.pad_token_id, "length": length, "encoded": tokenizer(some, add_special_tokens=False)["input_ids"], **batch},
        )


main()
