"""Small random UNet2DConditionModels with inputs, outputs and gradients: DIR/CASE/{config.json, weights, case.safetensors}."""

import sys
from pathlib import Path

import torch
from denoiser_case import randomize, write_case
from diffusers import UNet2DConditionModel

torch.set_num_threads(1)

TWO = dict(
    down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"],
    up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"],
    block_out_channels=[16, 32],
    layers_per_block=1,
    norm_num_groups=8,
    cross_attention_dim=24,
    attention_head_dim=2,
    sample_size=8,
)
THREE = dict(
    TWO,
    down_block_types=["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    up_block_types=["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    block_out_channels=[16, 32, 32],
)

# name -> (config, latent height, latent width, float timesteps)
CASES = {
    "v1": (dict(TWO, layers_per_block=2), 8, 8, False),
    "odd_size": (THREE, 9, 13, False),
    "v2_linear_heads_list": (
        dict(THREE, use_linear_projection=True, attention_head_dim=[2, 4, 8], upcast_attention=True, sample_size=[8, 12]),
        6, 10, True,
    ),
    "uneven_heads": (dict(TWO, attention_head_dim=[3, 5]), 8, 8, False),
    "uneven_heads_linear": (dict(TWO, attention_head_dim=[3, 5], use_linear_projection=True), 8, 8, False),
    "xl_text_time": (
        dict(
            THREE,
            down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            use_linear_projection=True,
            transformer_layers_per_block=[1, 2, 3],
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=20 + 6 * 8,
        ),
        8, 8, False,
    ),
    "scale_shift_only_cross": (
        dict(
            TWO,
            resnet_time_scale_shift="scale_shift",
            only_cross_attention=[True, False],
            norm_eps=1e-3,
            act_fn="mish",
            mid_block_scale_factor=1.4,
            center_input_sample=True,
            flip_sin_to_cos=False,
            freq_shift=1,
        ),
        8, 6, False,
    ),
    "no_mid": (dict(TWO, mid_block_type=None, conv_in_kernel=5, conv_out_kernel=1, in_channels=9), 8, 8, False),
    "resnet_mid": (
        dict(TWO, mid_block_type="UNetMidBlock2D", downsample_padding=0, time_embedding_dim=40, out_channels=8), 8, 8, False,
    ),
    "lists": (
        dict(
            THREE,
            layers_per_block=[1, 2, 1],
            cross_attention_dim=[24, 24, 24],
            transformer_layers_per_block=[[2], [1, 2], [1]],
            reverse_transformer_layers_per_block=[[1, 1], [2, 1, 1], [1, 2]],
            time_embedding_act_fn="silu",
            timestep_post_act="gelu",
            act_fn="gelu",
        ),
        7, 5, True,
    ),
    "all_attention": (
        dict(
            TWO,
            down_block_types=["CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
            only_cross_attention=True,
            resnet_skip_time_act=True,
            resnet_out_scale_factor=2.0,
        ),
        5, 8, False,
    ),
    "depth_one": (
        dict(TWO, down_block_types=["CrossAttnDownBlock2D"], up_block_types=["CrossAttnUpBlock2D"], block_out_channels=[17],
             norm_num_groups=17, attention_head_dim=1),
        3, 3, False,
    ),
}


def run(model, inputs):
    added = None
    if "pooled" in inputs:
        added = dict(text_embeds=inputs["pooled"], time_ids=inputs["time_ids"])
    return model(inputs["noisy_latents"], inputs["timesteps"], inputs["encoder_hidden_states"], added_cond_kwargs=added).sample


def make_case(folder, config, height, width, float_timesteps):
    generator = torch.Generator().manual_seed(7)
    model = UNet2DConditionModel(**config)
    randomize(model, generator)
    model.save_pretrained(folder)

    def randn(*shape):
        return torch.randn(shape, generator=generator).requires_grad_()

    inputs = dict(
        noisy_latents=randn(2, model.config.in_channels, height, width),
        encoder_hidden_states=randn(2, 7, 24),
        timesteps=torch.tensor([17.25, 801.5]) if float_timesteps else torch.tensor([3, 977]),
    )
    if model.config.addition_embed_type:
        inputs["pooled"] = randn(2, 20)
        inputs["time_ids"] = torch.tensor([[64.0, 80, 0, 4, 64, 64], [32, 32, 8, 0, 64, 96]])
    write_case(folder, model, inputs, run, generator)


def make_storage_variants(out):
    """The same network stored in shards and as a half-precision variant."""
    generator = torch.Generator().manual_seed(3)
    model = UNet2DConditionModel(**TWO)
    randomize(model, generator)
    model.save_pretrained(out / "single")
    model.save_pretrained(out / "sharded", max_shard_size="100KB")
    model.half().save_pretrained(out / "variant", variant="fp16")


def main():
    out = Path(sys.argv[1])
    for name, (config, height, width, float_timesteps) in CASES.items():
        make_case(out / name, config, height, width, float_timesteps)
    (out / "storage").mkdir()
    make_storage_variants(out / "storage")


if __name__ == "__main__":
    main()
