"""Scores pictures as the model card of PickScore does, with transformers, in batches of (picture, prompt) pairs.

    score_pictures.py MODEL_FOLDER PROMPTS.jsonl COUNT BATCH DTYPE   (rows: {"image": path, "prompt": text})

Prints a score a line, those of a batch as soon as they are there.
"""

import json
import sys

import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor


def main():
    folder, manifest, count, batch, dtype = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    rows = [json.loads(line) for line in open(manifest)][:count]
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype={"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]).eval()
    for begin in range(0, len(rows), batch):
        part = rows[begin : begin + batch]
        pictures = processor(images=[Image.open(row["image"]) for row in part], return_tensors="pt")
        prompts = processor(text=[row["prompt"] for row in part], padding=True, truncation=True, max_length=77, return_tensors="pt")
        with torch.no_grad():
            image = model.get_image_features(pixel_values=pictures["pixel_values"].to(model.dtype)).pooler_output
            text = model.get_text_features(**prompts).pooler_output
            image = image / image.norm(dim=-1, keepdim=True)
            text = text / text.norm(dim=-1, keepdim=True)
            scores = model.logit_scale.exp() * (image * text).sum(-1)
        print(*scores.tolist(), sep="\n", flush=True)


main()
