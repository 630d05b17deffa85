"""Small random UNet2DConditionModels with inputs, outputs and gradients: DIR/CASE/{config.json, weights, case.safetensors}."""

import sys
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

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


def randomize(model, generator):
    """Weights near PyTorch's own scale, and norms and biases that are not one and zero."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                parameter.copy_(noise * (1.0 / parameter[0].numel()) ** 0.5)
            else:
                parameter.copy_(noise * 0.1 + (1.0 if "norm" in name and name.endswith("weight") else 0.0))


def make_case(folder, config, height, width, float_timesteps):
    generator = torch.Generator().manual_seed(7)
    model = UNet2DConditionModel(**config)
    randomize(model, generator)
    model.save_pretrained(folder)

    def randn(*shape):
        return torch.randn(shape, generator=generator)

    latents = randn(2, model.config.in_channels, height, width).requires_grad_()
    states = randn(2, 7, 24).requires_grad_()
    timesteps = torch.tensor([17.25, 801.5]) if float_timesteps else torch.tensor([3, 977])
    tensors = dict(noisy_latents=latents, encoder_hidden_states=states, timesteps=timesteps)
    added = None
    if model.config.addition_embed_type:
        pooled = randn(2, 20).requires_grad_()
        time_ids = torch.tensor([[64.0, 80, 0, 4, 64, 64], [32, 32, 8, 0, 64, 96]])
        tensors.update(pooled=pooled, time_ids=time_ids)
        added = dict(text_embeds=pooled, time_ids=time_ids)
    prediction = model(latents, timesteps, states, added_cond_kwargs=added).sample
    cotangent = randn(*prediction.shape)
    (prediction * cotangent).sum().backward()
    tensors.update(prediction=prediction, cotangent=cotangent)
    for name in ("noisy_latents", "encoder_hidden_states", "pooled"):
        if name in tensors:
            tensors["input_grad." + name] = tensors[name].grad
    for name, parameter in model.named_parameters():
        # Casting the model below casts the gradients it holds, too.
        tensors["grad." + name] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
    with torch.no_grad():
        half = model.to(torch.bfloat16)
        cast = None if added is None else {k: v.to(torch.bfloat16) if k == "text_embeds" else v for k, v in added.items()}
        tensors["prediction_bf16"] = half(latents.bfloat16(), timesteps, states.bfloat16(), added_cond_kwargs=cast).sample
    save_file({k: v.detach().contiguous() for k, v in tensors.items()}, folder / "case.safetensors")


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
