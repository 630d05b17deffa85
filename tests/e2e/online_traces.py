"""Recomputes what online objectives of `prefusion align` trace: the policy's log-probabilities, losses and gradients.

online_traces.py BINARY WORLD CASE, with WORLD from make_sd_world.py. Each run is of two optimizer steps of two
micro-steps, of all weights, against a reference of other weights. Of the first step, whose weights are the model
folder's, predictions and gradients are recomputed with diffusers' UNet and the maths of stochastic DDIM steps in torch;
of both, the loss from traced numbers. An online objective in --list-objectives without a case here fails.
"""

import math
import shutil
import subprocess

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from objective_runs import listed
from online_checks import check_gradient, micro_losses
from safetensors import safe_open
from safetensors.torch import load_file
from support import check, main, read_metrics
from trace_checks import near, params_of, scheduler_of, unet_of

PROMPTS = ["a red circle", "a blue square above a green circle", "a cyan triangle", "a yellow square"]
STEPS = 2
COMMON = dict(adapter="full", steps=STEPS, accumulate=2, batch_size=2, prompts_per_round=4, online_steps=4,
              online_guidance=3.0, eta=0.8, lr=1e-3, max_grad_norm=0, spike_factor=0, seed=5, trace_steps=STEPS)


def predict(model, latents, timesteps, trace, guidance, members):
    """The guided prediction for rows [B * members], of a trace with B groups."""
    text, negative = (trace[name].repeat_interleave(members, 0)
                      for name in ("encoder_hidden_states", "negative_hidden_states"))
    unet = unet_of(model)
    low = unet(latents, timesteps, negative).sample
    high = unet(latents, timesteps, text).sample
    return low + guidance * (high - low)


def levels(model, timesteps):
    """abar at timesteps, those below 0 being the end of the schedule; of diffusers' DDIM without set_alpha_to_one."""
    alphas = scheduler_of(model).alphas_cumprod.double()
    return torch.where(timesteps < 0, alphas[0], alphas[timesteps.clamp(min=0)])


def clean_and_noise(model, prediction, latents, alpha):
    if scheduler_of(model).config.prediction_type == "epsilon":
        return (latents - (1 - alpha).sqrt() * prediction) / alpha.sqrt(), prediction
    return (alpha.sqrt() * latents - (1 - alpha).sqrt() * prediction,
            alpha.sqrt() * prediction + (1 - alpha).sqrt() * latents)


def ddim_step(model, prediction, latents, timesteps, previous, eta):
    """Mean and deviation of a stochastic DDIM step, rows [M], in fp64."""
    alpha, before = (levels(model, t)[:, None, None, None] for t in (timesteps, previous))
    clean, noise = clean_and_noise(model, prediction.double(), latents.double(), alpha)
    std = eta * ((1 - before) / (1 - alpha) * (1 - alpha / before)).sqrt()
    return before.sqrt() * clean + (1 - before - std**2).clamp(min=0).sqrt() * noise, std


def decisions(model, trace, params):
    """Log-probabilities, means and deviations of the traced steps under a model folder's weights."""
    shape = trace["log_prob"].shape
    rows = {name: trace[name].flatten(0, 2) for name in ("latents", "next_latents", "timesteps", "previous_timesteps")}
    prediction = predict(model, rows["latents"], rows["timesteps"], trace, params["guidance"], shape[1] * shape[2])
    mean, std = ddim_step(model, prediction, rows["latents"], rows["timesteps"], rows["previous_timesteps"],
                          params["eta"])
    density = -((rows["next_latents"].double() - mean) ** 2) / (2 * std**2) - std.log() - 0.5 * math.log(2 * math.pi)
    return density.mean(dim=(1, 2, 3)).view(shape), mean.view(*shape, -1), std.view(shape)


