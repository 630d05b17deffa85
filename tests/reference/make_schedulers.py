"""Reference runs of diffusers' schedulers: timesteps, whole sampling loops with a fixed dummy denoiser, noising.

usage: make_schedulers.py OUTPUT_FOLDER
writes cases.json (configs and what to run), tensors.safetensors (expected values, named CASE.what).
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
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

    lcm = LCMScheduler
    for extra in (dict(), dict(V), dict(prediction_type="sample"), dict(original_inference_steps=100, timestep_scaling=0.01)):
        add(lcm, "auto", extra, (1, 2, 4, 7, 50))
    for extra in (
        dict(clip_sample=True, clip_sample_range=1.3),
        dict(thresholding=True, sample_max_value=1.3),
        dict(ZERO_SNR),
        dict(num_train_timesteps=30, original_inference_steps=30, timestep_scaling=0.1),
    ):
        add(lcm, "lcm", extra, (4, 7))
    turbo = dict(SD, timestep_spacing="trailing", steps_offset=1)  # as the sdxl-turbo folder has it
    add(EulerAncestralDiscreteScheduler, "auto", turbo, (1, 2, 3, 4))
    return runs


def flow_configurations():
    """(class, command line name, config fields, steps, image tokens, sigmas from 1 to 1 / steps)"""
    runs = []
    many = (1, 2, 3, 5, 28)
    euler, heun = FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler
    flux = dict(shift=3.0, use_dynamic_shifting=True)

    def add(cls, name, config, steps, tokens=None, linear=False):
        if config.get("use_beta_sigmas") and not is_scipy_available():
            return
        for count in steps:
            runs.append((cls, name, config, count, tokens, linear))

    for shift in (1.0, 3.0, 0.5):
        for linear in (False, True):
            add(euler, "auto", dict(shift=shift), many, linear=linear)
        add(heun, "auto", dict(shift=shift), many)
    for tokens in (16, 1024, 4096, 6000):
        for linear in (False, True):
            add(euler, "auto", flux, many, tokens, linear)
    add(euler, "flow-euler", dict(flux, time_shift_type="linear", base_shift=0.7, max_shift=3.0), many, 900)
    add(euler, "flow-euler", dict(flux, base_image_seq_len=100, max_image_seq_len=900), (4,), 500, True)
    for extra in (
        dict(shift_terminal=0.1), dict(invert_sigmas=True), dict(use_karras_sigmas=True),
        dict(use_exponential_sigmas=True), dict(use_beta_sigmas=True), dict(stochastic_sampling=True),
        dict(num_train_timesteps=50), dict(shift_terminal=0.02, use_karras_sigmas=True, invert_sigmas=True),
    ):
        steps = (2, 3, 5, 28) if "shift_terminal" in extra else many
        add(euler, "auto", dict(extra, shift=3.0), steps)
        add(euler, "auto", dict(flux, **extra), steps, 777)
        add(euler, "auto", dict(flux, **extra), steps, 777, True)
    add(heun, "flow-heun", dict(num_train_timesteps=40), (1, 7, 40))

    flow = dict(prediction_type="flow_prediction", use_flow_sigmas=True)
    dynamic = dict(use_dynamic_shifting=True)
    dpm, unipc = DPMSolverMultistepScheduler, UniPCMultistepScheduler
    for cls in (dpm, unipc):
        add(cls, "auto", dict(flow), many)
        add(cls, "auto", dict(flow, flow_shift=3.0), many)
        add(cls, "auto", dict(flow, **dynamic), many, 1024)
        add(cls, "auto", dict(flow, flow_shift=3.0, final_sigmas_type="sigma_min"), (1, 5, 28))
        for order in (1, 3):
            add(cls, "auto", dict(flow, flow_shift=2.0, solver_order=order), (5, 28))
    for algorithm in ("dpmsolver++", "sde-dpmsolver++"):
        for solver in ("midpoint", "heun"):
            add(dpm, "auto", dict(flow, flow_shift=3.0, algorithm_type=algorithm, solver_type=solver), (2, 5, 28))
    for kind in ("epsilon", "v_prediction", "sample"):
        add(dpm, "auto", dict(flow, prediction_type=kind), (5,))
    add(dpm, "auto", dict(flow, thresholding=True, sample_max_value=1.3), (5,))
    add(unipc, "auto", dict(flow, shift_terminal=0.1), (2, 5, 28))
    add(unipc, "auto", dict(flow, time_shift_type="linear", shift_terminal=0.1, **dynamic), (5, 28), 500)
    return runs


def flow_switches():
    """(original class, its fields, name asked for, what diffusers is told beyond the file, tokens)"""
    euler = FlowMatchEulerDiscreteScheduler
    flow = dict(prediction_type="flow_prediction", use_flow_sigmas=True)
    sana = dict(flow, flow_shift=3.0)
    yield euler, dict(shift=3.0), "flow-heun", FlowMatchHeunDiscreteScheduler, dict(), None
    yield FlowMatchHeunDiscreteScheduler, dict(shift=3.0), "flow-euler", euler, dict(), None
    yield DPMSolverMultistepScheduler, sana, "flow-euler", euler, dict(shift=3.0), None
    for name, cls in (("dpm++", DPMSolverMultistepScheduler), ("unipc", UniPCMultistepScheduler)):
        yield euler, dict(shift=3.0), name, cls, sana, None
        yield euler, dict(shift=3.0, use_dynamic_shifting=True), name, cls, flow, 1024


def starts_twice(scheduler, steps):
    """diffusers skips the first sigma, and then runs off the end, when the first two timesteps round to the same one."""
    scheduler.set_timesteps(steps)
    timesteps = scheduler.timesteps.tolist()
    return isinstance(scheduler, DPMSolverMultistepScheduler) and timesteps.count(timesteps[0]) > 1


def mu_of(scheduler, tokens):
    """What the FLUX and SD3 pipelines pass to schedulers with dynamic shifting."""
    config = scheduler.config
    return calculate_shift(
        tokens, config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096),
        config.get("base_shift", 0.5), config.get("max_shift", 1.15),
    )


def set_flow_timesteps(scheduler, steps, tokens, linear):
    extra = dict()
    if tokens is not None:
        if isinstance(scheduler, DPMSolverMultistepScheduler):
            scheduler.register_to_config(flow_shift=float(np.exp(mu_of(scheduler, tokens))))
        else:
            extra["mu"] = mu_of(scheduler, tokens)
    if linear:
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), **extra)
    else:
        scheduler.set_timesteps(steps, **extra)


def run_flow_loop(scheduler, steps, tokens, linear):
    generator = torch.Generator().manual_seed(1234)
    set_flow_timesteps(scheduler, steps, tokens, linear)
    scheduler.set_begin_index(0)  # where the first timesteps round to the same one, diffusers would skip a level
    sample = torch.randn(SHAPE, generator=generator)
    extra = {} if isinstance(scheduler, UniPCMultistepScheduler) else dict(generator=generator)
    for t in scheduler.timesteps:
        sample = scheduler.step(dummy_denoiser(sample, t), t, sample, return_dict=False, **extra)[0]
    return sample


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


def cut_runs():
    """(class, command line name, config fields, steps, steps left out): sampling from a picture."""
    flow = dict(shift=3.0)
    solver = dict(flow, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    del solver["shift"]
    for cls, name, config in (
        (DDIMScheduler, "ddim", dict(SD, clip_sample=False, steps_offset=1)), (DDIMScheduler, "ddim", dict(SD, **ZERO_SNR)),
        (DDPMScheduler, "ddpm", dict(SD, clip_sample=False)), (PNDMScheduler, "pndm", dict(SD, skip_prk_steps=True)),
        (PNDMScheduler, "pndm", dict(SD)), (EulerDiscreteScheduler, "euler", dict(SD, use_karras_sigmas=True)),
        (EulerDiscreteScheduler, "euler", dict(SD)), (EulerAncestralDiscreteScheduler, "euler-ancestral", dict(SD)),
        (HeunDiscreteScheduler, "heun", dict(SD)), (DPMSolverMultistepScheduler, "auto", dict(SD)),
        (DPMSolverMultistepScheduler, "auto", dict(SD, use_karras_sigmas=True, solver_order=3)),
        (DPMSolverMultistepScheduler, "auto", dict(SD, algorithm_type="sde-dpmsolver++")),
        (DPMSolverMultistepScheduler, "auto", dict(solver)), (UniPCMultistepScheduler, "unipc", dict(SD, solver_order=3)),
        (UniPCMultistepScheduler, "unipc", dict(SD, disable_corrector=[4])), (UniPCMultistepScheduler, "unipc", dict(solver)),
        (LCMScheduler, "lcm", dict(SD)), (FlowMatchEulerDiscreteScheduler, "auto", flow),
        (FlowMatchEulerDiscreteScheduler, "auto", dict(flow, stochastic_sampling=True)),
        (FlowMatchHeunDiscreteScheduler, "flow-heun", flow),
    ):
        for steps, skipped in ((6, 0), (6, 1), (7, 2), (20, 5), (10, 9)):
            yield cls, name, config, steps, skipped


def run_cut_loop(scheduler, steps, skipped, clean):
    """As img2img pipelines do, and inpainting ones: the second result is `clean` at the level of every later call."""
    generator = torch.Generator().manual_seed(1234)
    scheduler.set_timesteps(steps)
    begin = skipped * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    timesteps = scheduler.timesteps[begin:]
    noise = torch.randn(SHAPE, generator=generator)
    is_flow = hasattr(scheduler, "scale_noise")

    def noisy(t):
        level = torch.as_tensor(t).reshape(1)
        return scheduler.scale_noise(clean, level, noise) if is_flow else scheduler.add_noise(clean, noise, level)

    sample, levels = noisy(timesteps[0]), []
    silent = (PNDMScheduler, UniPCMultistepScheduler, HeunDiscreteScheduler, FlowMatchHeunDiscreteScheduler)
    extra = {} if isinstance(scheduler, (*silent, DDIMScheduler)) else dict(generator=generator)
    for i, t in enumerate(timesteps):
        prediction = dummy_denoiser(scheduler.scale_model_input(sample, t) if hasattr(scheduler, "scale_model_input") else sample, t)
        sample = scheduler.step(prediction, t, sample, return_dict=False, **extra)[0]
        if i + 1 < len(timesteps):
            levels.append(noisy(timesteps[i + 1]))
    return sample, torch.stack(levels) if levels else torch.zeros(0)


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

    flows = []

    def record_flow(config_text, name, scheduler, steps, tokens, linear):
        key = f"flow{len(flows):04d}"
        tensors[f"{key}.sample"] = run_flow_loop(scheduler, steps, tokens, linear).contiguous()
        tensors[f"{key}.timesteps"] = scheduler.timesteps.to(torch.float64).contiguous()
        tensors[f"{key}.sigmas"] = scheduler.sigmas.to(torch.float64).contiguous()
        flows.append(dict(key=key, scheduler=name, steps=steps, tokens=tokens or 0, linear=linear, config=config_text))

    for cls, name, config, steps, tokens, linear in flow_configurations():
        scheduler = cls(**config)
        record_flow(scheduler.to_json_string(), name, scheduler, steps, tokens, linear)
    for original_class, config, name, cls, extra, tokens in flow_switches():
        original = original_class(**config)
        record_flow(original.to_json_string(), name, cls.from_config(original.config, **extra), 6, tokens, False)

    cuts = []
    clean = torch.randn(SHAPE, generator=torch.Generator().manual_seed(99))
    tensors["cut.clean"] = clean
    for cls, name, config, steps, skipped in cut_runs():
        scheduler = cls(**config)
        key = f"cut{len(cuts):03d}"
        tensors[f"{key}.sample"], tensors[f"{key}.levels"] = run_cut_loop(scheduler, steps, skipped, clean)
        cuts.append(dict(key=key, scheduler=name, steps=steps, skipped=skipped, config=scheduler.to_json_string()))

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

    # As the training scripts for flow models do: an index into the scheduler's timesteps, and the sigma that goes with it.
    flow_noising = []
    for config in (dict(), dict(shift=3.0), dict(shift=3.0, use_dynamic_shifting=True), dict(num_train_timesteps=37, shift=0.4)):
        scheduler = FlowMatchEulerDiscreteScheduler(**config)
        key = f"flow_noise{len(flow_noising):02d}"
        total = scheduler.config.num_train_timesteps
        latents, noise = torch.randn(SHAPE, generator=generator), torch.randn(SHAPE, generator=generator)
        indices = torch.randint(0, total, (SHAPE[0],), generator=generator)
        indices[0] = 0
        timesteps = scheduler.timesteps[indices]
        sigma = torch.stack([scheduler.sigmas[(scheduler.timesteps == t).nonzero().item()] for t in timesteps])
        sigma = sigma.view(-1, 1, 1, 1)
        tensors |= {
            f"{key}.sigmas": scheduler.sigmas.flip(0).contiguous(), f"{key}.positions": total - 1 - indices,
            f"{key}.timesteps": timesteps.contiguous(), f"{key}.latents": latents, f"{key}.noise": noise,
            f"{key}.noisy": (1.0 - sigma) * latents + sigma * noise, f"{key}.target": noise - latents,
        }
        flow_noising.append(dict(key=key, config=scheduler.to_json_string()))

    (out / "cases.json").write_text(json.dumps(dict(sampling=cases, flows=flows, noising=noising, flow_noising=flow_noising, cuts=cuts)))
    save_file(tensors, out / "tensors.safetensors")


main()
