"""Small random CLIP models as transformers saves them, with the scores it gives pictures under prompts.

Usage: make_clip_rewards.py OUTPUT
  OUTPUT/models/<name>/             a folder that --reward pickscore=... takes
  OUTPUT/models/<name>.safetensors  picture_features, prompt_features, cosines [N], pickscore [N], tokens.N (image tokens)
  OUTPUT/pictures/N.png, OUTPUT/prompts.json
"""

import json
import pathlib
import sys

import numpy
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from clip_vocabulary import BOS, EOS, train, write_json, write_vocab_and_merges

torch.set_num_threads(1)

PROMPTS = ["a red circle left of a blue square", "", "A Photo of an ASTRONAUT riding a horse, it's 8k!",
           "a red circle left of a blue square", "schöne Häuser 红色的圆形", "the quick brown fox jumps over the lazy dog, " * 8]
SIZES = [(64, 64), (97, 61), (41, 83), (200, 150), (32, 32), (33, 300)]

TEXT = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=24)
VISION = dict(hidden_size=48, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, image_size=32, patch_size=8)


def randomize(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if "norm" in name and name.endswith("weight"):
                weight.copy_(1 + 0.3 * noise)
            elif name == "logit_scale":
                weight.fill_(4.6)
            else:
                weight.copy_(noise * (0.3 if weight.dim() <= 1 else 1.2 / weight[0].numel() ** 0.5))


def make_pictures(folder):
    folder.mkdir(parents=True, exist_ok=True)
    generator = numpy.random.default_rng(3)
    pictures = []
    for i, (width, height) in enumerate(SIZES):
        small = generator.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=numpy.uint8)
        picture = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        picture.save(folder / f"{i}.png")
        pictures.append(picture)
    return pictures


def make_model(root, name, pictures, vocab, merges, seed, text=None, vision=None, projection=20, keep=None, processor=None, change=None):
    size = {**VISION, **(vision or {})}["image_size"]
    ids = dict(vocab_size=len(vocab), bos_token_id=vocab[BOS], eos_token_id=vocab[EOS], pad_token_id=vocab[EOS])
    config = CLIPConfig(text_config={**TEXT, **ids, **(text or {})}, vision_config={**VISION, **(vision or {})}, projection_dim=projection)
    model = CLIPModel(config).eval()
    randomize(model, seed)
    folder = root / "models" / name
    model.save_pretrained(folder)
    write_vocab_and_merges(folder, vocab, merges)
    length = {**TEXT, **(text or {})}["max_position_embeddings"]
    write_json(folder / "tokenizer_config.json", {"model_max_length": length, "tokenizer_class": "CLIPTokenizer", "bos_token": BOS, "eos_token": EOS, "pad_token": EOS, "unk_token": EOS})
    images = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size}, **(processor or {}))
    images.save_pretrained(folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    tokens = tokenizer(PROMPTS, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    with torch.no_grad():
        pixels = images(images=pictures, return_tensors="pt")["pixel_values"]
        picture_features = model.get_image_features(pixel_values=pixels).pooler_output
        prompt_features = model.get_text_features(**tokens).pooler_output
        cosine = torch.nn.functional.cosine_similarity(picture_features, prompt_features)
        expected = {"pixels": pixels, "picture_features": picture_features, "prompt_features": prompt_features, "cosines": cosine,
                    "pickscore": model.logit_scale.exp() * cosine}
    save_file({k: v.contiguous().clone() for k, v in expected.items()}, root / "models" / f"{name}.safetensors")
    if change:
        change(folder)


def sd_era_layout(folder):
    """As transformers 4.2x saved it: positions stored, sub-configs doubled, and the historical end token."""
    weights = load_file(folder / "model.safetensors")
    weights["text_model.embeddings.position_ids"] = torch.arange(24).unsqueeze(0)
    weights["vision_model.embeddings.position_ids"] = torch.arange(17).unsqueeze(0)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["text_config_dict"] = dict(config["text_config"])
    config["vision_config_dict"] = {k: config["vision_config"][k] for k in ("hidden_size", "intermediate_size")}
    config["text_config"]["num_attention_heads"] = 1  # the older half wins
    config["torch_dtype"] = "float32"
    write_json(path, config)


def main():
    root = pathlib.Path(sys.argv[1])
    pictures = make_pictures(root / "pictures")
    write_json(root / "prompts.json", PROMPTS)
    vocab, merges = train(300)
    make_model(root, "plain", pictures, vocab, merges, 1)
    make_model(root, "gelu_wide_heads", pictures, vocab, merges, 2, text=dict(hidden_act="gelu", eos_token_id=2), vision=dict(hidden_act="gelu", hidden_size=80, num_attention_heads=1))
    make_model(root, "odd", pictures, vocab, merges, 3, text=dict(hidden_size=33, num_attention_heads=3, max_position_embeddings=11), vision=dict(hidden_size=30, num_attention_heads=5, image_size=35, patch_size=7, layer_norm_eps=1e-3), projection=7)
    make_model(root, "shallow", pictures, vocab, merges, 4, text=dict(num_hidden_layers=1), vision=dict(num_hidden_layers=1, image_size=16, patch_size=16))
    make_model(root, "sd_era", pictures, vocab, merges, 5, change=sd_era_layout)
    # Of the size of the public ones, for the end-to-end tests.
    make_model(root, "public_size", pictures, vocab, merges, 7, vision=dict(image_size=224, patch_size=32))
    make_model(root, "public_size_other", pictures, vocab, merges, 8, text=dict(hidden_size=33, num_attention_heads=3), vision=dict(image_size=224, patch_size=56), projection=7)
    make_model(root, "ragged_patches", pictures, vocab, merges, 6, vision=dict(image_size=30, patch_size=8))


main()