def check_decisions(name, trace, params, options, step):
    """Steps of trajectories: rows [B, k, S]."""
    model, reference = options["model"], options.get("reference_model")
    near(trace["std"], decisions_std(model, trace, params), "std", 1e-4)
    check(("log_prob_ref" in trace) == (reference is not None), "log_prob_ref is there only with a reference")
    tensors = {}
    if reference is not None:
        with torch.no_grad():
            log_prob_ref, mean_ref, std = decisions(reference, trace, params)
        near(trace["log_prob_ref"], log_prob_ref, "log_prob_ref", 1e-4, 1e-4)
    if step == 1:
        log_prob, mean, std = decisions(model, trace, params)
        near(trace["log_prob"], log_prob, "log_prob", 1e-4, 1e-4)
        near(trace["log_prob_old"], trace["log_prob"], "log_prob_old of the weights that sampled", 1e-4, 1e-4)
        tensors = {"log_prob": log_prob}
        if "kl" in trace:
            tensors["kl"] = ((mean - mean_ref) ** 2).mean(dim=3) / (2 * std**2)
            near(trace["kl"], tensors["kl"], "kl", 1e-3)
            check(trace["kl"].min() > 0, "the reference is no other than the policy")
        tensors |= {"log_prob_old": trace["log_prob_old"].double() + (log_prob - trace["log_prob"]).detach()}
    else:
        moved = (trace["log_prob"] - trace["log_prob_old"]).abs().max()
        check(moved > 1e-5, f"the step has moved log-probabilities by {moved} only: the test tells nothing")
    params = params | {"num_elements": trace["latents"][0, 0, 0].numel()}
    # The policy's ratio to itself is one, to more digits than two programs agree on.
    loss = micro_losses(name, tensors, trace, params)
    near(trace["loss"], loss, f"step {step}: loss", 1e-3, 1e-6)
    print(f"  step {step}: loss {trace['loss']:.6g}, recomputed {loss:.6g}")
    if step == 1:
        check_gradient(trace, loss, unet_of(model))


def decisions_std(model, trace, params):
    before, alpha = levels(model, trace["previous_timesteps"]), levels(model, trace["timesteps"])
    return params["eta"] * ((1 - before) / (1 - alpha) * (1 - alpha / before)).sqrt()


def check_trajectories(name, traces, params, options):
    """Of a group's trajectories: advantages, and that steps follow each other where there are several."""
    for step, trace in enumerate(traces, 1):
        check_decisions(name, trace, params, options, step)
        if trace["latents"].shape[2] > 1:
            near(trace["latents"][:, :, 1:], trace["next_latents"][:, :, :-1], "the next step's latents")
        if trace["reward"].shape[1] == options["group_size"]:
            check_advantage(trace)
        else:
            check((trace["reward"][:, 0] > trace["reward"][:, 1]).all(), "the better trajectory is not the first one")


def check_step_pairs(name, traces, params, options):
    """Two draws from one state, the better one first, not above the largest timestep."""
    for step, trace in enumerate(traces, 1):
        check(torch.equal(trace["latents"][:, 0], trace["latents"][:, 1]), "members leave different states")
        check(not torch.equal(trace["next_latents"][:, 0], trace["next_latents"][:, 1]), "members are the same draw")
        gap = trace["reward"][:, 0] - trace["reward"][:, 1]
        check(gap.min() > params["min_gap"], f"rewards of a pair differ by {gap.min()}")
        check(trace["timesteps"].max() <= params["max_timestep"], f"timestep {trace['timesteps'].max()} is compared")
        check_decisions(name, trace, params, options, step)


def forward_predictions(model, trace, params):
    """Guided predictions at the traced noisy latents, [B, k, C, h, w]."""
    noisy = trace["noisy_latents"]
    flat = predict(model, noisy.flatten(0, 1), trace["timesteps"].flatten(), trace, params["guidance"], noisy.shape[1])
    return flat.view_as(noisy)


def denoised(model, trace, prediction):
    alpha = levels(model, trace["timesteps"])[..., None, None, None]
    return clean_and_noise(model, prediction.double(), trace["noisy_latents"].double(), alpha)[0]


