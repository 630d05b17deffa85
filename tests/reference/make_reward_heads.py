"""Reward folders as prefusion train-reward writes them, with the scores their heads have by this file's own formulas.

Usage: make_reward_heads.py OUTPUT
  OUTPUT/clip/, OUTPUT/heads/<name>/{reward.json,head.safetensors}, OUTPUT/pictures/N.png, OUTPUT/prompts.json
  OUTPUT/heads/<name>.safetensors   a tensor [N] a column or user: what it gives picture N under prompt N
"""

import json
import pathlib
import sys

import numpy
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from clip_vocabulary import BOS, EOS, train, write_json, write_vocab_and_merges

torch.set_num_threads(1)
torch.manual_seed(11)
WIDTH, HIDDEN, PROTOTYPES = 14, 9, 3
PROMPTS = ["a red circle", "the quick brown fox", "", "a blue square left of it"]
USERS = ["anna", "bert", "zoe"]


def make_clip(folder):
    vocab, merges = train(300)
    ids = dict(vocab_size=len(vocab), bos_token_id=vocab[BOS], eos_token_id=vocab[EOS], pad_token_id=vocab[EOS])
    text = dict(hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=20, **ids)
    vision = dict(hidden_size=20, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=24, patch_size=8)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.copy_(torch.randn_like(weight) / weight[0].numel() ** 0.5)
    model.save_pretrained(folder)
    write_vocab_and_merges(folder, vocab, merges)
    write_json(folder / "tokenizer_config.json", {"model_max_length": 20, "tokenizer_class": "CLIPTokenizer", "bos_token": BOS, "eos_token": EOS, "pad_token": EOS, "unk_token": EOS})
    images = CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24})
    images.save_pretrained(folder)
    return model, images, CLIPTokenizer.from_pretrained(folder)


def random_layer(tensors, name, inputs, outputs):
    tensors[f"{name}.weight"] = torch.randn(outputs, inputs) / inputs**0.5
    tensors[f"{name}.bias"] = 0.3 * torch.randn(outputs)


def layer(tensors, name, x):
    return F.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])


def trunk(tensors, picture, prompt):
    p, t = (F.normalize(x, dim=-1) * WIDTH**0.5 for x in (picture, prompt))
    x = torch.cat([p, t, p * t], -1)
    for name in ("trunk.hidden0", "trunk.hidden1"):
        x = F.gelu(layer(tensors, name, x))
    return layer(tensors, "trunk.output", x)


def pal_map(tensors, name, x):
    y = x
    for part in ("hidden0", "hidden1"):
        y = F.relu(layer(tensors, f"{name}.{part}", y))
    return x + layer(tensors, f"{name}.output", y)


def pal_score(tensors, form, metric, picture, prompt, weights):
    place = pal_map(tensors, "f", F.normalize(picture, dim=-1))
    if form == "b":
        points = [pal_map(tensors, f"g{k}", F.normalize(prompt, dim=-1)) for k in range(PROTOTYPES)]
        ideal = sum(w * point for w, point in zip(weights, points))
    else:
        ideal = (weights @ tensors["prototypes"]).expand_as(place)
    if metric == "dist":
        return -(place - ideal).pow(2).sum(-1).sqrt()
    return min(tensors["logit_scale"].exp().item(), 100) * F.cosine_similarity(place, ideal)


def write_folder(root, name, head, tensors, expected, **reward):
    folder = root / "heads" / name
    folder.mkdir(parents=True)
    write_json(folder / "reward.json", {"format": 1, "clip": "../../clip", "head": {"width": WIDTH, **head}, **reward})
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "head.safetensors")
    save_file({key: value.contiguous() for key, value in expected.items()}, root / "heads" / f"{name}.safetensors")


def main():
    root = pathlib.Path(sys.argv[1])
    model, images, tokenizer = make_clip(root / "clip")
    generator = numpy.random.default_rng(5)
    pictures = [Image.fromarray(generator.integers(0, 256, (30 + 3 * i, 41, 3), dtype=numpy.uint8)) for i in range(len(PROMPTS))]
    (root / "pictures").mkdir()
    for i, picture in enumerate(pictures):
        picture.save(root / "pictures" / f"{i}.png")
    write_json(root / "prompts.json", PROMPTS)
    tokens = tokenizer(PROMPTS, padding="max_length", truncation=True, max_length=20, return_tensors="pt")
    with torch.no_grad():
        picture = model.get_image_features(**images(images=pictures, return_tensors="pt")).pooler_output
        prompt = model.get_text_features(**tokens).pooler_output

    tensors = {}
    for name, sizes in (("hidden0", (3 * WIDTH, HIDDEN)), ("hidden1", (HIDDEN, HIDDEN)), ("output", (HIDDEN, 1))):
        random_layer(tensors, f"trunk.{name}", *sizes)
    write_folder(root, "mlp", dict(kind="mlp", hidden=HIDDEN, dropout=0.3, columns=["overall"]), tensors, {"overall": trunk(tensors, picture, prompt)[:, 0]})

    names = ["alignment", "fidelity"]
    random_layer(tensors, "trunk.output", HIDDEN, len(names))
    random_layer(tensors, "gate", WIDTH, len(names))
    parts = trunk(tensors, picture, prompt)
    shares = layer(tensors, "gate", F.normalize(prompt, dim=-1)).softmax(-1)
    expected = {"overall": (shares * parts).sum(-1), **{name: parts[:, i] for i, name in enumerate(names)}}
    write_folder(root, "aspects", dict(kind="aspects", hidden=HIDDEN, columns=["overall", *names]), tensors, expected)

    for form in ("a", "b"):
        for metric in ("angle", "dist"):
            tensors = {"user_weights": torch.randn(len(USERS), PROTOTYPES)}
            if metric == "angle":
                tensors["logit_scale"] = torch.tensor(5.0 if form == "a" else 2.0)  # e^5 is above the bound of 100
            if form == "a":
                tensors["prototypes"] = torch.randn(PROTOTYPES, WIDTH)
            for name in ("f", *(f"g{k}" for k in range(PROTOTYPES) if form == "b")):
                for part in ("hidden0", "hidden1", "output"):
                    random_layer(tensors, f"{name}.{part}", WIDTH, WIDTH)
            mixtures = tensors["user_weights"].softmax(-1)
            expected = {user: pal_score(tensors, form, metric, picture, prompt, mixtures[i]) for i, user in enumerate(USERS)}
            expected["mean"] = pal_score(tensors, form, metric, picture, prompt, mixtures.mean(0))
            head = dict(kind="pal", dropout=0.5, columns=["overall"], form=form, metric=metric, prototypes=PROTOTYPES, users=USERS)
            write_folder(root, f"pal_{form}_{metric}", head, tensors, expected)


main()
