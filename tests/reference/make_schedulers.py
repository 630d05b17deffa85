"""Reference runs of diffusers' schedulers: timesteps, whole sampling loops with a fixed dummy denoiser, noising.

usage: make_schedulers.py OUTPUT_FOLDER
writes cases.json (configs and what to run), tensors.safetensors (expected values, named CASE.what).
"""

import json
import sys
import warnings
from pathlib import Path

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from diffusers.utils import is_scipy_available, logging
from safetensors.torch import save_file

warnings.filterwarnings("ignore")
logging.set_verbosity_error()
torch.set_num_threads(1)

SD = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
V = dict(prediction_type="v_prediction")
ZERO_SNR = dict(rescale_betas_zero_snr=True, timestep_spacing="trailing", **V)
SHAPE = (2, 4, 6, 5)


def dummy_denoiser(sample, timestep):
    """Smooth, bounded, depends on every input; float32 like the C++ copy of it."""
    scale = torch.tensor(0.002 * float(timestep) + 0.1, dtype=torch.float32)
    return torch.tanh(0.7 * sample + 0.1 * torch.flip(sample, dims=[3])) * 0.8 + 0.05 * torch.sin(scale)


def spacings(common):
    return [dict(common, timestep_spacing=s, steps_offset=o) for s, o in (("leading", 1), ("linspace", 0), ("trailing", 0))]


