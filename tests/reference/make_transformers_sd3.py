"""Small random SD3Transformer2DModels with inputs, outputs and gradients: DIR/CASE/{config.json, weights, case.safetensors}."""

import sys
from pathlib import Path

import torch
from denoiser_case import randomize, write_case
from diffusers import SD3Transformer2DModel
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


def main():
    out = Path(sys.argv[1])
    for name, (config, height, width, float_timesteps) in CASES.items():
        make_case(out / name, config, height, width, float_timesteps)
    make_storage_variants(out / "storage")


if __name__ == "__main__":
    main()
