"""Small random ImageReward, MPS and Denscore models in their public layouts, with the scores of pictures under prompts.

Usage: make_cross_rewards.py OUTPUT
  OUTPUT/imagereward/<name>/, OUTPUT/mps/<name>/, OUTPUT/denscore/<name>/   what --reward KIND=... takes
  OUTPUT/<kind>/<name>.safetensors   expected values; "scores..." are [N], one a picture and prompt
  OUTPUT/pictures/N.png, OUTPUT/prompts.json (ImageReward and MPS), OUTPUT/captions.json (Denscore)

BLIP's halves are transformers' BlipVisionModel and BlipTextModel, saved under the names of the public checkpoint; MPS's
CLIP is transformers' CLIPModel, and its cross model is written out here from its description.
"""


import math
import pathlib
import re
import sys

import numpy
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torchvision import transforms
from transformers import BertTokenizer, BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel, CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer


from clip_vocabulary import BOS, EOS, TEXT, train, write_json, write_vocab_and_merges

torch.set_num_threads(1)

PROMPTS = ["a red circle left of a blue square", "", "A Photo of an ASTRONAUT riding a horse, it's 8k! [DEC]", "a red circle left of a blue square",
           "sch\u00f6ne H\u00e4user \u7ea2\u8272\u7684\u5706\u5f62", "the quick brown fox jumps over the lazy dog, " * 8]
CAPTIONS = ["A red circle. A blue square left of it? Yes. ", "a red circle", "", "...", 'He said "no"! Then; "go"! and 3.5 stars', "An astronaut rides a horse. " * 5]
SIZES = [(64, 64), (97, 61), (41, 83), (260, 231), (32, 32), (33, 300)]
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CONDITION = "light, color, clarity, tone, style, ambiance, artistry, shape, face, hair, hands, limbs, structure, instance, texture, quantity, attributes, position, number, location, word, things."


def randomize(named, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in sorted(named):
            noise = torch.randn(weight.shape, generator=generator)
            if "norm" in name.lower() and name.endswith("weight"):
                weight.copy_(1 + 0.3 * noise)
            elif name.endswith("logit_scale"):
                weight.fill_(4.6)
            else:
                weight.copy_(noise * (0.3 if weight.dim() <= 1 else 1.2 / weight[0].numel() ** 0.5))


def make_pictures(folder):
    folder.mkdir(parents=True, exist_ok=True)
    generator = numpy.random.default_rng(5)
    pictures = []
    for i, (width, height) in enumerate(SIZES):
        small = generator.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=numpy.uint8)
        picture = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        picture.save(folder / f"{i}.png")
        pictures.append(picture)
    return pictures


def save(path, tensors):
    save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, path)


# ---- ImageReward ----

def public_vision_name(name):
    for ours, public in (("embeddings.class_embedding", "cls_token"), ("embeddings.position_embedding", "pos_embed"), ("embeddings.patch_embedding", "patch_embed.proj"),
                         ("encoder.layers", "blocks"), ("self_attn.qkv", "attn.qkv"), ("self_attn.projection", "attn.proj"), ("layer_norm", "norm"), ("post_layernorm", "norm")):
        name = name.replace(ours, public)
    return name


def bert_vocabulary():
    words = sorted({w for w in re.findall(r"[a-z]+", TEXT.lower())})
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789.,!?'\u7ea2\u8272\u7684\u5706\u5f62")
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + letters + ["##" + c for c in letters] + [w for w in words if len(w) > 1]


