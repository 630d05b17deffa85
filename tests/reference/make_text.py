"""Small random CLIP text encoders with transformers' outputs and gradients, and a pipeline's prompt embeddings.

Usage: make_text.py OUTPUT
  OUTPUT/models/<name>/            config.json, model.safetensors
  OUTPUT/models/<name>.safetensors input_ids, last_hidden_state, hidden_states.N, pooled, text_embeds, grad.<key>, bf16
  OUTPUT/pipeline/                 tokenizer/ and text_encoder/ of a diffusers model
  OUTPUT/pipeline.safetensors      clip_skip.none, clip_skip.0, clip_skip.1, ... for OUTPUT/prompts.json, and segments,
                                   segments.skip, segments.masked for OUTPUT/segments.json
"""

import json
import pathlib
import re
import shutil
import sys

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from clip_vocabulary import BOS, EOS, train, write_json, write_vocab_and_merges

torch.set_num_threads(1)

BASE = dict(vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, projection_dim=20,
            max_position_embeddings=16, bos_token_id=97, eos_token_id=98, pad_token_id=98)
PROMPTS = ["a red circle left of a blue square", "", "A Photo of an ASTRONAUT riding a horse, it's 8k!", "schöne Häuser 红色的圆形"]


def randomize(model, seed):
    """Weights large enough that attention, norms and biases all matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if "norm" in name and name.endswith("weight"):
                weight.copy_(1 + 0.3 * noise)
            else:
                weight.copy_(noise * (0.3 if weight.dim() <= 1 else 1.5 / weight.shape[-1] ** 0.5))


def ids(config, batch, length, seed):
    """Random tokens, an end token early, in the middle and last, and padding after it."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, config["vocab_size"] - 2, (batch, length), generator=generator)
    tokens[:, 0] = config["bos_token_id"]
    for row in range(batch):
        end = [length - 1, 1, length // 2][row % 3]
        tokens[row, end:] = config["vocab_size"] - 1
    return tokens


def run(model, tokens, mask=None):
    out = model(tokens, attention_mask=mask, output_hidden_states=True)
    result = {"last_hidden_state": out.last_hidden_state}
    result.update({f"hidden_states.{i}": h for i, h in enumerate(out.hidden_states)})
    if hasattr(out, "text_embeds"):
        result["text_embeds"] = out.text_embeds
        result["pooled"] = model.text_model(tokens, attention_mask=mask).pooler_output
    else:
        result["pooled"] = out.pooler_output
    return result


def public(key):
    return key if key.startswith(("text_model.", "text_projection.")) else "text_model." + key


def make_model(root, name, cls, length=16, mask=None, rename=None, config_changes=None, **changes):
    config = {**BASE, **changes}
    model = cls(CLIPTextConfig(**config)).eval()
    randomize(model, seed=len(name))
    folder = root / "models" / name
    model.save_pretrained(folder)
    tokens = ids(config, 3, length, seed=5)
    out = run(model, tokens, mask)
    loss = sum((value * torch.linspace(-1, 1, value.numel()).view_as(value)).sum() for key, value in sorted(out.items())
               if key in ("last_hidden_state", "pooled", "text_embeds", "hidden_states.1"))
    loss.backward()
    expected = {"input_ids": tokens, **{k: v.detach().contiguous().clone() for k, v in out.items()}}
    expected.update({"grad." + public(k): p.grad.clone() for k, p in model.named_parameters() if length > 1})
    if mask is not None:
        expected["attention_mask"] = mask
    with torch.no_grad():
        expected["bf16"] = run(model.bfloat16(), tokens, mask)["last_hidden_state"].float()
    save_file(expected, root / "models" / f"{name}.safetensors")
    if rename:
        weights = load_file(folder / "model.safetensors")
        save_file(rename(weights), folder / "model.safetensors", metadata={"format": "pt"})
    if config_changes:
        path = folder / "config.json"
        value = json.loads(path.read_text())
        value.update(config_changes)
        write_json(path, {k: v for k, v in value.items() if v != "drop"})


def old_prefix(weights):
    """As transformers 4 saved it: every key prefixed, positions stored."""
    named = {public(k): v for k, v in weights.items()}
    named["text_model.embeddings.position_ids"] = torch.arange(BASE["max_position_embeddings"]).unsqueeze(0)
    return named


def make_whole_clip(root):
    """A whole CLIPModel, of which the text half is wanted."""
    from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig

    vision = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4)
    text = {**BASE, "projection_dim": 20}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=20)).eval()
    randomize(model, 3)
    model.save_pretrained(root / "models" / "whole_clip")
    tokens = ids(BASE, 3, 16, 5)
    with torch.no_grad():
        out = model.text_model(tokens)
        expected = {"input_ids": tokens, "last_hidden_state": out.last_hidden_state, "pooled": out.pooler_output.contiguous(),
                    "text_embeds": model.text_projection(out.pooler_output)}
    save_file(expected, root / "models" / "whole_clip.safetensors")


