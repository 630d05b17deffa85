"""Runs of `prefusion align` on own samples of flow models (SD3, FLUX.1), SDXL, PixArt and DiT, recomputed from traces.

flow_traces.py BINARY WORLD CASE, with WORLD/families from make_families.py. A case is a model there, or dit. As in
online_traces.py each run is of two optimizer steps of two micro-steps, of all weights. Of the first step, whose weights are
the folder's, predictions and gradients are recomputed with diffusers' transformer and the maths of the flow's SDE (or of
DDIM) in fp64; of both, the loss from traced numbers. diffusion-dpo trains on the best and the worst sample of each prompt.
"""

import json
import math

import torch
from diffusers import DDPMScheduler
from dit import make_model
from families import GUIDANCE, check_inputs, denoiser, forward, load, write_near
from online_checks import check_gradient, micro_losses
from safetensors import safe_open
from safetensors.torch import load_file
from support import check, main
from trace_checks import near, params_of

PROMPTS = ["a red circle", "a blue square above a green circle", "a cyan triangle", "a yellow square"]
STEPS = 2
COMMON = dict(adapter="full", steps=STEPS, accumulate=2, batch_size=2, prompts_per_round=3, group_size=2, online_steps=4,
              online_guidance=3.0, lr=1e-3, max_grad_norm=0, spike_factor=0, seed=5, trace_steps=STEPS, resolution=64)
WITH_REFERENCE = {"flow-grpo", "prdp", "spo", "d3po", "diffusion-nft", "diffusion-dpo"}

CASES = {
    "sd3": [dict(objective="flow-grpo"), dict(objective="dance-grpo", objective_args="clip=0.01"),
            dict(objective="prdp", sde_window=2, inner_epochs=2), dict(objective="diffusion-nft", objective_args="old_decay_rate=0")],
    "sd35": [dict(objective="grpo-guard", objective_args="clip=0.01,noise_level=0.9"),
             dict(objective="spo", objective_args="candidates=2,clip=0.3,max_timestep=1000")],
    "flux": [dict(objective="flow-grpo", online_guidance=GUIDANCE),
             dict(objective="diffusion-nft", online_guidance=GUIDANCE, objective_args="noise_level=0.5"),
             dict(objective="diffusion-dpo", online_guidance=GUIDANCE, kappa=50, inner_epochs=2)],
    "pixart": [dict(objective="flow-grpo", eta=0.8), dict(objective="diffusion-nft"),
               dict(objective="diffusion-dpo", kappa=50, eta=0, empty_prompt_rate=0.4)],
    "sdxl": [dict(objective="diffusion-dpo", kappa=50, inner_epochs=2)],
    "dit": [dict(objective="flow-grpo", eta=0.8), dict(objective="diffusion-dpo", kappa=50, empty_prompt_rate=0.4)],
}


class Model:
    """A family's folder: its network, and what predictions and steps are made of."""

    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        self.pipeline = load(folder)
        self.network = denoiser(self.pipeline).eval()
        self.is_flow = name.startswith(("sd3", "flux"))

    def predict(self, noisy, timesteps, trace, members, guidance):
        """Guided, for rows [B * members] of a trace with B groups."""
        def row(key):
            return trace[key].repeat_interleave(members, 0) if key in trace else None

        ids = trace["time_ids"].repeat_interleave(members, 0).float() if "time_ids" in trace else None
        high = forward(self.name, self.network, noisy, timesteps, row("encoder_hidden_states"), row("pooled"),
                       row("encoder_mask"), ids)
        is_distilled = self.name.startswith("flux")
        check(("negative_hidden_states" in trace) != is_distilled, "a distilled model is asked once, others twice")
        if is_distilled:
            return high
        low = forward(self.name, self.network, noisy, timesteps, row("negative_hidden_states"), row("negative_pooled"),
                      row("negative_mask"), ids)
        return low + guidance * (high - low)

    def alphas(self, timesteps):
        table = DDPMScheduler.from_config(self.pipeline.scheduler.config).alphas_cumprod.double()
        return torch.where(timesteps < 0, torch.ones(()).double(), table[timesteps.clamp(min=0)])

    def clean(self, prediction, noisy, trace):
        """The clean latents that a prediction implies, [..., C, h, w]."""
        prediction, noisy = prediction.double(), noisy.double()
        if self.is_flow:
            return noisy - trace["sigmas"].double()[..., None, None, None] * prediction
        alpha = self.alphas(trace["timesteps"])[..., None, None, None]
        return (noisy - (1 - alpha).sqrt() * prediction) / alpha.sqrt()

    def step(self, prediction, trace, params):
        """Mean [B, k, S, C, h, w] and deviation of the traced steps."""
        x, v = trace["latents"].double(), prediction.double()
        if not self.is_flow:
            alpha, before = (self.alphas(trace[key])[..., None, None, None] for key in ("timesteps", "previous_timesteps"))
            std = params["eta"] * ((1 - before) / (1 - alpha) * (1 - alpha / before)).sqrt()
            return before.sqrt() * self.clean(v, x, trace) + (1 - before - std**2).sqrt() * v, std
        t, following = (trace[key].double()[..., None, None, None] for key in ("sigmas", "next_sigmas"))
        dt, a = following - t, params["noise_level"]
        if params["sde"] == "dance-grpo":
            score = -(x - (1 - t) * (x - t * v)) / t**2
            return x + v * dt - a**2 / 2 * score * dt, a * (-dt).sqrt()
        sigma = a * (t / (1 - torch.where(t == 1, torch.full_like(t, params["second_sigma"]), t))).sqrt()
        mean = x * (1 + sigma**2 / (2 * t) * dt) + v * (1 + sigma**2 * (1 - t) / (2 * t)) * dt
        return mean, sigma * (-dt).sqrt()

    def decisions(self, trace, params):
        shape = trace["log_prob"].shape
        rows = self.predict(trace["latents"].flatten(0, 2), trace["timesteps"].flatten(), trace, shape[1] * shape[2],
                            params["guidance"])
        mean, std = self.step(rows.view_as(trace["latents"]), trace, params)
        density = -((trace["next_latents"].double() - mean) ** 2) / (2 * std**2) - std.log() - 0.5 * math.log(2 * math.pi)
        return density.mean(dim=(3, 4, 5)), mean, std.view(shape)