def check_forward(name, traces, params, options):
    """Samples noised again; the old policy is the start's weights, or the policy's where it follows at once."""
    model, reference = options["model"], options["reference_model"]
    for step, trace in enumerate(traces, 1):
        rows = [trace[key].flatten(0, 1) for key in ("latents", "noise", "timesteps")]
        near(trace["noisy_latents"].flatten(0, 1), scheduler_of(model).add_noise(*rows), "noisy latents", 1e-5, 1e-5)
        with torch.no_grad():
            start, other = (forward_predictions(folder, trace, params) for folder in (model, reference))
        near(trace["prediction_ref"], other, "prediction_ref", 1e-3, 1e-4)
        is_at_start = step == 1 or params["old_decay_rate"] > 0
        near(trace["prediction_old"], start if is_at_start else trace["prediction"], "prediction_old", 1e-3, 1e-4)
        moved = (trace["prediction"] - start).abs().max()
        check((moved < 1e-3) == (step == 1), f"step {step}: the prediction has moved by {moved} from the start's")
        prediction = forward_predictions(model, trace, params) if step == 1 else trace["prediction"]
        drift = ((prediction - other).double() ** 2).mean(dim=(2, 3, 4))
        near(trace["drift"], drift, "drift", 1e-3)
        tensors = {"denoised": denoised(model, trace, prediction), "drift": drift,
                   "denoised_old": denoised(model, trace, trace["prediction_old"])}
        loss = micro_losses(name, tensors, trace, params)
        print(f"  step {step}: loss {trace['loss']:.6g}, recomputed {loss:.6g}")
        near(trace["loss"], loss, f"step {step}: loss", 1e-4)
        if step == 1:
            check_gradient(trace, loss, unet_of(model))
    check_advantage(traces[0])
    if options["accumulate"] == options["online_steps"]:
        grid = sorted(set(traces[0]["timesteps"].flatten().tolist()))
        check(len(grid) == options["online_steps"], f"timesteps {grid}")
        passes = traces[0]["timesteps"].unflatten(0, (options["accumulate"], -1)).flatten(1)
        check(all(sorted(sample) == grid for sample in passes.T.tolist()), "a sample misses a timestep of the grid")
        check(len(set(map(tuple, passes.T.tolist()))) > 1, "all samples go through the grid in one order")


def check_advantage(trace):
    reward = trace["reward"].double()
    std = reward.std(dim=1, unbiased=False, keepdim=True)
    near(trace["advantage"], (reward - reward.mean(dim=1, keepdim=True)) / (std + 1e-4), "advantage", 1e-3, 1e-4)


PALETTE = {"red": (225, 35, 35), "green": (35, 170, 60), "blue": (40, 70, 225), "yellow": (240, 205, 30),
           "purple": (170, 40, 200), "cyan": (30, 195, 215)}


def soft_features(pixels):
    """What --reward shapes-soft sees of pictures in [-1, 1], as docs/shapes.md says."""
    rgb = ((pixels.double() + 1) / 2).clamp(0, 1)
    palette = torch.tensor([*PALETTE.values(), (0, 0, 0)], dtype=torch.double) / 255
    chroma, of_palette = rgb - rgb.mean(dim=1, keepdim=True), palette - palette.mean(dim=1, keepdim=True)
    distance = ((chroma[:, None] - of_palette[None, :, :, None, None]) ** 2).sum(dim=2)
    degree = torch.softmax(-distance / (2 * 0.12**2), dim=1)
    share, grey = degree[:, :6].mean(dim=(2, 3)), degree[:, 6]
    luma = torch.einsum("nchw,c->nhw", rgb, torch.tensor([0.299, 0.587, 0.114], dtype=torch.double))
    lightness = ((grey * luma).sum(dim=(1, 2)) / grey.sum(dim=(1, 2))) ** 2
    cleanness = torch.exp(-4 * ((1 - grey) * grey).sum(dim=(1, 2)) / (1 - grey).sum(dim=(1, 2)))
    return torch.cat([share / (share + 0.02), lightness[:, None], cleanness[:, None]], dim=1)


def wanted_features(prompt):
    return torch.tensor([float(colour in prompt.split()) for colour in PALETTE] + [1.0, 1.0], dtype=torch.double)


def unit(rows):
    return rows / rows.norm(dim=1, keepdim=True)


