"""Recomputes a traced training step of a flow model with diffusers, peft and autograd.

usage: make_flow_training.py OUTPUT_FOLDER RUN_FOLDER
RUN_FOLDER holds transformer/ (SD3Transformer2DModel), scheduler/, lora.safetensors with its rank, alpha, targets and the
run's kappa in the header, and the trace step-000001.safetensors of diffusion-dpo. Writes expected.safetensors.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from peft import LoraConfig
from peft.utils import set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file

torch.set_num_threads(1)


def inputs_from(trace, scheduler):
    """The timesteps are some of the scheduler's, and the noise levels those that go with them."""
    latents, noise, timesteps = (trace[name].flatten(0, 1) for name in ("latents", "noise", "timesteps"))
    indices = [(scheduler.timesteps == timestep).nonzero().item() for timestep in timesteps]
    sigmas = scheduler.sigmas[indices]
    wide = sigmas.view(-1, 1, 1, 1)
    return sigmas, (1.0 - wide) * latents + wide * noise, noise - latents


def main():
    out, run = Path(sys.argv[1]), Path(sys.argv[2])
    trace = load_file(run / "step-000001.safetensors")
    with safe_open(run / "lora.safetensors", "pt") as file:
        facts = file.metadata()
    model = SD3Transformer2DModel.from_pretrained(run / "transformer").eval().requires_grad_(False)
    model.add_adapter(LoraConfig(r=int(facts["rank"]), lora_alpha=float(facts["alpha"]),
                                 target_modules=facts["target_modules"].split(",")))
    set_peft_model_state_dict(model, load_file(run / "lora.safetensors"))
    groups, k = trace["timesteps"].shape
    sigmas, noisy, target = inputs_from(trace, FlowMatchEulerDiscreteScheduler.from_pretrained(run / "scheduler"))

    def predict():
        return model(
            noisy, timestep=trace["timesteps"].flatten(),
            encoder_hidden_states=trace["encoder_hidden_states"].repeat_interleave(k, 0),
            pooled_projections=trace["pooled"].repeat_interleave(k, 0),
        ).sample

    def item_errors(prediction):
        return (prediction - target).pow(2).mean(dim=(1, 2, 3)).view(groups, k)

    model.disable_adapters()
    with torch.no_grad():
        error_ref = item_errors(predict())
    model.enable_adapters()
    prediction = predict()
    error = item_errors(prediction)
    score = error_ref - error
    loss = -F.logsigmoid(float(facts["kappa"]) * (score[:, 0] - score[:, 1])).mean()
    loss.backward()
    expected = dict(sigmas=sigmas.view(groups, k), noisy_latents=noisy.view_as(trace["latents"]),
                    target=target.view_as(trace["latents"]), prediction=prediction.detach().view_as(trace["latents"]),
                    error=error.detach(), error_ref=error_ref, loss=loss.detach())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            expected["grad." + name.replace(".default.", ".")] = parameter.grad
    save_file({name: tensor.contiguous() for name, tensor in expected.items()}, out / "expected.safetensors")


main()