def check_times(model, trace):
    """A flow's network is told sigma * 1000; steps go down and end above 0, for the last one is not random."""
    if not model.is_flow:
        check("sigmas" not in trace, "levels of a model that has none")
        return
    near(trace["timesteps"], trace["sigmas"] * 1000, "timesteps", 1e-6)
    if "next_sigmas" in trace:
        check(bool((trace["next_sigmas"] < trace["sigmas"]).all()) and bool((trace["next_sigmas"] > 0).all()), "levels")


def check_decisions(name, model, other, trace, params, step):
    check_times(model, trace)
    params = params | {"num_elements": trace["latents"][0, 0, 0].numel()}
    tensors = {}
    if model.is_flow:
        tensors["step_size"] = trace["sigmas"].double() - trace["next_sigmas"].double()
    if other is not None:
        with torch.no_grad():
            log_prob_ref, mean_ref, std = other.decisions(trace, params)
        near(trace["log_prob_ref"], log_prob_ref, "log_prob_ref", 1e-4, 2e-4)
        near(trace["std"], std, "std", 1e-4)
    if step == 1:
        log_prob, mean, std = model.decisions(trace, params)
        near(trace["std"], std, "std", 1e-4)
        near(trace["log_prob"], log_prob, "log_prob", 1e-4, 2e-4)
        near(trace["log_prob_old"], trace["log_prob"], "log_prob_old: the ratio is one", 1e-4, 1e-4)
        if "kl" in trace:
            tensors["kl"] = ((mean - mean_ref) ** 2).mean(dim=(3, 4, 5)) / (2 * std**2)
            near(trace["kl"], tensors["kl"], "kl", 2e-3)
        # The policy's ratio to itself is one, to more digits than two programs agree on.
        tensors |= {"log_prob": log_prob,
                    "log_prob_old": trace["log_prob_old"].double() + (log_prob - trace["log_prob"]).detach()}
    else:
        moved = (trace["log_prob"] - trace["log_prob_old"]).abs().max()
        check(moved > 1e-5, f"the step has moved log-probabilities by {moved} only: the test tells nothing")
        check("kl_old" not in trace or trace["kl_old"].max() > 0, "the step has not moved its means")
    loss = micro_losses(name, tensors, trace, params)
    print(f"  step {step}: loss {trace['loss']:.6g}, recomputed {loss:.6g}")
    near(trace["loss"], loss, f"step {step}: loss", 1e-3, 2e-6)
    if step == 1:
        check_gradient(trace, loss, model.network, relative=2e-3)


