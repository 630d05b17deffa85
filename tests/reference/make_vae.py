"""Small random AutoencoderKLs with inputs, outputs and gradients: DIR/CASE/{config.json, weights, case.safetensors}."""

import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import load_file, save_file

torch.set_num_threads(1)

TWO = dict(
    down_block_types=["DownEncoderBlock2D"] * 2,
    up_block_types=["UpDecoderBlock2D"] * 2,
    block_out_channels=[8, 16],
    layers_per_block=1,
    norm_num_groups=4,
    latent_channels=4,
    sample_size=16,
)

# name -> (config, picture height, picture width)
CASES = {
    "v1": (TWO, 16, 16),
    "four_stages": (
        dict(
            TWO,
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            block_out_channels=[8, 8, 16, 16],
            layers_per_block=2,
            scaling_factor=0.13025,
            force_upcast=False,
            sample_size=[64, 64],
        ),
        24, 40,
    ),
    "flow_no_quant": (
        dict(TWO, latent_channels=16, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.0609, scaling_factor=1.5305),
        18, 14,
    ),
    "no_attention": (dict(TWO, mid_block_add_attention=False, act_fn="mish", in_channels=1, out_channels=2), 12, 8),
    "one_stage": (
        dict(TWO, down_block_types=["DownEncoderBlock2D"], up_block_types=["UpDecoderBlock2D"], block_out_channels=[12]), 5, 7,
    ),
    "odd_picture": (TWO, 17, 11),
}


def randomize(model, generator):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                parameter.copy_(noise * (1.0 / parameter[0].numel()) ** 0.5)
            else:
                parameter.copy_(noise * 0.1 + (1.0 if "norm" in name and name.endswith("weight") else 0.0))


def make_case(folder, config, height, width):
    generator = torch.Generator().manual_seed(11)
    model = AutoencoderKL(**config)
    randomize(model, generator)
    model.save_pretrained(folder)

    def randn(*shape):
        return torch.randn(shape, generator=generator)

    pixel_values = randn(2, model.config.in_channels, height, width).requires_grad_()
    posterior = model.encode(pixel_values).latent_dist
    latents = randn(*posterior.mean.shape).requires_grad_()
    shift = model.config.shift_factor or 0.0
    decoded = model.decode(latents / model.config.scaling_factor + shift).sample
    mean_cotangent, std_cotangent, decoded_cotangent = randn(*posterior.mean.shape), randn(*posterior.mean.shape), randn(*decoded.shape)
    loss = (posterior.mean * mean_cotangent).sum() + (posterior.std * std_cotangent).sum() + (decoded * decoded_cotangent).sum()
    loss.backward()
    tensors = dict(
        pixel_values=pixel_values, mean=posterior.mean, std=posterior.std, logvar=posterior.logvar, latents=latents,
        decoded=decoded, mean_cotangent=mean_cotangent, std_cotangent=std_cotangent, decoded_cotangent=decoded_cotangent,
        scaled_mean=(posterior.mean - shift) * model.config.scaling_factor,
    )
    tensors["input_grad.pixel_values"] = pixel_values.grad
    tensors["input_grad.latents"] = latents.grad
    for name, parameter in model.named_parameters():
        tensors["grad." + name] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    save_file({k: v.detach().contiguous() for k, v in tensors.items()}, folder / "case.safetensors")


def fades(sizes, kept):
    """The weight of every tile at each of its places along one side: up from 0 behind the one before, down to 0 under the next."""
    weights = []
    for number, size in enumerate(sizes):
        weight = torch.ones(size)
        if number > 0:
            overlap = min(sizes[number - 1] - kept, size)
            weight[:overlap] = torch.arange(overlap) / overlap
        if number + 1 < len(sizes):
            overlap = min(size - kept, sizes[number + 1])
            weight[kept : kept + overlap] = 1 - torch.arange(overlap) / overlap
            weight[kept + overlap :] = 0
        weights.append(weight)
    return weights


