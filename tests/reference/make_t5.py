"""Small random T5 encoders with transformers' states in three precisions, and what pipelines of diffusers ask them.

Usage: make_t5.py OUTPUT
  OUTPUT/models/<name>/            config.json and weights
  OUTPUT/models/<name>.safetensors input_ids, mask and the states: plain, masked, and with the prefixes bf16. and fp16.
  OUTPUT/prompts.json              list of prompts
  OUTPUT/pipeline/                 tokenizer/ and text_encoder/
  OUTPUT/pipeline.safetensors      sd3, flux, pixart, pixart.mask: states and mask of the prompts; lengths 21, 33, 12
  OUTPUT/lower.json                texts and their lower().strip()
"""

import json
import pathlib
import sys

import torch
from diffusers import FluxPipeline, PixArtSigmaPipeline, StableDiffusion3Pipeline
from safetensors.torch import load_file, save_file
from transformers import T5Config, T5EncoderModel, T5ForConditionalGeneration, T5TokenizerFast

from clip_vocabulary import write_json
from t5_vocabulary import train
from tokenizer_prompts import HAND_PICKED, code_points

torch.set_num_threads(1)

BASE = dict(vocab_size=99, d_model=32, d_kv=8, d_ff=40, num_layers=3, num_heads=4, feed_forward_proj="gated-gelu", tie_word_embeddings=False)