def configurations():
    """(class, command line name, config fields, steps, eta)"""
    runs = []

    def add(cls, name, config, steps=(5,), eta=0.0):
        if config.get("use_beta_sigmas") and not is_scipy_available():
            return
        for count in steps:
            runs.append((cls, name, config, count, eta))

    many = (1, 2, 5, 20, 50)
    quiet = dict(clip_sample=False)
    for cls, name in ((DDIMScheduler, "ddim"), (DDPMScheduler, "ddpm")):
        for config in spacings(dict(SD, **quiet)):
            add(cls, name, config, many)
        add(cls, name, dict(SD, steps_offset=1), (7,))
        add(cls, name, dict(SD, clip_sample_range=2.0, **V), (7,))
        add(cls, name, dict(SD, prediction_type="sample", **quiet), (7,))
        add(cls, name, dict(SD, thresholding=True, sample_max_value=1.4, dynamic_thresholding_ratio=0.9), (7,))
        add(cls, name, dict(SD, **quiet, **ZERO_SNR), (3, 10))
        add(cls, name, dict(quiet, beta_schedule="squaredcos_cap_v2"), (10,))
        add(cls, name, dict(quiet, num_train_timesteps=50, beta_schedule="linear"), (50, 49))
        add(cls, name, dict(quiet, num_train_timesteps=4, trained_betas=[0.1, 0.2, 0.3, 0.4]), (2, 4))
    add(DDIMScheduler, "ddim", dict(SD, set_alpha_to_one=False, steps_offset=1, **quiet), (5, 20))
    add(DDIMScheduler, "ddim", dict(SD, **quiet), (5, 20), 1.0)
    add(DDIMScheduler, "ddim", dict(SD, **quiet), (5,), 0.3)
    for variance in ("fixed_small_log", "fixed_large"):
        add(DDPMScheduler, "ddpm", dict(SD, variance_type=variance, **quiet), (5,))
    for variance in ("learned_range",):
        add(DDPMScheduler, "ddpm", dict(SD, variance_type=variance, **quiet), (5,))
    for schedule in ("sigmoid", "laplace"):
        add(DDPMScheduler, "ddpm", dict(quiet, beta_schedule=schedule), (5,))

    for skip in (True, False):
        for config in spacings(dict(SD, skip_prk_steps=skip)):
            add(PNDMScheduler, "pndm", config, many if skip else (4, 5, 20, 50))
    add(PNDMScheduler, "pndm", dict(SD, skip_prk_steps=True, set_alpha_to_one=True, **V), (10,))
    add(PNDMScheduler, "pndm", dict(SD, **V), (10,))

    for config in spacings(SD):
        add(EulerDiscreteScheduler, "euler", config, many)
        add(EulerAncestralDiscreteScheduler, "euler-ancestral", config, many)
        add(HeunDiscreteScheduler, "heun", config, many)
    for cls, name in ((EulerDiscreteScheduler, "euler"), (HeunDiscreteScheduler, "heun")):
        add(cls, name, dict(SD, use_karras_sigmas=True), (1, 2, 20))
        add(cls, name, dict(SD, use_exponential_sigmas=True), (12,))
        add(cls, name, dict(SD, use_beta_sigmas=True), (12,))
        add(cls, name, dict(SD, prediction_type="sample"), (12,))
        add(cls, name, dict(SD, **V), (12,))
        add(cls, name, dict(), (12,))
    add(EulerDiscreteScheduler, "euler", dict(SD, use_karras_sigmas=True, sigma_min=0.1, sigma_max=9.0), (12,))
    add(EulerDiscreteScheduler, "euler", dict(SD, interpolation_type="log_linear"), (12,))
    add(EulerDiscreteScheduler, "euler", dict(SD, timestep_type="continuous", use_karras_sigmas=True, **V), (12,))
    add(EulerDiscreteScheduler, "euler", dict(SD, final_sigmas_type="sigma_min"), (12,))
    add(EulerDiscreteScheduler, "euler", dict(SD, **ZERO_SNR), (12,))
    add(EulerDiscreteScheduler, "euler", dict(SD, timestep_spacing="trailing"), (61,))
    add(EulerAncestralDiscreteScheduler, "euler-ancestral", dict(SD, **ZERO_SNR), (12,))
    add(EulerAncestralDiscreteScheduler, "euler-ancestral", dict(SD, **V), (12,))
    add(HeunDiscreteScheduler, "heun", dict(SD, clip_sample=True, clip_sample_range=1.5), (12,))
    add(HeunDiscreteScheduler, "heun", dict(beta_schedule="exp"), (12,))

    dpm, unipc = DPMSolverMultistepScheduler, UniPCMultistepScheduler
    for config in spacings(SD):
        add(dpm, "auto", config, many)
        add(unipc, "unipc", config, many)
    for order in (1, 2, 3):
        for algorithm in ("dpmsolver++", "sde-dpmsolver++", "dpmsolver", "sde-dpmsolver"):
            for solver in ("midpoint", "heun"):
                if algorithm == "sde-dpmsolver" and order == 3:
                    continue
                final = "zero" if algorithm.endswith("++") else "sigma_min"
                config = dict(SD, solver_order=order, algorithm_type=algorithm, solver_type=solver, final_sigmas_type=final)
                add(dpm, "auto", config, (6, 20))
    for name, config in (
        ("dpm++", dict(SD)),
        ("dpm++-karras", dict(SD, use_karras_sigmas=True)),
        ("dpm++-sde", dict(SD, algorithm_type="sde-dpmsolver++")),
        ("dpm++-sde-karras", dict(SD, algorithm_type="sde-dpmsolver++", use_karras_sigmas=True)),
    ):
        add(dpm, name, config, (1, 2, 5, 20, 50))
    for extra in (
        dict(lower_order_final=False),
        dict(lower_order_final=False, final_sigmas_type="sigma_min"),
        dict(euler_at_final=True, final_sigmas_type="sigma_min"),
        dict(V),
        dict(prediction_type="sample"),
        dict(thresholding=True, sample_max_value=1.3),
        dict(thresholding=True, sample_max_value=1.3, algorithm_type="dpmsolver", final_sigmas_type="sigma_min"),
        dict(V, algorithm_type="dpmsolver", final_sigmas_type="sigma_min"),
        dict(use_exponential_sigmas=True),
        dict(use_beta_sigmas=True),
        dict(use_lu_lambdas=True),
        dict(ZERO_SNR),
        dict(beta_schedule="squaredcos_cap_v2", lambda_min_clipped=-5.1),
        dict(beta_schedule="squaredcos_cap_v2", lambda_min_clipped=-5.1, timestep_spacing="trailing"),
        dict(beta_schedule="squaredcos_cap_v2", use_karras_sigmas=True),
        dict(timestep_spacing="trailing"),
    ):
        add(dpm, "auto", dict(SD, **{k: v for k, v in extra.items()}) if "beta_schedule" not in extra else extra, (6, 20))
    for order in (1, 2, 3, 4):
        for kind in ("bh1", "bh2"):
            for predict_x0 in (True, False):
                final = "zero" if predict_x0 and kind == "bh2" else "sigma_min"
                config = dict(SD, solver_order=order, solver_type=kind, predict_x0=predict_x0, final_sigmas_type=final)
                add(unipc, "unipc", config, (8,))
    for extra in (
        dict(V),
        dict(prediction_type="sample"),
        dict(disable_corrector=[0, 1, 2]),
        dict(lower_order_final=False, final_sigmas_type="sigma_min"),
        dict(use_karras_sigmas=True),
        dict(use_karras_sigmas=True, final_sigmas_type="sigma_min"),
        dict(use_karras_sigmas=True, sigma_min=0.1, sigma_max=9.0),
        dict(use_exponential_sigmas=True),
        dict(use_beta_sigmas=True),
        dict(thresholding=True, sample_max_value=1.3),
        dict(ZERO_SNR),
    ):
        add(unipc, "unipc", dict(SD, **extra), (8, 20))
    return runs


def starts_twice(scheduler, steps):
    """diffusers skips the first sigma, and then runs off the end, when the first two timesteps round to the same one."""
    scheduler.set_timesteps(steps)
    timesteps = scheduler.timesteps.tolist()
    return isinstance(scheduler, DPMSolverMultistepScheduler) and timesteps.count(timesteps[0]) > 1