def check_forward(name, model, other, trace, params, step):
    """Samples noised to levels of the sampling grid; the old policy is the one the round began with."""
    check_times(model, trace)
    noisy, members = trace["noisy_latents"], trace["noisy_latents"].shape[1]
    if model.is_flow:
        t = trace["sigmas"][..., None, None, None]
        near(noisy, (1 - t) * trace["latents"] + t * trace["noise"], "noisy latents", 1e-5, 1e-5)
    else:
        alpha = model.alphas(trace["timesteps"])[..., None, None, None]
        near(noisy, alpha.sqrt() * trace["latents"] + (1 - alpha).sqrt() * trace["noise"], "noisy latents", 1e-5, 1e-5)

    def predicted(by):
        rows = by.predict(noisy.flatten(0, 1), trace["timesteps"].flatten(), trace, members, params["guidance"])
        return rows.view_as(noisy)

    with torch.no_grad():
        start, reference = predicted(model), predicted(other)
    near(trace["prediction_ref"], reference, "prediction_ref", 1e-3, 1e-3)
    near(trace["prediction_old"], start, "prediction_old", 1e-3, 1e-3)
    prediction = predicted(model) if step == 1 else trace["prediction"]
    drift = ((prediction - reference).double() ** 2).mean(dim=(2, 3, 4))
    near(trace["drift"], drift, "drift", 2e-3)
    tensors = {"denoised": model.clean(prediction, noisy, trace), "drift": drift,
               "denoised_old": model.clean(trace["prediction_old"], noisy, trace)}
    loss = micro_losses(name, tensors, trace, params)
    print(f"  step {step}: loss {trace['loss']:.6g}, recomputed {loss:.6g}")
    near(trace["loss"], loss, f"step {step}: loss", 1e-3)
    if step == 1:
        check_gradient(trace, loss, model.network, relative=2e-3)


def check_groups(name, model, other, trace, params, step):
    """Pairs of samples, the better one first; each asked for once, without guidance, under noise of its own group."""
    timesteps = check_inputs(model.pipeline, trace)
    check((trace["reward"][:, 0] > trace["reward"][:, 1]).all(), "the better sample is not the first one")
    noisy, target = trace["noisy_latents"], trace["target"].double()

    def row(key):
        return trace[key].repeat_interleave(2, 0) if key in trace else None

    def errors(network):
        ids = trace["time_ids"].flatten(0, 1).float() if "time_ids" in trace else None
        prediction = forward(model.name, network, noisy.flatten(0, 1), timesteps, row("encoder_hidden_states"),
                             row("pooled"), row("encoder_mask"), ids)
        return ((prediction.view_as(noisy).double() - target) ** 2).mean(dim=(2, 3, 4))

    with torch.no_grad():
        near(trace["error_ref"], errors(other.network), "error_ref", 1e-3)
    error = errors(model.network) if step == 1 else trace["error"].double()
    near(trace["error"], error, "error", 1e-3)
    gains = trace["error_ref"].double() - error
    losses = -torch.nn.functional.logsigmoid(params["kappa"] * (gains[:, 0] - gains[:, 1]))
    loss = torch.stack([part.mean() for part in losses.split(trace["micro_groups"].tolist())]).mean()
    print(f"  step {step}: loss {trace['loss']:.6g}, recomputed {loss:.6g}")
    near(trace["loss"], loss, f"step {step}: loss", 1e-3)
    if step == 1:
        check_gradient(trace, loss, model.network, relative=2e-3)


# What checks the traces of those objectives that do not train on decisions.
CHECKS = {"diffusion-nft": check_forward, "diffusion-dpo": check_groups}


def make_dit(folder):
    """A model whose classes are called as the prompts are."""
    path = make_model(folder, "dit") / "model_index.json"
    labels = {str(7 * number): prompt for number, prompt in enumerate(PROMPTS)}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"id2label": labels}))
    return folder


def run_case(name):
    def case(prefusion, world, scratch):
        (scratch / "prompts.txt").write_text("".join(f"{prompt}\n" for prompt in PROMPTS))
        model = Model(make_dit(scratch / "model") if name == "dit" else world / "families" / "models" / name, name)
        other = Model(write_near(model.pipeline, model.folder, scratch / "reference"), name)
        for number, changes in enumerate(CASES[name]):
            objective = changes["objective"]
            options = COMMON | dict(model=model.folder, prompts=scratch / "prompts.txt") | changes
            has_reference = objective in WITH_REFERENCE
            if has_reference:
                options |= dict(reference="frozen", reference_model=other.folder)
            print(name, changes)
            folder = scratch / str(number)
            prefusion.run("align", **options, output=folder / "out", trace=folder / "trace")
            for step in range(1, STEPS + 1):
                path = folder / "trace" / f"step-{step:06}.safetensors"
                trace = load_file(path)
                with safe_open(path, "pt") as file:
                    params = params_of(file.metadata())
                check(trace["latents"].shape[-1] == 8, f"latents of {trace['latents'].shape} for 64 pixels")
                CHECKS.get(objective, check_decisions)(objective, model, other if has_reference else None, trace, params, step)

    return case


main({name: run_case(name) for name in CASES})
