"""A CLIP folder of ViT-H/14's size with random weights (about 4 GB), and pictures with prompts.

    make_scorer.py OUTPUT [--pictures 40] [--size 512] [--small]
  OUTPUT/model/       a folder that transformers and --reward pickscore=... load
  OUTPUT/own.jsonl    every picture under a prompt of its own; OUTPUT/shared.jsonl: ten pictures a prompt
"""

import argparse
import json
import pathlib

import numpy
import torch
from clip_tokenizer import write_tokenizer
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

WORDS = ("a photo painting portrait of the an old young red blue golden cat dog astronaut castle river forest city robot dragon woman man "
         "in on with under near rain snow sunlight fog detailed cinematic lighting sharp focus trending style oil watercolor studio 8k").split()


def make_model(folder, is_small):
    vision = dict(hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16, patch_size=14, hidden_act="gelu")
    text = dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, hidden_act="gelu", eos_token_id=2)
    if is_small:
        vision["num_hidden_layers"], text["num_hidden_layers"] = 2, 2
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=1024)).save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)
    write_tokenizer(folder)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--small", action="store_true", help="two layers a tower: for trying the scripts")
    options = parser.parse_args()
    (options.output / "pictures").mkdir(parents=True, exist_ok=True)
    make_model(options.output / "model", options.small)
    random = numpy.random.default_rng(0)
    prompts, paths = [], []
    for i in range(options.pictures):
        path = (options.output / "pictures" / f"{i:04d}.jpg").resolve()
        small = random.integers(0, 256, (options.size // 16, options.size // 16, 3), dtype=numpy.uint8)
        Image.fromarray(small).resize((options.size, options.size), Image.Resampling.BICUBIC).save(path, quality=95)
        paths.append(str(path))
        prompts.append(" ".join(random.choice(WORDS, int(random.integers(6, 26)))))
    for name, every in (("own", 1), ("shared", 10)):
        rows = [json.dumps({"image": path, "prompt": prompts[i // every]}) for i, path in enumerate(paths)]
        (options.output / f"{name}.jsonl").write_text("\n".join(rows) + "\n")


main()
