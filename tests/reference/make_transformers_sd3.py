"""Small random SD3Transformer2DModels, and LoRAs of one of them.

make_transformers_sd3.py OUT                 writes OUT/CASE/{config.json, weights, case.safetensors} with inputs, outputs and
                                             gradients, and OUT/lora/CASE/{lora.safetensors, expected.safetensors}
make_transformers_sd3.py OUT CASE FILE...    loads each LoRA FILE with diffusers on the network of the folder CASE and writes
                                             what it predicts to OUT/<n>.safetensors
"""

import sys
from pathlib import Path

import torch
from denoiser_case import randomize, write_case
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

torch.set_num_threads(1)

SMALL = dict(
    sample_size=8,
    patch_size=2,
    in_channels=4,
    out_channels=4,
    num_layers=2,
    attention_head_dim=8,
    num_attention_heads=3,
    joint_attention_dim=20,
    caption_projection_dim=24,
    pooled_projection_dim=14,
    pos_embed_max_size=6,
)

# name -> (config, latent height, latent width, float timesteps)
CASES = {
    "medium": (SMALL, 8, 8, True),
    "medium_35": (dict(SMALL, num_layers=3, dual_attention_layers=(0, 2), qk_norm="rms_norm"), 6, 10, True),
    "large_35": (
        dict(SMALL, qk_norm="rms_norm", num_attention_heads=5, attention_head_dim=4, caption_projection_dim=20, out_channels=6),
        4, 8, False,
    ),
    "patch_one": (
        dict(SMALL, patch_size=1, sample_size=5, num_attention_heads=1, attention_head_dim=12, caption_projection_dim=12,
             pos_embed_max_size=5, dual_attention_layers=(0, 1), in_channels=3),
        5, 3, True,
    ),
    "patch_three_one_block": (
        dict(SMALL, patch_size=3, sample_size=10, num_layers=1, in_channels=5, out_channels=2, pos_embed_max_size=7), 12, 9, False,
    ),
    "odd_crop": (dict(SMALL, pos_embed_max_size=9, sample_size=12, dual_attention_layers=(1, 7)), 10, 4, True),
    "positions_of_every_size": (dict(SMALL, pos_embed_max_size=None, out_channels=None, in_channels=6), 6, 10, True),
    "wide_head": (
        dict(SMALL, num_attention_heads=1, attention_head_dim=80, caption_projection_dim=80, qk_norm="rms_norm",
             dual_attention_layers=(0,)),
        2, 12, True,
    ),
}


def run(model, inputs):
    return model(
        inputs["noisy_latents"],
        encoder_hidden_states=inputs["encoder_hidden_states"],
        pooled_projections=inputs["pooled"],
        timestep=inputs["timesteps"],
    ).sample


def make_model(config, generator):
    model = SD3Transformer2DModel(**config)
    randomize(model, generator)
    return model


def make_case(folder, config, height, width, float_timesteps):
    generator = torch.Generator().manual_seed(11)
    model = make_model(config, generator)
    model.save_pretrained(folder)

    def randn(*shape):
        return torch.randn(shape, generator=generator).requires_grad_()

    inputs = dict(
        noisy_latents=randn(2, model.config.in_channels, height, width),
        encoder_hidden_states=randn(2, 7, model.config.joint_attention_dim),
        pooled=randn(2, model.config.pooled_projection_dim),
        timesteps=torch.tensor([17.25, 801.5]) if float_timesteps else torch.tensor([3, 977]),
    )
    write_case(folder, model, inputs, run, generator)


def make_storage_variants(out):
    """The same network as it is, in shards, in bfloat16, and without the positions that can be computed."""
    model = make_model(SMALL, torch.Generator().manual_seed(3))
    model.save_pretrained(out / "single")
    model.save_pretrained(out / "sharded", max_shard_size="30KB")
    model.save_pretrained(out / "no_positions")
    path = out / "no_positions/diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    del weights["pos_embed.pos_embed"]
    save_file(weights, path, metadata={"format": "pt"})
    model.bfloat16().save_pretrained(out / "bf16")


def load_pipeline(folder):
    nothing = dict.fromkeys(["vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "text_encoder_3", "tokenizer_3"])
    transformer = SD3Transformer2DModel.from_pretrained(folder).eval()
    return StableDiffusion3Pipeline(transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(), **nothing)


def save_prediction(pipeline, inputs, path):
    with torch.no_grad():
        save_file({"prediction": run(pipeline.transformer, inputs).contiguous()}, path)


def add_adapter(transformer, seed, **config):
    transformer.add_adapter(LoraConfig(init_lora_weights="gaussian", **config))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.15 * torch.randn(parameter.shape, generator=generator))
    return get_peft_model_state_dict(transformer), transformer.peft_config["default"].to_dict()


def flat_names(layers, alpha):
    """The same adapter with underscores for dots and an alpha beside each layer, as OneTrainer writes it."""
    tensors = {}
    for name in {key.split(".lora_")[0] for key in layers}:
        base = "lora_transformer_" + name.replace(".", "_")
        tensors[base + ".lora_down.weight"] = layers[name + ".lora_A.weight"].clone()
        tensors[base + ".lora_up.weight"] = layers[name + ".lora_B.weight"].clone()
        tensors[base + ".alpha"] = torch.tensor(float(alpha))
    return tensors


def make_loras(out, model):
    inputs = load_file(model / "case.safetensors")
    attention = ["to_q", "to_k", "to_v", "to_out.0"]
    joint = attention + ["add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]
    everywhere = joint + ["ff.net.0.proj", "ff_context.net.2", "norm1.linear", "context_embedder", "proj_out"]
    cases = {
        "attention": dict(r=4, lora_alpha=10, target_modules=attention),
        "joint": dict(
            r=3, lora_alpha=5, target_modules=joint, rank_pattern={"attn2.to_q": 2}, alpha_pattern={r"transformer_blocks\.0\..*add_k_proj": 1.5}
        ),
        "everywhere": dict(r=2, lora_alpha=1, target_modules=everywhere, use_rslora=True),
        "plain": dict(r=3, lora_alpha=3, target_modules=joint),
        "flat": dict(r=2, lora_alpha=7, target_modules=joint),
    }
    for seed, (name, config) in enumerate(cases.items()):
        folder = out / name
        folder.mkdir(parents=True)
        pipeline = load_pipeline(model)
        layers, metadata = add_adapter(pipeline.transformer, seed, **config)
        if name == "flat":
            save_file(flat_names(layers, 7), folder / "lora.safetensors")
        else:
            metadata = {} if name == "plain" else {"transformer_lora_adapter_metadata": metadata}
            StableDiffusion3Pipeline.save_lora_weights(folder, layers, weight_name="lora.safetensors", **metadata)
            pipeline = load_pipeline(model)
            pipeline.load_lora_weights(folder, weight_name="lora.safetensors")
        save_prediction(pipeline, inputs, folder / "expected.safetensors")


def run_loras(out, model, files):
    inputs = load_file(model / "case.safetensors")
    for i, file in enumerate(files):
        pipeline = load_pipeline(model)
        pipeline.load_lora_weights(str(Path(file).parent), weight_name=Path(file).name)
        save_prediction(pipeline, inputs, out / f"{i}.safetensors")


def main():
    out = Path(sys.argv[1])
    if len(sys.argv) > 2:
        return run_loras(out, Path(sys.argv[2]), sys.argv[3:])
    for name, (config, height, width, float_timesteps) in CASES.items():
        make_case(out / name, config, height, width, float_timesteps)
    make_storage_variants(out / "storage")
    make_loras(out / "lora", out / "medium_35")


if __name__ == "__main__":
    main()
