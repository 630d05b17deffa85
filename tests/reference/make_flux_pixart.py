"""Small random FLUX.1 and PixArt transformers with inputs, outputs and gradients: DIR/CASE/{config.json, weights, case.safetensors}."""

import json
import sys
from pathlib import Path

import torch
from diffusers import FluxPipeline, FluxTransformer2DModel, PixArtTransformer2DModel, Transformer2DModel
from diffusers.utils import logging
from safetensors.torch import load_file, save_file

torch.set_num_threads(1)
logging.set_verbosity_error()

FLUX = dict(
    in_channels=16,
    num_layers=1,
    num_single_layers=1,
    attention_head_dim=16,
    num_attention_heads=2,
    joint_attention_dim=20,
    pooled_projection_dim=12,
    axes_dims_rope=(4, 6, 6),
)
# name -> (config, latent height, latent width, prompt tokens, timesteps)
FLUX_CASES = {
    "flux_schnell": (FLUX, 8, 8, 7, [3.0, 977.0]),
    "flux_dev": (dict(FLUX, guidance_embeds=True, num_layers=2, num_single_layers=2), 6, 10, 5, [17.25, 801.5]),
    "flux_odd_heads": (dict(FLUX, num_attention_heads=3, attention_head_dim=10, axes_dims_rope=(2, 4, 4)), 12, 4, 9, [41, 512]),
    "flux_uneven_axes": (dict(FLUX, axes_dims_rope=(0, 14, 2), guidance_embeds=True), 4, 14, 3, [999.0, 0.5]),
    "flux_image_axis": (dict(FLUX, num_attention_heads=1, axes_dims_rope=(8, 2, 6), in_channels=4), 10, 6, 30, [250.0, 250.0]),
    "flux_single_only": (dict(FLUX, num_layers=0, num_single_layers=3), 8, 6, 7, [123.4, 700.0]),
    "flux_double_only": (dict(FLUX, num_layers=3, num_single_layers=0, pooled_projection_dim=7), 8, 6, 7, [123.4, 700.0]),
    "flux_more_out_channels": (dict(FLUX, out_channels=32), 2, 2, 1, [55.5, 600.0]),
    "flux_patch": (dict(FLUX, patch_size=2, out_channels=4, joint_attention_dim=33), 8, 10, 7, [88.0, 333.0]),
}

PIXART = dict(
    num_attention_heads=2,
    attention_head_dim=12,
    in_channels=4,
    out_channels=8,
    num_layers=2,
    cross_attention_dim=24,
    caption_channels=20,
    sample_size=8,
    norm_num_groups=2,
)
# name -> (config, latent height, latent width, rows of the mask or None, timesteps)
PIXART_CASES = {
    "pixart_alpha": (PIXART, 8, 8, ["1111000", "1111111"], [3, 977]),
    "pixart_alpha_1024": (dict(PIXART, sample_size=128, num_layers=1), 6, 10, ["1000000", "1111100"], [999, 20]),
    "pixart_sigma": (
        dict(PIXART, sample_size=128, interpolation_scale=2, use_additional_conditions=False), 12, 8, None, [17.25, 801.5],
    ),
    "pixart_sizes": (dict(PIXART, use_additional_conditions=True, interpolation_scale=0.5), 4, 10, None, [41, 512]),
    "pixart_odd_heads": (
        dict(PIXART, num_attention_heads=3, attention_head_dim=4, cross_attention_dim=12, patch_size=1, sample_size=5,
             use_additional_conditions=True),
        5, 7, ["0000000", "1010101"], [250, 251],
    ),
    "pixart_no_variance": (dict(PIXART, out_channels=4, patch_size=4, sample_size=10), 8, 12, ["1111110", "1100000"], [88, 333]),
    "pixart_no_captions": (
        dict(PIXART, caption_channels=None, cross_attention_dim=20, out_channels=None, num_attention_heads=5,
             attention_head_dim=8, in_channels=3),
        8, 6, ["1110000", "1111111"], [600, 55],
    ),
    "pixart_other_layers": (
        dict(PIXART, norm_elementwise_affine=True, norm_eps=1e-2, activation_fn="geglu", attention_bias=False,
             upcast_attention=True, interpolation_scale=1.5),
        8, 8, ["0111111", "1111111"], [0, 700],
    ),
    "pixart_gelu": (dict(PIXART, num_layers=1, sample_size=16, activation_fn="gelu"), 16, 16, None, [1, 2]),
}
# What the config of a Transformer2DModel held beside PixArt's keys.
OLD_KEYS = dict(
    _class_name="Transformer2DModel",
    _diffusers_version="0.22.0.dev0",
    double_self_attention=False,
    num_vector_embeds=None,
    only_cross_attention=False,
    use_linear_projection=False,
)