def imagereward(root, name, pictures, seed, vision=None, text=None, head=(24, 20, 12, 6), form="safetensors", config=None, extras=False):
    vocabulary = bert_vocabulary()
    vision = {**dict(hidden_size=128, intermediate_size=512, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8), **(vision or {})}
    text = {**dict(hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=40, layer_norm_eps=1e-12, hidden_act="gelu"), **(text or {})}
    text["vocab_size"] = len(vocabulary) + 2
    tower = BlipVisionModel(BlipVisionConfig(**vision, layer_norm_eps=1e-6, hidden_act="gelu")).eval()
    bert = BlipTextModel(BlipTextConfig(**text, encoder_hidden_size=vision["hidden_size"], is_decoder=True, bos_token_id=0, eos_token_id=0, sep_token_id=0, hidden_dropout_prob=0, attention_probs_dropout_prob=0), add_pooling_layer=False).eval()
    widths = [text["hidden_size"], *head, 1]
    layers = {index: torch.nn.Linear(a, b) for index, a, b in zip((0, 2, 4, 6, 7), widths, widths[1:])}
    randomize([(f"v.{n}", p) for n, p in tower.named_parameters()] + [(f"t.{n}", p) for n, p in bert.named_parameters()]
              + [(f"h.{i}.{n}", p) for i, l in layers.items() for n, p in l.named_parameters()], seed)

    folder = root / "imagereward" / name
    folder.mkdir(parents=True)
    weights = {"blip.visual_encoder." + public_vision_name(n): p for n, p in tower.named_parameters()}
    weights.update({"blip.text_encoder." + n: p for n, p in bert.named_parameters()})
    weights.update({f"mlp.layers.{i}.{n}": p for i, l in layers.items() for n, p in l.named_parameters()})
    if extras:
        weights["blip.text_encoder.embeddings.position_ids"] = torch.arange(text["max_position_embeddings"]).unsqueeze(0)
        weights["blip.vision_proj.weight"], weights["blip.vision_proj.bias"] = torch.randn(9, vision["hidden_size"]), torch.randn(9)
        weights["blip.text_proj.weight"], weights["blip.text_proj.bias"] = torch.randn(9, text["hidden_size"]), torch.randn(9)
    if form == "pt":
        torch.save({k: v.detach().clone() for k, v in weights.items()}, folder / "ImageReward.pt")
    else:
        save(folder / f"{form}.safetensors", weights)
    write_json(folder / "med_config.json", {"architectures": ["BertModel"], "attention_probs_dropout_prob": 0.1, "hidden_dropout_prob": 0.1, "initializer_range": 0.02, "model_type": "bert",
                                            "pad_token_id": 0, "type_vocab_size": 2, "encoder_width": 768, "add_cross_attention": True, **text, **(config or {})})
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")

    size = vision["image_size"]
    prepare = transforms.Compose([transforms.Resize(size, interpolation=transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(size), lambda p: p.convert("RGB"),
                                  transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    tokenizer = BertTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    tokenizer.add_special_tokens({"extra_special_tokens": ["[ENC]"]})
    assert len(tokenizer) == text["vocab_size"]
    with torch.no_grad():
        pixels = torch.stack([prepare(p) for p in pictures])
        tokens = tokenizer(PROMPTS, padding="max_length", truncation=True, max_length=min(35, text["max_position_embeddings"]), return_tensors="pt")
        seen = tower(pixel_values=pixels).last_hidden_state
        states = bert(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, encoder_hidden_states=seen,
                      encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long), is_decoder=False).last_hidden_state
        rewards = states[:, 0, :]
        for layer in layers.values():
            rewards = layer(rewards)
    save(root / "imagereward" / f"{name}.safetensors", {"pixels": pixels, "features": seen, "scores": ((rewards - 0.16717362830052426) / 1.0333394966054072).squeeze(1),
                                                        "num_tokens": tokens.attention_mask.sum(1)})


# ---- CLIP folders ----

def clip_folder(folder, seed, vocab, merges, text=None, vision=None, projection=20, has_distinct_tokens=False):
    text = {**dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=24), **(text or {})}
    vision = {**dict(hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8), **(vision or {})}
    ids = dict(vocab_size=len(vocab), bos_token_id=vocab[BOS], eos_token_id=vocab[EOS], pad_token_id=vocab[EOS])
    model = CLIPModel(CLIPConfig(text_config={**ids, **text}, vision_config=vision, projection_dim=projection)).eval()
    randomize(model.named_parameters(), seed)
    if has_distinct_tokens:  # what all tokens share is small beside what each brings, so that similarities differ
        with torch.no_grad():
            for parameter_name, weight in model.text_model.named_parameters():
                weight.mul_(6 if "token_embedding" in parameter_name else 0.1 if "position_embedding" in parameter_name or parameter_name.endswith("bias") else 1)
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    write_vocab_and_merges(folder, vocab, merges)
    write_json(folder / "tokenizer_config.json", {"model_max_length": text["max_position_embeddings"], "tokenizer_class": "CLIPTokenizer", "bos_token": BOS, "eos_token": EOS, "pad_token": EOS, "unk_token": EOS})
    size = vision["image_size"]
    CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size}).save_pretrained(folder)
    return model, CLIPTokenizer.from_pretrained(folder), CLIPImageProcessorPil.from_pretrained(folder)


