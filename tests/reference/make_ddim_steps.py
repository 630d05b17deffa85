"""Single steps of diffusers' DDIMScheduler with given variance noise, and whole inversions by DDIMInverseScheduler.

usage: make_ddim_steps.py OUTPUT_FOLDER
writes cases.json, tensors.safetensors (named CASE.what):
  steps:      timesteps [S], prediction, sample, noise, next, clean [S, C, H, W]; row i belongs to timestep i
  inversions: timesteps [G], latents [1, C, H, W], inverted [G, C, H, W]: the walk from the latents up to each grid value
"""

import json
import sys
import warnings
from pathlib import Path

import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from diffusers.utils import logging
from safetensors.torch import save_file

warnings.filterwarnings("ignore")
logging.set_verbosity_error()
torch.set_num_threads(1)

SD = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
ITEM = (4, 6, 5)


def dummy_denoiser(sample, timestep):
    """Smooth, bounded, depends on every input; float32 like the C++ copy of it."""
    scale = torch.tensor(0.002 * float(timestep) + 0.1, dtype=torch.float32)
    return torch.tanh(0.7 * sample + 0.1 * torch.flip(sample, dims=[3])) * 0.8 + 0.05 * torch.sin(scale)


def step_cases():
    """(config, number of steps, eta)"""
    yield dict(SD, set_alpha_to_one=False, steps_offset=1), 20, 1.0
    yield dict(SD, set_alpha_to_one=False, steps_offset=1), 7, 0.3
    yield dict(SD, set_alpha_to_one=False, steps_offset=1), 10, 0.0
    yield dict(SD), 10, 1.0
    yield dict(SD, timestep_spacing="trailing", prediction_type="v_prediction"), 12, 0.7
    yield dict(SD, timestep_spacing="trailing", prediction_type="v_prediction", rescale_betas_zero_snr=True), 10, 0.9
    yield dict(SD, timestep_spacing="linspace", prediction_type="sample"), 9, 1.0
    yield dict(prediction_type="epsilon", clip_sample=True), 10, 0.5
    yield dict(SD, thresholding=True, sample_max_value=1.3), 6, 1.0


def run_steps(scheduler, steps, eta, generator):
    scheduler.set_timesteps(steps)
    rows = []
    for t in scheduler.timesteps:
        prediction, sample, noise = (torch.randn((1, *ITEM), generator=generator) for _ in range(3))
        out = scheduler.step(prediction, t, sample, eta=eta, variance_noise=noise)
        rows.append((prediction, sample, noise, out.prev_sample, out.pred_original_sample))
    names = ("prediction", "sample", "noise", "next", "clean")
    return {name: torch.cat(column).contiguous() for name, column in zip(names, zip(*rows))}


def inversion_cases():
    yield dict(SD, steps_offset=1), 10
    yield dict(SD, steps_offset=1), 50
    yield dict(SD, timestep_spacing="trailing"), 8


def run_inversion(scheduler, steps, generator):
    scheduler.set_timesteps(steps)
    sample = latents = torch.randn((1, *ITEM), generator=generator)
    reached = []
    for t in scheduler.timesteps:
        sample = scheduler.step(dummy_denoiser(sample, t), t, sample).prev_sample
        reached.append(sample)
    return {"latents": latents, "inverted": torch.cat(reached).contiguous()}


def main():
    out = Path(sys.argv[1])
    generator = torch.Generator().manual_seed(11)
    cases, tensors = {"steps": [], "inversions": []}, {}

    def record(kind, scheduler, steps, eta, found):
        key = f"{kind}{len(cases[kind]):02d}"
        tensors.update({f"{key}.{name}": value for name, value in found.items()})
        tensors[f"{key}.timesteps"] = scheduler.timesteps.to(torch.int64).contiguous()
        cases[kind].append(dict(key=key, steps=steps, eta=eta, config=scheduler.to_json_string()))

    for config, steps, eta in step_cases():
        scheduler = DDIMScheduler(**config)
        record("steps", scheduler, steps, eta, run_steps(scheduler, steps, eta, generator))
    for config, steps in inversion_cases():
        # The file is read as the sampler's; the inverse scheduler takes the same fields.
        inverse = DDIMInverseScheduler(**config)
        found = run_inversion(inverse, steps, generator)
        sampler = DDIMScheduler(**config)
        sampler.timesteps = inverse.timesteps
        record("inversions", sampler, steps, 0.0, found)

    (out / "cases.json").write_text(json.dumps(cases))
    save_file(tensors, out / "tensors.safetensors")


main()