SEGMENT_PROMPTS = [
    "a red circle", "A dog sits here. Two cats? Yes; no", "", "...", "Mr. Smith, e.g. an old man. ", "it's 8k! wow!! \"!he said;\" then",
    "two\nlines.\n\nand more", "words without an end " * 12, "a word <|endoftext|> in between. and after",
    "The quick brown fox jumps over the lazy dog near the old bridge. " * 30,
]


@torch.no_grad()
def segments(tokenizer, encoder, prompt, length=240, padding_length=60, states=lambda output: output.last_hidden_state[0]):
    """LongAlign's encoding of a caption, a sentence at a time and without padding, which no state that is kept can see."""
    sentences = [sentence + "." for sentence in re.split(r'"!|\.|\?|;"', prompt) if sentence] or [prompt]
    kept = []
    for sentence in sentences:
        ids = tokenizer(sentence, truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt").input_ids
        kept.append(states(encoder(ids, output_hidden_states=True))[ids[0] != tokenizer.eos_token_id])
    empty = tokenizer("", padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt")
    mask = {"attention_mask": empty.attention_mask} if getattr(encoder.config, "use_attention_mask", False) else {}
    padding = states(encoder(empty.input_ids, output_hidden_states=True, **mask))[-padding_length:].mean(0, keepdim=True)
    return torch.cat([*kept, padding.expand(length, -1)])[:length]


def make_pipeline(root):
    vocab, merges = train(600)
    folder = root / "pipeline"
    write_vocab_and_merges(folder / "tokenizer", vocab, merges)
    specials = {"bos_token": BOS, "eos_token": EOS, "pad_token": "!", "unk_token": EOS}
    write_json(folder / "tokenizer" / "tokenizer_config.json", {"model_max_length": 24, "tokenizer_class": "CLIPTokenizer", **specials})
    write_json(folder / "tokenizer" / "special_tokens_map.json", specials)
    config = {**BASE, "vocab_size": len(vocab), "max_position_embeddings": 24, "bos_token_id": vocab[BOS], "eos_token_id": vocab[EOS]}
    encoder = CLIPTextModel(CLIPTextConfig(**config)).eval()
    randomize(encoder, 11)
    encoder.save_pretrained(folder / "text_encoder")
    # diffusers' clip_skip still asks for the `text_model` that transformers 5 took out of CLIPTextModel.
    encoder.__dict__["text_model"] = encoder
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    pipeline = StableDiffusionPipeline(vae=None, text_encoder=encoder, tokenizer=tokenizer, unet=None, scheduler=DDIMScheduler(clip_sample=False), safety_checker=None,
                                       feature_extractor=None, requires_safety_checker=False)
    prompts = PROMPTS + ["the quick brown fox jumps over the lazy dog, " * 4]
    write_json(root / "prompts.json", prompts)
    expected = {}
    with torch.no_grad():
        for skip in (None, 0, 1, 2, 3):
            embeds, _ = pipeline.encode_prompt(prompts, "cpu", 1, False, clip_skip=skip)
            expected[f"clip_skip.{'none' if skip is None else skip}"] = embeds.contiguous().clone()
        rows = lambda **options: torch.stack([segments(tokenizer, encoder, prompt, **options) for prompt in SEGMENT_PROMPTS])
        expected["segments"] = rows()
        expected["segments.skip"] = rows(states=lambda output: encoder.final_layer_norm(output.hidden_states[-2])[0])
        encoder.config.use_attention_mask = True
        embeds, _ = pipeline.encode_prompt(prompts, "cpu", 1, False)
        expected["masked"] = embeds.contiguous().clone()
        expected["segments.masked"] = rows()
        write_json(root / "segments.json", SEGMENT_PROMPTS)
    save_file(expected, root / "pipeline.safetensors")
    shutil.copytree(folder, root / "pipeline_masked")
    path = root / "pipeline_masked" / "text_encoder" / "config.json"
    write_json(path, {**json.loads(path.read_text()), "use_attention_mask": True})


def main():
    root = pathlib.Path(sys.argv[1])
    (root / "models").mkdir(parents=True, exist_ok=True)
    make_model(root, "plain", CLIPTextModel)
    make_model(root, "gelu", CLIPTextModel, hidden_act="gelu", layer_norm_eps=1e-3)
    make_model(root, "old_layout", CLIPTextModel, rename=old_prefix, eos_token_id=2, config_changes={"dtype": "drop", "torch_dtype": "float16", "dropout": 0.0, "_name_or_path": "x"})
    make_model(root, "projection", CLIPTextModelWithProjection, hidden_act="gelu")
    make_model(root, "projection_eos_2", CLIPTextModelWithProjection, eos_token_id=2, config_changes={"architectures": "drop"})
    make_model(root, "odd_heads", CLIPTextModelWithProjection, hidden_size=33, num_attention_heads=3, intermediate_size=7, projection_dim=5, length=11)
    make_model(root, "one_head", CLIPTextModel, num_attention_heads=1, num_hidden_layers=1, hidden_act="gelu_new", length=5)
    make_model(root, "one_token", CLIPTextModel, hidden_act="relu", length=1)
    mask = (torch.arange(16) < torch.tensor([[16], [2], [9]])).long()
    make_model(root, "masked", CLIPTextModel, mask=mask)
    make_whole_clip(root)
    make_pipeline(root)


main()