def sampled_pixels(model, trace, options):
    """Deterministic DDIM from the traced noise, the denoiser's input detached, some steps recorded; then decoded."""
    scheduler = DDIMScheduler.from_pretrained(f"{model}/scheduler")
    scheduler.set_timesteps(options["online_steps"])
    begin, parts = 0, []
    for count, mask in zip(trace["micro_groups"].tolist(), trace["has_gradient"].tolist(), strict=True):
        rows = {name: tensor[begin : begin + count] for name, tensor in trace.items()
                if name.endswith("hidden_states")}
        latents = trace["noise"][begin : begin + count]
        for timestep, is_recorded in zip(scheduler.timesteps, mask, strict=True):
            with torch.set_grad_enabled(is_recorded):
                timesteps = timestep.expand(count)
                prediction = predict(model, latents.detach(), timesteps, rows, options["online_guidance"], 1)
            latents = scheduler.step(prediction, timestep, latents).prev_sample
        parts.append(latents)
        begin += count
    latents = torch.cat(parts)
    vae = AutoencoderKL.from_pretrained(f"{model}/vae").requires_grad_(False)
    return latents, vae.decode(latents / vae.config.scaling_factor).sample


def check_reward_gradient(name, traces, params, options):
    """Pictures made with a gradient, and the decomposed cosine of what they show and what was asked for."""
    direction = unit(unit(torch.stack([wanted_features(prompt) for prompt in PROMPTS])).mean(dim=0)[None])
    for step, trace in enumerate(traces, 1):
        recorded = trace["has_gradient"].sum(dim=1)
        check((recorded == options["online_steps"] // params["gradient_every"]).all(), f"steps recorded: {recorded}")
        near(trace["direction"], direction.expand_as(trace["direction"]), "direction", 1e-5, 1e-6)
        wanted = unit(torch.stack([wanted_features(prompt) for prompt in PROMPTS]))
        distance = torch.cdist(trace["text_embedding"].double(), wanted)
        check(distance.min(dim=1).values.max() < 1e-6, "a text embedding is that of no prompt")
        check(len(set(distance.argmin(dim=1).tolist())) == min(len(PROMPTS), len(distance)), "prompts come twice")
        tensors = {}
        if step == 1:
            latents, pixels = sampled_pixels(options["model"], trace, options)
            near(trace["latents"], latents, "latents", 1e-3, 1e-4)
            near(trace["pixel_values"], pixels, "pixel values", 1e-3, 1e-3)
            tensors["image_embedding"] = unit(soft_features(pixels))
        else:
            tensors["image_embedding"] = unit(soft_features(trace["pixel_values"]))
        image, text = tensors["image_embedding"], trace["text_embedding"].double()
        near(trace["image_embedding"], image, "image embedding", 1e-3, 1e-4)
        near(trace["reward"], (text * image).sum(dim=1), "reward", 1e-3)
        own = text - (1 - params["weight"]) * (text @ direction.T) * direction
        tensors["score"] = (own * image).sum(dim=1)
        near(trace["score"], tensors["score"], "score", 1e-3, 1e-4)
        loss = micro_losses(name, tensors, trace, params)
        print(f"  step {step}: loss {trace['loss']:.6g}, recomputed {loss:.6g}")
        near(trace["loss"], loss, f"step {step}: loss", 1e-3)
        if step == 1:
            check_gradient(trace, loss, unet_of(options["model"]))


# What checks the traces of an objective, and the options of its runs besides the common ones.
CASES = {
    "ddpo": (check_trajectories, [dict(), dict(model="v_prediction", objective_args="clip=0.01,advantage_clip=0.5")]),
    "flow-grpo": (check_trajectories, [dict(), dict(objective_args="kl_weight=3,clip=0.01")]),
    "d3po": (check_trajectories, [dict(beta=2), dict(objective_args="clip=0.3")]),
    "spo": (check_step_pairs, [
        dict(group_size=2), dict(beta=1, objective_args="candidates=2,max_timestep=500,clip=0.3"),
        dict(objective_args="min_gap=0.002,candidates=6")]),
    "diffusion-nft": (check_forward, [
        dict(accumulate=4, batch_size=4, objective_args="old_decay=1,old_decay_rate=1"), dict(model="v_prediction", beta=0.1, eta=0),
        dict(prompts_per_round=2, online_steps=2, objective_args="old_decay=1,old_decay_rate=1,kl_weight=2"),
        dict(prompts_per_round=2, online_steps=2, objective_args="old_decay_rate=0,advantage_clip=0.4")]),
    "longalign": (check_reward_gradient, [
        dict(objective_args="gradient_every=2"),
        dict(model="v_prediction", online_steps=6, objective_args="gradient_every=3,weight=0.8")]),
    "prdp": (check_trajectories, [dict(inner_epochs=2),
                                  dict(inner_epochs=2, beta=0.3, objective_args="clip=5", sde_window=2)]),
}


def near_reference(model, folder):
    """A model folder whose denoiser differs a little: where ratios to it are clamped, there is no gradient."""
    if not folder.exists():
        shutil.copytree(model, folder)
        unet = UNet2DConditionModel.from_pretrained(model / "unet")
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for weight in unet.parameters():
                weight.add_(0.02 * weight.abs().mean() * torch.randn(weight.shape, generator=generator))
        unet.save_pretrained(folder / "unet")
    return folder


def run(prefusion, world, scratch, row, changes):
    name, model = row["name"], changes.get("model", "epsilon")
    options = COMMON | dict(group_size=3, objective=name, prompts=scratch / "prompts.txt") | changes
    if name == "longalign":
        options |= dict(group_size=None, eta=None, prompts_per_round=None, reward="shapes-soft")
    options["model"] = world / "models" / model
    if row["reference"] != "no":
        options |= {"reference": "frozen", "reference_model": near_reference(options["model"], scratch / model)}
    folder = scratch / f"run-{len(list(scratch.iterdir()))}"
    print(name, changes)
    prefusion.run("align", **options, output=folder / "out", trace=folder / "trace")
    if name != "longalign":  # whose sampling is the step itself
        first = read_metrics(folder / "out")[0]
        check(min(first["time/sampling"], first["time/reward"]) > 0, f"sampling and reward take no time: {first}")
    paths = sorted((folder / "trace").iterdir())
    check(len(paths) == STEPS, f"{len(paths)} steps are traced")
    with safe_open(paths[0], "pt") as file:
        metadata = file.metadata()
    check(metadata["objective"] == name, f"the trace is of {metadata['objective']}")
    CASES[name][0](name, [load_file(path) for path in paths], params_of(metadata), options)


def run_case(name):
    def case(prefusion, world, scratch):
        (scratch / "prompts.txt").write_text("".join(f"{prompt}\n" for prompt in PROMPTS))
        row = listed(prefusion)[name]
        for changes in CASES[name][1]:
            run(prefusion, world, scratch, row, changes)

    return case


FLOW_ALONE = {"dance-grpo", "grpo-guard"}  # of flow models: flow_traces.py


def all_have_a_case(prefusion, world, scratch):
    for name, row in listed(prefusion).items():
        check(row["data"] != "online" or name in CASES or name in FLOW_ALONE,
              f"{name} is an online objective without a case here: add one")


def dry_run(prefusion, world, scratch):
    """Measured: a sample and a round where there are rounds, a step, memory; the whole run's time follows from them."""
    (scratch / "prompts.txt").write_text("".join(f"{prompt}\n" for prompt in PROMPTS))
    for name in CASES:
        options = {key: value for key, value in COMMON.items() if key not in ("trace_steps", "max_grad_norm")}
        options |= dict(group_size=3, objective=name, prompts=scratch / "prompts.txt", dry_run=True, steps=1000,
                        model=world / "models" / "epsilon")
        if name == "longalign":
            options |= dict(group_size=None, eta=None, prompts_per_round=None, reward="shapes-soft",
                            objective_args="gradient_every=2")
        command = prefusion.command("align", options)
        text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, cwd=scratch).stdout
        print(name, text, sep="\n")
        found = {line[:21].strip(): line[21:] for line in text.splitlines()}
        wanted = {"objective", "trainable parameters", "memory", "peak memory", "seconds per step", "steps"}
        rounds = {"a round", "seconds per sample", "seconds per round"} if name != "longalign" else set()
        check(set(found) == wanted | rounds, f"{name}: the dry run prints {sorted(found)}")
        check(float(found["seconds per step"].split()[0]) > 0, found["seconds per step"])
        if rounds:
            check(found["a round"].startswith("12 samples"), found["a round"])
            sample, whole = (float(found[key].split()[0]) for key in ("seconds per sample", "seconds per round"))
            check(abs(sample * 12 - whole) <= 0.01, f"{name}: 12 samples of {sample} s are no round of {whole} s")
    check([path.name for path in scratch.iterdir()] == ["prompts.txt"], "a dry run wrote something")


main({name: run_case(name) for name in CASES} | {"all": all_have_a_case, "dry_run": dry_run})