def randomize(model, generator):
    """Weights near PyTorch's own scale, and norms and biases that are not one and zero."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1 and not name.endswith("scale_shift_table"):
                parameter.copy_(noise * (1.0 / parameter[0].numel()) ** 0.5)
            else:
                parameter.copy_(noise * 0.1 + (1.0 if "norm" in name and name.endswith("weight") else 0.0))


def save_case(folder, model, run, inputs, differentiated):
    """`folder` holds the model; `run(model, inputs)` predicts in its dtype; inputs are those of the C++ side."""
    for name in differentiated:
        inputs[name].requires_grad_()
    prediction = run(model, inputs)
    generator = torch.Generator().manual_seed(11)
    cotangent = torch.randn(prediction.shape, generator=generator)
    (prediction * cotangent).sum().backward()
    tensors = dict(inputs, prediction=prediction, cotangent=cotangent)
    for name in differentiated:
        tensors["input_grad." + name] = inputs[name].grad
    for name, parameter in model.named_parameters():
        tensors["grad." + name] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    with torch.no_grad():
        for dtype, suffix in ((torch.bfloat16, "bf16"), (torch.float16, "fp16")):
            tensors["prediction_" + suffix] = run(type(model).from_pretrained(folder, torch_dtype=dtype), inputs)
    save_file({k: v.detach().contiguous() for k, v in tensors.items()}, folder / "case.safetensors")


def run_flux(model, inputs):
    """What FluxPipeline does around its transformer."""
    dtype = model.dtype
    latents = inputs["noisy_latents"].to(dtype)
    batch, channels, height, width = latents.shape
    tokens = FluxPipeline._pack_latents(latents, batch, channels, height, width)
    prediction = model(
        hidden_states=tokens,
        timestep=inputs["timesteps"].to(dtype) / 1000,
        guidance=inputs.get("guidance"),
        pooled_projections=inputs["pooled"].to(dtype),
        encoder_hidden_states=inputs["encoder_hidden_states"].to(dtype),
        txt_ids=torch.zeros(inputs["encoder_hidden_states"].shape[1], 3),
        img_ids=FluxPipeline._prepare_latent_image_ids(batch, height // 2, width // 2, "cpu", torch.float32),
    ).sample
    return FluxPipeline._unpack_latents(prediction, height * 8, width * 8, 8)


def make_flux_case(folder, config, height, width, prompt_tokens, timesteps):
    generator = torch.Generator().manual_seed(7)
    model = FluxTransformer2DModel(**config)
    randomize(model, generator)
    model.save_pretrained(folder)

    def randn(*shape):
        return torch.randn(shape, generator=generator)

    inputs = dict(
        noisy_latents=randn(2, config["in_channels"] // 4, height, width),
        encoder_hidden_states=randn(2, prompt_tokens, config["joint_attention_dim"]),
        pooled=randn(2, config["pooled_projection_dim"]),
        timesteps=torch.tensor(timesteps),
    )
    if config.get("guidance_embeds"):
        inputs["guidance"] = torch.tensor([3.5, 1.0])
    save_case(folder, model, run_flux, inputs, ["noisy_latents", "encoder_hidden_states", "pooled"])


def run_pixart(model, inputs):
    dtype = model.dtype
    sizes = inputs.get("time_ids")
    return model(
        inputs["noisy_latents"].to(dtype),
        encoder_hidden_states=inputs["encoder_hidden_states"].to(dtype),
        timestep=inputs["timesteps"],
        added_cond_kwargs={
            "resolution": None if sizes is None else sizes[:, :2],
            "aspect_ratio": None if sizes is None else sizes[:, 2:],
        },
        encoder_attention_mask=inputs.get("encoder_mask"),
    ).sample


def make_pixart_case(folder, config, height, width, mask, timesteps):
    generator = torch.Generator().manual_seed(7)
    model = PixArtTransformer2DModel(**config)
    randomize(model, generator)
    model.save_pretrained(folder)

    def randn(*shape):
        return torch.randn(shape, generator=generator)

    inputs = dict(
        noisy_latents=randn(2, config["in_channels"], height, width),
        encoder_hidden_states=randn(2, 7, config["caption_channels"] or config["cross_attention_dim"]),
        timesteps=torch.tensor(timesteps),
    )
    if mask:
        inputs["encoder_mask"] = torch.tensor([[token == "1" for token in row] for row in mask])
    if model.use_additional_conditions:
        inputs["time_ids"] = torch.tensor([[1024.0, 1024.0, 1.0], [1152.0, 896.0, 1152 / 896]])
    save_case(folder, model, run_pixart, inputs, ["noisy_latents", "encoder_hidden_states"])


def make_old_folder(folder, source):
    """A PixArt folder as the first release stored it: another class name, more keys, a weight nothing uses."""
    folder.mkdir()
    config = dict(json.loads((source / "config.json").read_text()), **OLD_KEYS)
    for key in ("interpolation_scale", "use_additional_conditions"):
        del config[key]
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(source / "diffusion_pytorch_model.safetensors")
    weights["caption_projection.y_embedding"] = torch.zeros(120, config["caption_channels"])
    save_file(weights, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    case = load_file(source / "case.safetensors")
    with torch.no_grad():
        # The old name leads diffusers to the new class.
        case["prediction"] = run_pixart(Transformer2DModel.from_pretrained(folder), case)
    save_file(case, folder / "case.safetensors")


def main():
    out = Path(sys.argv[1])
    for name, case in FLUX_CASES.items():
        make_flux_case(out / name, *case)
    for name, case in PIXART_CASES.items():
        make_pixart_case(out / name, *case)
    make_old_folder(out / "pixart_old_folder", out / "pixart_alpha_1024")


if __name__ == "__main__":
    main()
