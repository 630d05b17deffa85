"""A CLIP tokenizer's files for models with random weights."""

import gzip
import json
import pathlib

import open_clip
from transformers import CLIPTokenizer


def write_tokenizer(folder):
    """CLIP's public vocabulary, from the copy that the open_clip wheel carries."""
    path = pathlib.Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    merges = gzip.open(path).read().decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    symbols = open_clip.tokenizer.bytes_to_unicode().values()
    tokens = [*symbols, *(s + "</w>" for s in symbols), *("".join(m.split()) for m in merges), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    CLIPTokenizer.from_pretrained(folder, model_max_length=77).save_pretrained(folder)
