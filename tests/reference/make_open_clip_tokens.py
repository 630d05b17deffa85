"""What open_clip's tokenizer makes of open_clip_prompts.py: make_open_clip_tokens.py OUTPUT

  OUTPUT/tokens.json     for each prompt: ftfy's text, the clean text, the tokens
  OUTPUT/encodings.json  the 256 characters of each encoding ftfy knows
  OUTPUT/entities.json   html.unescape of every named reference, with and without what follows, and of odd numbers
  OUTPUT/vocab/          the vocabulary as vocab.json and merges.txt
"""

import html
import html.entities
import json
import pathlib
import sys

import open_clip
from ftfy import bad_codecs  # noqa: F401  registers its encodings
from ftfy import fix_text
from ftfy.chardata import CHARMAP_ENCODINGS

from open_clip_prompts import open_clip_prompts


def main():
    root = pathlib.Path(sys.argv[1])
    prompts = open_clip_prompts()
    tokenizer = open_clip.get_tokenizer("ViT-H-14")
    rows = [{"text": p, "clean": open_clip.tokenizer._clean_lower(p), "fixed": fix_text(p), "tokens": tokenizer.encode(p)} for p in prompts]
    (root / "tokens.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    encodings = [[bytes([b]).decode(e) for b in range(256)] for e in CHARMAP_ENCODINGS]
    (root / "encodings.json").write_text(json.dumps(encodings))
    texts = [f"&{name}{rest}" for name in html.entities.html5 for rest in ("", "x", ";y")] + [f"&#{n};" for n in (*range(0x110), 0xD800, 0xFDD0, 0xFFFE, 0x10FFFF, 0x110000, 10**20)] + ["&#xg;", "&#x41", "&#65a", "&;", "&", "&nosuchname;", "&ampamp;"]
    (root / "entities.json").write_text(json.dumps([[t, html.unescape(t)] for t in texts]))
    folder = root / "vocab"
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(tokenizer.encoder))
    merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.get)
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(" ".join(m) + "\n" for m in merges))


main()
