"""Trajectories and back-propagated sampling recomputed with diffusers and torch.autograd.

usage: make_trajectories.py OUTPUT MODEL NOISE.safetensors SETTINGS.json
  NOISE     initial [N, C, h, w]; step [N, S, C, h, w] where eta > 0
  SETTINGS  prompts, negative_prompts (N each), steps, eta, guidance_scale, guidance_rescale, gradient_steps
writes OUTPUT/found.safetensors
  latents [N, S + 1, C, h, w], log_probs [N, S] where eta > 0: as in DDPO's ddim_step_with_logprob, in fp64
  grad.NAME: gradient of sum(x_0 * initial) in some weights where gradient_steps are given; the denoiser's inputs detached
"""

import json
import math
import os
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from diffusers.utils import logging
from safetensors.torch import load_file, save_file

logging.set_verbosity_error()
logging.disable_progress_bar()
torch.set_num_threads(1)
WEIGHTS = ("conv_in.weight", "mid_block.resnets.0.conv1.weight", "up_blocks.1.attentions.0.proj_in.weight", "conv_out.bias")


def log_prob(scheduler, prediction, t, sample, following, eta):
    """Mean log-density of a stochastic DDIM step, written out in fp64."""
    before = t - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    alpha = scheduler.alphas_cumprod[t].double()
    alpha_before = (scheduler.alphas_cumprod[before] if before >= 0 else scheduler.final_alpha_cumprod).double()
    sample, prediction = sample.double(), prediction.double()
    if scheduler.config.prediction_type == "epsilon":
        noise = prediction
        clean = (sample - (1 - alpha).sqrt() * noise) / alpha.sqrt()
    else:
        noise = alpha.sqrt() * prediction + (1 - alpha).sqrt() * sample
        clean = alpha.sqrt() * sample - (1 - alpha).sqrt() * prediction
    sigma = eta * ((1 - alpha_before) / (1 - alpha) * (1 - alpha / alpha_before)).sqrt()
    mean = alpha_before.sqrt() * clean + (1 - alpha_before - sigma**2).clamp(min=0).sqrt() * noise
    density = -((following.double() - mean) ** 2) / (2 * sigma**2) - sigma.log() - 0.5 * math.log(2 * math.pi)
    return density.mean(dim=(1, 2, 3))


def main():
    out, model, noise_file, settings_file = (Path(a) for a in sys.argv[1:])
    settings = json.loads(settings_file.read_text())
    noise = load_file(noise_file)
    pipe = StableDiffusionPipeline.from_pretrained(model, safety_checker=None)
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    scheduler.set_timesteps(settings["steps"])
    scale, rescale, eta = settings["guidance_scale"], settings["guidance_rescale"], settings["eta"]
    with torch.no_grad():
        prompt, negative = pipe.encode_prompt(settings["prompts"], "cpu", 1, True, settings["negative_prompts"])

    def predict(latents, t):
        both = pipe.unet(torch.cat([latents, latents]), t, encoder_hidden_states=torch.cat([negative, prompt])).sample
        low, high = both.chunk(2)
        guided = low + scale * (high - low)
        return rescale_noise_cfg(guided, high, guidance_rescale=rescale) if rescale > 0 else guided

    latents = noise["initial"]
    path, log_probs = [latents], []
    for i, t in enumerate(scheduler.timesteps):
        with torch.set_grad_enabled(i in settings["gradient_steps"]):
            prediction = predict(latents.detach(), t)
        drawn = noise["step"][:, i] if eta > 0 else None
        following = scheduler.step(prediction, t, latents, eta=eta, variance_noise=drawn).prev_sample
        if eta > 0:
            log_probs.append(log_prob(scheduler, prediction, t, latents, following, eta))
        path.append(following)
        latents = following

    found = {"latents": torch.stack([p.detach() for p in path], 1).contiguous()}
    if log_probs:
        found["log_probs"] = torch.stack(log_probs, 1).contiguous()
    if settings["gradient_steps"]:
        (latents * noise["initial"]).sum().backward()
        weights = dict(pipe.unet.named_parameters())
        found.update({f"grad.{name}": weights[name].grad.contiguous() for name in WEIGHTS})
    save_file(found, out / "found.safetensors")


main()
