"""Small random DiT transformers with inputs, outputs and gradients: DIR/CASE/{config.json, weights, case.safetensors}."""

import json
import shutil
import sys
from pathlib import Path

import torch
from denoiser_case import randomize, write_case
from diffusers import DiTTransformer2DModel, Transformer2DModel
from diffusers.utils import logging
from safetensors.torch import load_file, save_file

torch.set_num_threads(1)
logging.set_verbosity_error()

DIT = dict(num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=8, num_layers=2, sample_size=8,
           norm_num_groups=2, num_embeds_ada_norm=10)
# name -> (config, latent side, classes, timesteps); diffusers puts patches together for squares alone
CASES = {
    "learned_variance": (DIT, 8, [3, 10], [3, 977]),
    "no_variance": (dict(DIT, out_channels=None, in_channels=3, num_embeds_ada_norm=1), 8, [0, 1], [0, 999]),
    "odd_heads_patch_one": (dict(DIT, num_attention_heads=3, attention_head_dim=4, patch_size=1, sample_size=5), 5, [9, 9], [41, 512]),
    "patch_four_other_size": (dict(DIT, patch_size=4, sample_size=12, num_layers=1), 16, [0, 5], [250, 251]),
    "affine_norms": (dict(DIT, norm_elementwise_affine=True, norm_eps=1e-2, attention_bias=False), 8, [7, 2], [88, 333]),
    "geglu": (dict(DIT, activation_fn="geglu", sample_size=32, num_embeds_ada_norm=300), 4, [299, 300], [600, 55]),
    "gelu": (dict(DIT, activation_fn="gelu", upcast_attention=True, num_layers=3), 6, [1, 4], [700, 1]),
}
# What the config of a Transformer2DModel holds beside DiT's keys.
OLD_KEYS = dict(
    _class_name="Transformer2DModel",
    _diffusers_version="0.12.0.dev0",
    cross_attention_dim=None,
    num_vector_embeds=None,
    only_cross_attention=False,
    use_linear_projection=False,
)


def run(model, inputs):
    """Classes are rows with a one in their place on the C++ side."""
    latents = inputs["noisy_latents"].to(model.dtype)
    return model(latents, timestep=inputs["timesteps"], class_labels=inputs["encoder_hidden_states"].squeeze(1).argmax(-1)).sample


def make_case(folder, config, side, classes, timesteps):
    generator = torch.Generator().manual_seed(7)
    model = DiTTransformer2DModel(**config).eval()
    randomize(model, generator)
    model.save_pretrained(folder)
    rows = torch.nn.functional.one_hot(torch.tensor(classes), config["num_embeds_ada_norm"] + 1).float().unsqueeze(1)
    inputs = dict(noisy_latents=torch.randn((2, config["in_channels"], side, side), generator=generator).requires_grad_(),
                  encoder_hidden_states=rows, timesteps=torch.tensor(timesteps))
    write_case(folder, model, inputs, run, generator)


def make_old_folder(folder, source):
    """A DiT folder as the first release stored it: another class name, more keys."""
    shutil.copytree(source, folder)
    config = dict(json.loads((source / "config.json").read_text()), **OLD_KEYS)
    (folder / "config.json").write_text(json.dumps(config))
    case = load_file(source / "case.safetensors")
    with torch.no_grad():  # the old name leads diffusers to the new class
        case["prediction"] = run(Transformer2DModel.from_pretrained(folder).eval(), case)
    save_file(case, folder / "case.safetensors")


def main():
    out = Path(sys.argv[1])
    for name, case in CASES.items():
        make_case(out / name, *case)
    make_old_folder(out / "old_folder", out / "learned_variance")


if __name__ == "__main__":
    main()