# ---- MPS ----

def cross_weights(dim, layers, heads, head_dim, ff, seed):
    weights = {}
    for i in range(layers):
        a, b = f"layers.{i}.0.fn.", f"layers.{i}.1.fn."
        shapes = {a + "norm.weight": (dim,), a + "to_q.weight": (heads * head_dim, dim), a + "to_kv.weight": (2 * head_dim, dim), a + "to_out.weight": (dim, heads * head_dim),
                  a + "ff.0.weight": (2 * ff, dim), a + "ff.2.weight": (dim, ff), b + "norm.weight": (dim,),
                  b + "fused_attn_ff_proj.weight": (heads * head_dim + 2 * head_dim + 2 * ff, dim), b + "attn_out.weight": (dim, heads * head_dim), b + "ff_out.1.weight": (dim, ff)}
        weights.update({name: torch.empty(shape) for name, shape in shapes.items()})
    randomize(weights.items(), seed)
    for i in range(layers):
        for part in (0, 1):
            weights[f"layers.{i}.{part}.fn.norm.bias"] = torch.zeros(dim)
        weights[f"layers.{i}.1.fn.rotary_emb.inv_freq"] = 1 / 10000 ** (torch.arange(0, head_dim, 2) / head_dim)
    return weights


def cross_forward(w, layers, head_dim, picture, prompt, seen):
    """picture [T, D], prompt [L, D], seen bool [L] -> [T, D]; one head of keys and values for all queries."""
    rotation = torch.polar(torch.ones(()), torch.outer(torch.arange(len(picture)).float(), 10000 ** (-torch.arange(head_dim // 2) * 2 / head_dim)))

    def rotated(x):
        turned = torch.complex(x[:, : head_dim // 2], x[:, head_dim // 2 :]) * rotation
        return torch.cat([turned.real, turned.imag], 1)

    def gated(x):
        value, gate = x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]
        return value * gate * torch.sigmoid(gate)

    def attention(queries, keys, values):
        out = [torch.softmax(q @ keys.T / math.sqrt(head_dim), 1) @ values for q in queries]
        return torch.cat(out, 1)

    x = picture
    for i in range(layers):
        a, b = f"layers.{i}.0.fn.", f"layers.{i}.1.fn."
        n = F.layer_norm(x, x.shape[1:], w[a + "norm.weight"])
        kv = prompt[seen] @ w[a + "to_kv.weight"].T
        x = x + attention((n @ w[a + "to_q.weight"].T).split(head_dim, 1), kv[:, :head_dim], kv[:, head_dim:]) @ w[a + "to_out.weight"].T \
            + gated(n @ w[a + "ff.0.weight"].T) @ w[a + "ff.2.weight"].T
        n = F.layer_norm(x, x.shape[1:], w[b + "norm.weight"])
        inner = w[b + "attn_out.weight"].shape[1]
        q, k, v, ff = (n @ w[b + "fused_attn_ff_proj.weight"].T).split([inner, head_dim, head_dim, 2 * w[b + "ff_out.1.weight"].shape[1]], 1)
        x = x + attention([rotated(h) for h in q.split(head_dim, 1)], rotated(k), v) @ w[b + "attn_out.weight"].T + gated(ff) @ w[b + "ff_out.1.weight"].T
    return x


def mps(root, name, pictures, seed, vocab, merges, layers=2, heads=3, head_dim=6, ff=40, dim=20, beside=False, **clip):
    folder = root / "mps" / name
    model, tokenizer, images = clip_folder(folder, seed, vocab, merges, projection=dim, has_distinct_tokens=True, **clip)
    cross = cross_weights(dim, layers, heads, head_dim, ff, seed + 100)
    (folder / "model.safetensors").unlink()
    target = root / "mps" / f"{name}_weights.safetensors" if beside else folder / "model.safetensors"
    save(target, {**{"model." + k: v for k, v in model.state_dict().items()}, **{"cross_model." + k: v for k, v in cross.items()}})
    length = tokenizer.model_max_length

    def tokens_of(text):
        ids = tokenizer(text, max_length=length, padding="max_length", truncation=True, return_tensors="pt").input_ids
        out = model.text_model(input_ids=ids)
        return model.text_projection(out.last_hidden_state)[0], model.text_projection(out.pooler_output)[0]

    expected = {"mask_sizes": []}
    with torch.no_grad():
        pixels = images(images=pictures, return_tensors="pt")["pixel_values"]
        tokens = model.visual_projection(model.vision_model(pixel_values=pixels).last_hidden_state)
        expected["features"] = tokens
        for label, condition, threshold in (("overall", CONDITION, 0.3), ("loose", CONDITION, 0.01), ("style", "style, tone", 0.3), ("semantic", "quantity, attributes, position, number, location", 0.3)):
            wanted, _ = tokens_of(condition)
            scores = []
            for i, prompt in enumerate(PROMPTS):
                words, whole = tokens_of(prompt)
                similarity = (words @ wanted.T).max(1).values
                seen = similarity / similarity.max() > threshold
                expected["mask_sizes"].append(seen.sum())
                looked = cross_forward(cross, layers, head_dim, tokens[i], words, seen)[0]
                scores.append(model.logit_scale.exp() * F.cosine_similarity(looked, whole, 0))
            expected["scores_" + label] = torch.stack(scores)
    expected["mask_sizes"] = torch.stack(expected["mask_sizes"])
    save(root / "mps" / f"{name}.safetensors", expected)


# ---- Denscore ----

def denscore(root, name, pictures, seed, vocab, merges, **clip):
    model, tokenizer, images = clip_folder(root / "denscore" / name, seed, vocab, merges, **clip)
    unit = lambda x: x / x.norm(dim=-1, keepdim=True)
    scores, counts = [], []
    with torch.no_grad():
        seen = unit(model.get_image_features(**images(images=pictures, return_tensors="pt")).pooler_output)
        for i, caption in enumerate(CAPTIONS):
            sentences = [s + "." for s in re.split(r'"!|\.|\?|;"', caption) if len(s) > 0] or [caption]
            counts.append(len(sentences))
            read = unit(model.get_text_features(**tokenizer(sentences, padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt")).pooler_output)
            scores.append(read.mean(0) @ seen[i])
    save(root / "denscore" / f"{name}.safetensors", {"scores": torch.stack(scores), "counts": torch.tensor(counts)})


def main():
    root = pathlib.Path(sys.argv[1])
    pictures = make_pictures(root / "pictures")
    write_json(root / "prompts.json", PROMPTS)
    write_json(root / "captions.json", CAPTIONS)
    imagereward(root, "plain", pictures, 1, form="ImageReward", extras=True)
    imagereward(root, "odd", pictures, 2, vision=dict(hidden_size=66, intermediate_size=31, num_attention_heads=3, num_hidden_layers=1, image_size=35, patch_size=7),
                text=dict(hidden_size=33, num_attention_heads=3, num_hidden_layers=2, intermediate_size=17, max_position_embeddings=20, layer_norm_eps=1e-5), head=(5, 4, 3, 2), form="model")
    imagereward(root, "deep", pictures, 3, vision=dict(hidden_size=192, num_attention_heads=3, num_hidden_layers=4, image_size=224, patch_size=56), text=dict(num_hidden_layers=5, hidden_act="relu"), form="ImageReward")
    imagereward(root, "pickled", pictures, 4, form="pt", extras=True)
    vocab, merges = train(300)
    mps(root, "plain", pictures, 5, vocab, merges)
    mps(root, "odd", pictures, 6, vocab, merges, layers=3, heads=1, head_dim=10, ff=7, dim=11, text=dict(hidden_size=33, num_attention_heads=3, max_position_embeddings=60, eos_token_id=2),
        vision=dict(hidden_size=30, num_attention_heads=5, image_size=35, patch_size=7))
    mps(root, "beside", pictures, 7, vocab, merges, layers=1, heads=4, beside=True)
    denscore(root, "plain", pictures, 8, vocab, merges)
    denscore(root, "odd", pictures, 9, vocab, merges, text=dict(hidden_act="gelu", max_position_embeddings=7), vision=dict(hidden_act="gelu", image_size=30, patch_size=8), projection=7)


main()