def randomize(model, seed, scale=1.0):
    """Weights large enough that attention, biases by distance and norms all matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if "norm" in name:
                weight.copy_(1 + 0.3 * noise)
            elif "relative_attention_bias" in name:
                weight.copy_(noise)
            elif name.endswith(("q.weight", "k.weight")):
                weight.copy_(noise * 0.6 / weight.shape[-1] ** 0.5)
            else:
                weight.copy_(noise * scale / weight.shape[-1] ** 0.5)


def inputs(vocab_size, length, seed=5):
    """Tokens, and masks with all, one, some on the right, some on the left, and none that count."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, vocab_size, (5, length), generator=generator)
    mask = torch.ones(5, length, dtype=torch.long)
    mask[1, 1:] = 0
    mask[2, length // 2 + 1 :] = 0
    mask[3, : length // 3] = 0
    mask[4] = 0
    return tokens, mask


def expected_of(folder, cls, tokens, mask):
    expected = {"input_ids": tokens, "mask": mask}
    for prefix, dtype in (("", torch.float32), ("bf16.", torch.bfloat16), ("fp16.", torch.float16)):
        model = cls.from_pretrained(folder, dtype=dtype).eval()
        with torch.no_grad():
            expected[prefix + "plain"] = model(tokens)[0].float()
            expected[prefix + "masked"] = model(tokens, attention_mask=mask)[0].float()
    return expected


def make(root, name, length=17, scale=1.0, whole=False, rename=None, config_changes=None, **changes):
    config = T5Config(**{**BASE, **changes})
    folder = root / "models" / name
    model = (T5ForConditionalGeneration if whole else T5EncoderModel)(config).eval()
    randomize(model, seed=len(name), scale=scale)
    model.save_pretrained(folder, **({"max_shard_size": "20KB"} if whole else {}))
    tokens, mask = inputs(config.vocab_size, length)
    save_file(expected_of(folder, T5EncoderModel, tokens, mask), root / "models" / f"{name}.safetensors")
    if rename:
        rename(folder)
    if config_changes:
        path = folder / "config.json"
        value = {**json.loads(path.read_text()), **config_changes}
        write_json(path, {k: v for k, v in value.items() if v != "drop"})


def other_name(folder):
    weights = load_file(folder / "model.safetensors")
    weights["encoder.embed_tokens.weight"] = weights.pop("shared.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def both_names(folder):
    weights = load_file(folder / "model.safetensors")
    weights["encoder.embed_tokens.weight"] = weights["shared.weight"].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def pickled(folder):
    """As transformers 4 saved it: both names of one tensor."""
    weights = load_file(folder / "model.safetensors")
    weights["encoder.embed_tokens.weight"] = weights["shared.weight"]
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")


def pickled_shards(folder):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    index = {}
    for number in (1, 2):
        file = f"pytorch_model-{number:05}-of-00002.bin"
        torch.save({name: weights[name] for name in names[number - 1 :: 2]}, folder / file)
        index.update({name: file for name in names[number - 1 :: 2]})
    write_json(folder / "pytorch_model.bin.index.json", {"metadata": {}, "weight_map": index})


def make_pipeline(root):
    folder = root / "pipeline"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "tokenizer" / "spiece.model").write_bytes(train(700))
    tokenizer = T5TokenizerFast.from_pretrained(folder / "tokenizer")
    encoder = T5EncoderModel(T5Config(**{**BASE, "vocab_size": len(tokenizer) + 28})).eval()
    randomize(encoder, 11)
    encoder.save_pretrained(folder / "text_encoder")
    prompts = ["a red circle left of a blue square", "", "  A Photo of an ASTRONAUT riding a horse, it's 8k! \n", "sch\u00f6ne H\u00e4user \u039f\u0394\u039f\u03a3 \u7ea2\u8272\u7684\u5706\u5f62", "the quick brown fox " * 30]
    write_json(root / "prompts.json", prompts)

    class Parts:
        """What those methods ask of a pipeline."""

        text_encoder = text_encoder_2 = text_encoder_3 = encoder
        tokenizer = tokenizer_2 = tokenizer_3 = T5TokenizerFast.from_pretrained(folder / "tokenizer")
        tokenizer_max_length = 77
        _execution_device = torch.device("cpu")
        _text_preprocessing = PixArtSigmaPipeline._text_preprocessing

    with torch.no_grad():
        states, mask, _, _ = PixArtSigmaPipeline.encode_prompt(Parts(), prompts, do_classifier_free_guidance=False, max_sequence_length=12)
        expected = {
            "sd3": StableDiffusion3Pipeline._get_t5_prompt_embeds(Parts(), prompts, max_sequence_length=21),
            "flux": FluxPipeline._get_t5_prompt_embeds(Parts(), prompts, max_sequence_length=33),
            "pixart": states,
            "pixart.mask": mask,
        }
    save_file({key: value.contiguous() for key, value in expected.items()}, root / "pipeline.safetensors")
    texts = HAND_PICKED + [f" a{chr(c)}b {chr(c)}" for c in code_points()] + [f"{chr(c)}x{chr(c)}" for c in range(0x3100)]
    texts += [f"{left}\u03a3{right}" for left in ("", "a", "a.", "1", "\u0301", "a\u0301", "\u02b0", "A\u00ad") for right in ("", "b", ".", ".b", "\u0301", "'", "'x", " a")]
    write_json(root / "lower.json", [texts, [text.lower().strip() for text in texts]])


def main():
    root = pathlib.Path(sys.argv[1])
    old = {"dense_act_fn": "drop", "is_gated_act": "drop", "architectures": ["T5WithLMHeadModel"], "n_positions": 512, "output_past": True, "torch_dtype": "float16", "dtype": "drop",
           "task_specific_params": {"summarization": {"prefix": "summarize: "}}, "decoder_start_token_id": 0}
    make_pipeline(root)
    make(root, "gated_gelu")
    make(root, "relu", feed_forward_proj="relu", tie_word_embeddings=True, config_changes=old)
    make(root, "odd_sizes", d_model=30, d_kv=7, d_ff=23, num_heads=3, num_layers=2, vocab_size=37, length=11)
    make(root, "few_buckets", relative_attention_num_buckets=6, relative_attention_max_distance=9, layer_norm_epsilon=1e-3, length=40)
    make(root, "odd_buckets", relative_attention_num_buckets=13, relative_attention_max_distance=20, feed_forward_proj="gated-silu", length=33)
    make(root, "long", num_heads=1, num_layers=1, feed_forward_proj="gelu", length=150)
    make(root, "one_token", feed_forward_proj="gated-relu", length=1)
    make(root, "overflow", scale=40.0, num_layers=4)
    make(root, "whole_model", whole=True, num_decoder_layers=1)
    make(root, "other_name", rename=other_name)
    make(root, "both_names", rename=both_names)
    make(root, "pickled", rename=pickled)
    make(root, "pickled_shards", rename=pickled_shards, feed_forward_proj="gelu_new")


main()
