"""A tiny UNet whose cross-attentions attend to the states of users as well, as diffusers' IP-Adapter processors do it.

make_user_attention.py OUT writes OUT/unet, OUT/user_adapter.safetensors (docs/formats.md), OUT/inputs.safetensors and
OUT/expected.safetensors: `plain` without users, `users` with one an item, `half` with half the scale.
"""

import os
import pathlib
import sys

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from diffusers.utils import logging
from safetensors.torch import save_file

logging.set_verbosity_error()
torch.set_num_threads(1)
torch.manual_seed(0)
OUT = pathlib.Path(sys.argv[1])
TOKENS, WIDTH = 3, 12

unet = UNet2DConditionModel(
    sample_size=8,
    block_out_channels=(16, 32),
    layers_per_block=1,
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    cross_attention_dim=32,
    attention_head_dim=4,
    norm_num_groups=8,
).eval()
unet.save_pretrained(OUT / "unet")
inputs = {
    "latents": torch.randn(2, 4, 8, 8),
    "timesteps": torch.tensor([17, 803]),
    "states": torch.randn(2, 5, 32),
}
users = {"": torch.randn(TOKENS, WIDTH), "anna": torch.randn(TOKENS, WIDTH), "42": torch.randn(TOKENS, WIDTH)}


def predict(users_of_items=None):
    states = inputs["states"]
    if users_of_items:
        states = (states, [torch.stack([users[name] for name in users_of_items])])
    with torch.no_grad():
        return unet(inputs["latents"], inputs["timesteps"], states).sample.contiguous()


expected = {"plain": predict()}
processors, tensors = {}, {f"users.{name}": states for name, states in users.items()}
for name, processor in unet.attn_processors.items():
    path = name.removesuffix(".processor")
    if path.endswith("attn2"):
        inner = unet.get_submodule(path).to_q.out_features
        processor = IPAdapterAttnProcessor2_0(inner, WIDTH, num_tokens=(TOKENS,), scale=1.0)
        for part in ("k", "v"):
            weight = getattr(processor, f"to_{part}_ip")[0].weight
            with torch.no_grad():
                weight.normal_()
            tensors[f"{path}.to_{part}_user.weight"] = weight.detach().clone()
    processors[name] = processor
unet.set_attn_processor(processors)
expected["users"] = predict(["anna", "42"])
for processor in unet.attn_processors.values():
    if hasattr(processor, "scale"):
        processor.scale = [0.5]
expected["half"] = predict(["42", ""])
save_file(tensors, OUT / "user_adapter.safetensors", metadata={"format": "pt", "prefusion_adapter": "user"})
save_file(inputs, OUT / "inputs.safetensors")
save_file(expected, OUT / "expected.safetensors")
