"""Tokenizer folders in every layout CLIP tokenizers are found in, prompts, and the ids transformers makes of them.

Usage: make_tokenizer.py OUTPUT
  OUTPUT/<name>/           a tokenizer folder
  OUTPUT/prompts.json      list of prompts
  OUTPUT/unicode.json      prompts that together hold every code point
  OUTPUT/expected/<name>.json  {"max_length", "bos", "eos", "pad", "encoded": [[ids]], "tokenized": [[ids]], "unicode": [[ids]]}
"""

import pathlib
import sys

from transformers import CLIPTokenizer

from clip_vocabulary import BOS, EOS, added, tokenizer_json, train, write_json, write_vocab_and_merges
from tokenizer_prompts import HAND_PICKED, random_prompts, unicode_prompts


def layouts(root):
    """Writes the folders; each name says what is special about it."""
    vocab, merges = train()
    rich = {"bos_token": added(BOS, normalized=True), "eos_token": added(EOS, normalized=True), "pad_token": EOS, "unk_token": added(EOS, normalized=True)}
    base_config = {"add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
    specials = [dict(added(BOS, normalized=True), id=vocab[BOS], special=True), dict(added(EOS, normalized=True), id=vocab[EOS], special=True)]

    def old(name, config=None, special_map=None, **files):
        write_vocab_and_merges(root / name, files.get("vocab", vocab), files.get("merges", merges))
        if config is not None:
            write_json(root / name / "tokenizer_config.json", config)
        if special_map is not None:
            write_json(root / name / "special_tokens_map.json", special_map)

    def fast(name, config=None, special_map=None, **changes):
        (root / name).mkdir(parents=True, exist_ok=True)
        write_json(root / name / "tokenizer.json", tokenizer_json(vocab, merges, changes.pop("added_tokens", specials), **changes))
        if config is not None:
            write_json(root / name / "tokenizer_config.json", config)
        if special_map is not None:
            write_json(root / name / "special_tokens_map.json", special_map)

    typed = {key: dict(value, __type="AddedToken") if isinstance(value, dict) else value for key, value in rich.items()}
    old("old_sd15", {**base_config, **typed}, rich)
    old("old_bare")
    old("old_pad_bang", base_config, {"bos_token": added(BOS, normalized=True), "eos_token": EOS, "pad_token": "!", "unk_token": EOS})
    old("old_pad_object", {**base_config, "model_max_length": 40}, {**rich, "pad_token": added("!", rstrip=True)})
    old("old_short", {**base_config, "model_max_length": 20}, rich)
    old("old_no_limit", {**base_config, "model_max_length": int(1e30)}, rich)
    old("old_left", {**base_config, "padding_side": "left", "truncation_side": "left", "model_max_length": 30}, rich)
    old("old_new_specials", base_config, {"bos_token": "[BOS]", "eos_token": "[EOS]", "pad_token": "[PAD]", "unk_token": EOS})
    old("old_split_special", {**base_config, "split_special_tokens": True}, rich)
    old("old_added_json", base_config, {**rich, "additional_special_tokens": ["<l>"]})
    write_json(root / "old_added_json" / "added_tokens.json", {"<cat-toy>": len(vocab), "<l>": len(vocab) + 1, "Blue Sky": len(vocab) + 2})
    few = {token: i for i, token in enumerate(t for t in vocab if t not in ("q", "q</w>", "7</w>", "\u0120</w>", "\u00e7"))}
    old("old_unknown_symbols", base_config, rich, vocab=few, merges=[m for m in merges if all(t in few for t in (*m, m[0] + m[1]))])

    fast("fast_alone")
    fast("fast_sdxl_2", {**base_config, "pad_token": "!"}, {**rich, "pad_token": "!"})
    fast("fast_short", {**base_config, "model_max_length": 9})
    fast("fast_truncation_section", {**base_config, "model_max_length": 24},
         truncation={"direction": "Left", "max_length": 12, "strategy": "LongestFirst", "stride": 0},
         padding={"strategy": {"Fixed": 12}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 5, "pad_type_id": 0, "pad_token": "!"})
    extra = [added("<cat-toy>"), added("sks", single_word=True, normalized=True), added("Blue Sky", normalized=True), added("<l>", lstrip=True),
             added("<r>", rstrip=True), added("<lr>", lstrip=True, rstrip=True, special=True)]
    numbered = [dict(token, id=len(vocab) + i, special=token.get("special", False)) for i, token in enumerate(extra)]
    fast("fast_added", base_config, added_tokens=specials + numbered)
    decoder = {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in specials + numbered}
    fast("fast_added_decoder", {**base_config, "added_tokens_decoder": decoder, "bos_token": BOS, "eos_token": EOS, "pad_token": EOS, "unk_token": EOS})
    old("old_added_decoder", {**base_config, "added_tokens_decoder": decoder, "bos_token": BOS, "eos_token": EOS, "pad_token": "!", "unk_token": EOS},
        {"pad_token": "[ignored]"})
    fast("fast_extra_tokens", {**base_config, "extra_special_tokens": ["<cat-toy>", "<l>"], "image_token": "<r>"})
    # Both layouts that disagree: the old files lack most merges.
    fast("both", base_config, rich)
    write_vocab_and_merges(root / "both", vocab, merges[:50])
    CLIPTokenizer.from_pretrained(root / "old_sd15").save_pretrained(root / "saved_by_transformers")
    CLIPTokenizer.from_pretrained(root / "fast_added").save_pretrained(root / "saved_added")


def main():
    root = pathlib.Path(sys.argv[1])
    (root / "expected").mkdir(parents=True, exist_ok=True)
    layouts(root)
    prompts = HAND_PICKED + random_prompts(400)
    write_json(root / "prompts.json", prompts)
    every = unicode_prompts()
    write_json(root / "unicode.json", every)
    for folder in sorted(p for p in root.iterdir() if p.is_dir() and p.name != "expected"):
        tokenizer = CLIPTokenizer.from_pretrained(folder)
        length = tokenizer.model_max_length if tokenizer.model_max_length < 1e6 else 77
        encode = lambda texts: tokenizer(texts, add_special_tokens=False)["input_ids"]
        write_json(
            root / "expected" / f"{folder.name}.json",
            {
                "max_length": length,
                "bos": tokenizer.bos_token_id,
                "eos": tokenizer.eos_token_id,
                "pad": tokenizer.pad_token_id,
                "encoded": encode(prompts),
                "tokenized": tokenizer(prompts, padding="max_length", max_length=length, truncation=True)["input_ids"],
                "unicode": encode(every) if folder.name in ("old_sd15", "fast_alone") else [],
            },
        )


main()