def run_loop(scheduler, steps, eta, learned):
    generator = torch.Generator().manual_seed(1234)
    scheduler.set_timesteps(steps)
    sample = torch.randn(SHAPE, generator=generator) * scheduler.init_noise_sigma
    extra = {}
    if isinstance(scheduler, DDIMScheduler):
        extra["eta"] = eta
    if not isinstance(scheduler, (PNDMScheduler, UniPCMultistepScheduler, HeunDiscreteScheduler)):
        extra["generator"] = generator
    for t in scheduler.timesteps:
        prediction = dummy_denoiser(scheduler.scale_model_input(sample, t), t)
        if learned:
            prediction = torch.cat([prediction, 0.5 * prediction], dim=1)
        sample = scheduler.step(prediction, t, sample, return_dict=False, **extra)[0]
    return sample


def switches():
    """A folder's config written by one class, sampled with another: X.from_config(loaded config)."""
    stable = dict(
        _class_name="PNDMScheduler", _diffusers_version="0.6.0", beta_end=0.012, beta_schedule="scaled_linear",
        beta_start=0.00085, num_train_timesteps=1000, set_alpha_to_one=False, skip_prk_steps=True, steps_offset=1,
        trained_betas=None, clip_sample=False,
    )
    sdxl = dict(
        _class_name="EulerDiscreteScheduler", beta_end=0.012, beta_schedule="scaled_linear", beta_start=0.00085,
        clip_sample=False, interpolation_type="linear", num_train_timesteps=1000, prediction_type="epsilon",
        sample_max_value=1.0, set_alpha_to_one=False, skip_prk_steps=True, steps_offset=1,
        timestep_spacing="leading", trained_betas=None, use_karras_sigmas=False,
    )
    bare = dict(_class_name="DDIMScheduler", prediction_type="v_prediction")
    karras = dict(sdxl, use_karras_sigmas=True, sigma_min=0.05)
    classes = {
        "ddpm": DDPMScheduler, "ddim": DDIMScheduler, "pndm": PNDMScheduler, "euler": EulerDiscreteScheduler,
        "euler-ancestral": EulerAncestralDiscreteScheduler, "heun": HeunDiscreteScheduler,
        "dpm++": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler,
    }
    for config in (stable, sdxl, bare, karras):
        for name, cls in classes.items():
            yield config, name, cls


def main():
    out = Path(sys.argv[1])
    cases, tensors = [], {}

    def record(config_text, name, scheduler, steps, eta, learned):
        key = f"case{len(cases):04d}"
        tensors[f"{key}.sample"] = run_loop(scheduler, steps, eta, learned).contiguous()
        tensors[f"{key}.timesteps"] = scheduler.timesteps.to(torch.float64).contiguous()
        cases.append(dict(key=key, scheduler=name, steps=steps, eta=eta, learned=learned, config=config_text))

    for cls, name, config, steps, eta in configurations():
        scheduler = cls(**config)
        if starts_twice(scheduler, steps):
            continue
        learned = config.get("variance_type") == "learned_range"
        record(scheduler.to_json_string(), name, scheduler, steps, eta, learned)
    for config, name, cls in switches():
        original_class = {"PNDMScheduler": PNDMScheduler, "EulerDiscreteScheduler": EulerDiscreteScheduler,
                          "DDIMScheduler": DDIMScheduler}[config["_class_name"]]
        original = original_class.from_config(config)
        record(json.dumps(config), name, cls.from_config(original.config), 10, 0.0, False)

    noising = []
    generator = torch.Generator().manual_seed(7)
    for config in (
        dict(), SD, dict(SD, **V), dict(SD, prediction_type="sample"), dict(beta_schedule="squaredcos_cap_v2"),
        dict(beta_schedule="sigmoid"), dict(beta_schedule="laplace"), dict(SD, rescale_betas_zero_snr=True, **V),
        dict(num_train_timesteps=7, trained_betas=[0.01 * (i + 1) for i in range(7)]), dict(SD, num_train_timesteps=123),
    ):
        scheduler = DDPMScheduler(**config)
        key = f"noise{len(noising):02d}"
        latents, noise = torch.randn(SHAPE, generator=generator), torch.randn(SHAPE, generator=generator)
        steps = torch.randint(0, scheduler.config.num_train_timesteps, (SHAPE[0],), generator=generator)
        steps[1] = scheduler.config.num_train_timesteps - 1
        kind = scheduler.config.prediction_type
        target = {"epsilon": noise, "sample": latents}.get(kind)
        tensors |= {
            f"{key}.alphas_cumprod": scheduler.alphas_cumprod, f"{key}.latents": latents, f"{key}.noise": noise,
            f"{key}.timesteps": steps, f"{key}.noisy": scheduler.add_noise(latents, noise, steps),
            f"{key}.target": (scheduler.get_velocity(latents, noise, steps) if target is None else target).clone(),
        }
        noising.append(dict(key=key, config=scheduler.to_json_string()))

    (out / "cases.json").write_text(json.dumps(dict(sampling=cases, noising=noising)))
    save_file(tensors, out / "tensors.safetensors")


main()