def joined(function, inputs, tile, output_tile):
    """`function` of overlapping tiles, weighted by the products of their fades along both sides."""
    step, kept = tile * 3 // 4, output_tile - output_tile // 4
    parts = [[function(inputs[:, :, top : top + tile, left : left + tile]) for left in range(0, inputs.shape[3], step)]
             for top in range(0, inputs.shape[2], step)]
    rows, columns = fades([row[0].shape[2] for row in parts], kept), fades([part.shape[3] for part in parts[0]], kept)
    height, width = ((len(weights) - 1) * kept + len(weights[-1]) for weights in (rows, columns))
    result = torch.zeros(*parts[0][0].shape[:2], height, width)
    for i, row in enumerate(parts):
        for j, part in enumerate(row):
            weighted = rows[i][:, None] * columns[j] * part
            result[:, :, i * kept : i * kept + part.shape[2], j * kept : j * kept + part.shape[3]] += weighted
    return result


def make_tiled(folder):
    """Pictures of several tiles, the last ones of them narrow. Diffusers joins its tiles like this but where four of them meet: there
    it fades one of them twice, which leaves an edge."""
    generator = torch.Generator().manual_seed(5)
    side = 16
    model = AutoencoderKL(**dict(TWO, sample_size=side))
    randomize(model, generator)
    model.save_pretrained(folder)
    pixel_values = torch.randn(1, 3, 34, 48, generator=generator)
    latents = torch.randn(1, 4, 17, 26, generator=generator)
    unscaled = latents / model.config.scaling_factor
    with torch.no_grad():
        mean = joined(lambda tile: model.encode(tile).latent_dist.mean, pixel_values, side, side // 2)
        decoded = joined(lambda tile: model.decode(tile).sample, unscaled, side // 2, side)
        whole = model.decode(unscaled).sample
        model.enable_tiling()
        diffusers = model.decode(unscaled).sample
    far = torch.ones_like(whole, dtype=torch.bool)  # from where four tiles meet
    for corner in range(side * 3 // 4, 100, side * 3 // 4):
        far[:, :, :, corner : corner + side // 4] = False
    assert (decoded - diffusers)[far].abs().max() < 1e-4, "tiles are not joined as diffusers joins two of them"
    save_file(dict(pixel_values=pixel_values, latents=latents, mean=mean, decoded=decoded, whole=whole), folder / "case.safetensors")


def make_deprecated(out):
    """The first case as it would have been saved before the attention parameters were renamed, with 1x1 convolutions."""
    source = out / "v1"
    weights = load_file(source / "diffusion_pytorch_model.safetensors")
    renamed = {}
    for name, tensor in weights.items():
        for old, new in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")):
            name = name.replace(f".attentions.0.{new}.", f".attentions.0.{old}.")
        is_projection = ".attentions.0." in name and name.endswith(".weight") and tensor.dim() == 2
        renamed[name] = tensor[:, :, None, None].contiguous() if is_projection and name.startswith("decoder") else tensor
    target = out / "deprecated"
    target.mkdir()
    (target / "config.json").write_text((source / "config.json").read_text())
    save_file(renamed, target / "diffusion_pytorch_model.safetensors")


def make_tiny(folder, **changes):
    generator = torch.Generator().manual_seed(17)
    model = AutoencoderTiny(**{**dict(
        encoder_block_out_channels=(4, 4), num_encoder_blocks=(1, 1), decoder_block_out_channels=(8, 8, 8), num_decoder_blocks=(2, 0, 1),
    ), **changes})
    randomize(model, generator)
    model.save_pretrained(folder)
    latents = 3 * torch.randn(2, model.config.latent_channels, 5, 6, generator=generator)
    with torch.no_grad():  # as pipelines decode
        decoded = model.decode(latents / model.config.scaling_factor + model.config.shift_factor).sample
    save_file(dict(latents=latents, decoded=decoded.contiguous()), folder / "case.safetensors")


def main():
    out = Path(sys.argv[1])
    for name, (config, height, width) in CASES.items():
        make_case(out / name, config, height, width)
    make_tiled(out / "tiled")
    make_deprecated(out)
    make_tiny(out / "tiny")
    make_tiny(out / "tiny_wide", latent_channels=16, act_fn="silu", scaling_factor=1.5, shift_factor=0.1, upsampling_scaling_factor=3)


if __name__ == "__main__":
    main()
