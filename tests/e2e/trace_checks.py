"""Runs `prefusion align` with a trace and recomputes what is in it (objective_traces.py)."""

import functools
import json

import torch
from diffusers import DDIMInverseScheduler, DDPMScheduler, UNet2DConditionModel
from diffusers.utils import logging
from loss_additions import Additions, timestep_weight, total_loss
from objective_formulas import FORMULAS, Batch
from safetensors import safe_open
from safetensors.torch import load_file
from support import check

logging.set_verbosity_error()
torch.set_num_threads(1)

MICRO = 4  # groups a micro-step
STEPS = 2
# A rate with which a single step changes the errors much.
COMMON = dict(adapter="full", steps=STEPS, accumulate=2, batch_size=MICRO, lr=1e-3, eval_every=0, seed=7,
              empty_prompt_rate=0.3, trace_steps=STEPS)
LOSS_OPTIONS = ("loser_weight", "safe_loser", "sft_weight", "anchor_weight", "label_smoothing", "soft_labels")
ADDITIONS = {"loser_weight": 1, "sft_weight": 0, "anchor_weight": 0, "margin_drop": 0, "soft_labels": False,
             "swap_empty_prompts": False, "logit_weighting": "none", "loss_weighting": "none"}
LOSS_TENSORS = ("swap", "drop_margin", "error_scale", "weights")


@functools.cache
def unet_of(model):
    return UNet2DConditionModel.from_pretrained(f"{model}/unet").eval()


@functools.cache
def scheduler_of(model):
    return DDPMScheduler.from_pretrained(f"{model}/scheduler")


def near(found, expected, what, relative=1e-4, absolute=1e-7):
    """Each number by itself, not the largest of a tensor."""
    found, expected = found.detach().double(), expected.detach().double()
    check(found.shape == expected.shape, f"{what}: shape {tuple(found.shape)}, expected {tuple(expected.shape)}")
    excess = ((found - expected).abs() - relative * expected.abs() - absolute).flatten()
    worst = excess.argmax()
    check(excess[worst] <= 0, f"{what}: {found.flatten()[worst]}, recomputed {expected.flatten()[worst]}")


def predict(model, trace):
    noisy, timesteps, text = (trace[name] for name in ("noisy_latents", "timesteps", "encoder_hidden_states"))
    text = text.flatten(0, 1) if text.dim() == 4 else text.repeat_interleave(noisy.shape[1], 0)
    return unet_of(model)(noisy.flatten(0, 1), timesteps.flatten(), text).sample.view_as(noisy)


def mean_square(difference, trace):
    """[B, k] over C,H,W, weighted by the mask where there is one."""
    square = difference.double() ** 2
    weight = trace["masks"].double().expand_as(square) if "masks" in trace else torch.ones_like(square)
    return (weight * square).sum(dim=(2, 3, 4)) / weight.sum(dim=(2, 3, 4))


def residual_products(trace):
    """Of a pair [B], and of each item with itself [B, 2]: of what the errors' gradients are made of."""
    prediction = trace["prediction"].double().requires_grad_()
    errors = mean_square(prediction - trace["target"].double(), trace).sum()
    size = prediction[0, 0].numel()
    gradient = torch.autograd.grad(errors, prediction)[0] * size / 2
    return (gradient[:, 0] * gradient[:, 1]).mean(dim=(1, 2, 3)), (gradient**2).mean(dim=(2, 3, 4))


def prompt_distance(states):
    """1 - cosine of every two prompts' states, averaged over tokens."""
    means = states.double().mean(dim=1)
    return 1 - torch.nn.functional.cosine_similarity(means[:, None], means[None], dim=2)


def check_inputs(trace, model, is_inverted):
    """Noisy latents and targets are those of diffusers from the traced draws, which a group shares."""
    scheduler = scheduler_of(model)
    is_v = scheduler.config.prediction_type == "v_prediction"
    latents, noise, timesteps = (trace[name].flatten(0, 1) for name in ("latents", "noise", "timesteps"))
    noisy = scheduler.add_noise(latents, noise, timesteps)
    near(trace["noisy_latents"].flatten(0, 1), noisy, "noisy latents", 1e-5, 1e-5)
    target = scheduler.get_velocity(latents, noise, timesteps) if is_v else noise
    near(trace["target"].flatten(0, 1), target, "target", 1e-5, 1e-5)
    for name in ("noise", "timesteps"):
        is_shared = torch.equal(trace[name], trace[name][:, :1].expand_as(trace[name]))
        check(is_shared != (is_inverted and name == "noise"), f"{name} of a group: shared is {is_shared}")


@torch.no_grad()
def inverted(model, latents, target_timestep, text, num_steps, is_averaged):
    """DDIM from clean latents [1, C, H, W] up the grid of diffusers' inverse scheduler, the last step to the timestep
    itself. Averaged (ReNoise): the step is made again with the mean of the noise before and after it."""
    scheduler = DDIMInverseScheduler.from_config(scheduler_of(model).config)
    scheduler.set_timesteps(num_steps)
    level = torch.tensor(1.0)
    for timestep in [t for t in scheduler.timesteps.tolist() if t < target_timestep] + [target_timestep]:
        following = scheduler.alphas_cumprod[timestep]

        def moved(noise):
            clean = (latents - (1 - level).sqrt() * noise) / level.sqrt()
            return following.sqrt() * clean + (1 - following).sqrt() * noise

        noise = unet_of(model)(latents, timestep, text).sample
        if is_averaged:
            noise = (noise + unet_of(model)(moved(noise), timestep, text).sample) / 2
        latents, level = moved(noise), following
    return latents


def check_inversion(trace, model, params, is_averaged):
    """The first step's noisy latents, which the policy's first weights lead to, where no noise is added on the way."""
    timesteps, states = trace["timesteps"].tolist(), trace["encoder_hidden_states"]
    for group, item in ((0, 0), (MICRO, 1)):
        latents = inverted(model, trace["latents"][group, item][None], timesteps[group][item], states[group][None],
                           int(params["inversion_steps"]), is_averaged)
        near(trace["noisy_latents"][group, item][None], latents, "inverted latents", 1e-4, 1e-4)


def check_follows(trace, prediction_ref):
    """The tensors that follow from others; the reference's predictions are those of diffusers."""
    near(trace["error"], mean_square(trace["prediction"] - trace["target"], trace), "error")
    check(("error_ref" in trace) == (prediction_ref is not None), "error_ref is there only with a reference")
    if prediction_ref is not None:
        near(trace["error_ref"], mean_square(prediction_ref - trace["target"], trace), "error_ref", 1e-5)
    if "drift" in trace:
        near(trace["drift"], mean_square(trace["prediction"] - prediction_ref, trace), "drift")
    if "residual_dot" in trace:
        product, square = residual_products(trace)
        near(trace["residual_dot"], product, "residual_dot")
        check(("residual_square" in trace) == ("masks" in trace), "residual_square is there only with masks")
        near(trace.get("residual_square", trace["error"]), square, "residual_square")
    if "prompt_distance" in trace:
        states = trace["encoder_hidden_states"].split(MICRO)
        expected = torch.cat([prompt_distance(part) for part in states])
        near(trace["prompt_distance"], expected, "prompt_distance", 1e-4, 1e-6)


def check_weights(trace, model, options):
    """Weights of timesteps, inside the logit and outside; data without weights of its own has no other."""
    scheduler = scheduler_of(model)
    alphas = scheduler.alphas_cumprod.double()[trace["timesteps"][:, 0]]
    for option, name in (("logit_weighting", "error_scale"), ("loss_weighting", "weights")):
        if option in options:
            weight = timestep_weight(options[option], alphas / (1 - alphas), scheduler.config.prediction_type)
            near(trace[name], weight, name)


def check_draws(trace, options):
    """Groups whose prompt was dropped are those that exchange their roles."""
    tensors = {"swap_empty_prompts": "swap", "margin_drop": "drop_margin", "logit_weighting": "error_scale"}
    for option, name in tensors.items():
        check((name in trace) == (option in options), f"{name} is traced without --{option}, or not with it")
    if "swap" in trace:
        states, swap = trace["encoder_hidden_states"], trace["swap"].bool()
        same = torch.tensor([(states == state).flatten(1).all(dim=1).sum() for state in states])
        check(0 < swap.sum() < len(swap), f"{swap.sum()} prompts of {len(swap)} were dropped: the test tells nothing")
        check(torch.equal(same > 1, swap) or swap.sum() == 1, "other groups are exchanged than those without a prompt")


def micro_losses(name, tensors, trace, params, options):
    """The mean of the micro-steps' losses, from `tensors` of the policy and what is known."""
    values = {key: value for key, value in trace.items() if value.dim() > 0} | tensors
    losses = []
    for step in range(len(trace["error"]) // MICRO):
        part = {key: value[step * MICRO : (step + 1) * MICRO] for key, value in values.items()}
        real = {key: value if value.dtype == torch.bool else value.double() for key, value in part.items()}
        batch = Batch(**{key: real[key] for key in Batch.__dataclass_fields__ if key in real})
        additions = Additions(**{key: options[key] for key in LOSS_OPTIONS if key in options},
                              **{key: real[key] for key in LOSS_TENSORS if key in real})
        kappa = trace["kappa"][step].item()
        losses.append(total_loss(FORMULAS[name], batch, params | {"kappa": kappa}, additions))
    return torch.stack(losses).mean()


def check_gradient(name, trace, params, model, prediction_ref, options):
    """The gradient norm of the first step, whose weights are the model folder's."""
    unet = unet_of(model)
    unet.zero_grad()
    prediction = predict(model, trace)
    tensors = {"prediction": prediction, "error": mean_square(prediction - trace["target"], trace)}
    if prediction_ref is not None:
        tensors |= {"prediction_ref": prediction_ref, "drift": mean_square(prediction - prediction_ref, trace)}
    micro_losses(name, tensors, trace, params, options).backward()
    norm = torch.stack([parameter.grad.double().norm() for parameter in unet.parameters()]).norm()
    print(f"  gradient norm {norm:.5g}, relative error {abs(trace['grad_norm'] / norm - 1):.0e}")
    near(trace["grad_norm"], norm, "gradient norm", 1e-3)


def reference_of(options):
    """The model folder of a reference that stays what it is."""
    return options.get("reference_model", options["model"])


def params_of(metadata):
    numbers = {}
    for key, text in metadata.items():
        try:
            numbers[key] = float(text)
        except ValueError:
            numbers[key] = text
    return numbers


def check_metadata(metadata, options):
    """Additions to the objective stand under the names of their flags, also those that change nothing."""
    for name, default in ADDITIONS.items():
        value, found = options.get(name, default), metadata[name]
        check(found == value or not isinstance(value, str) and json.loads(found) == value,
              f"metadata: {name} is {found}, expected {value}")
    check(metadata.get("safe_loser") == (str(options["safe_loser"]) if "safe_loser" in options else None),
          f"metadata: safe_loser is {metadata.get('safe_loser')}")


def check_step(step, path, name, model, options):
    trace = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    check_metadata(metadata, options)
    params = params_of(metadata)
    check(metadata["objective"] == name, f"the trace is of {metadata['objective']}")
    if "beta" in options and "auto_kappa" not in options:
        near(trace["kappa"], torch.full([len(trace["error"]) // MICRO], params["kappa"]), "kappa")
    with torch.no_grad():
        prediction_ref = predict(reference_of(options), trace) if "reference" in options else None
    is_inverted = "inversion_steps" in params
    check_inputs(trace, model, is_inverted)
    if is_inverted and step == 1 and params.get("inversion_eta", 0) == 0:
        check_inversion(trace, model, params, is_averaged=name == "smpo")
    check_follows(trace, prediction_ref)
    check_weights(trace, model, options)
    check_draws(trace, options)
    tensors = {} if prediction_ref is None else {"prediction_ref": prediction_ref}
    loss = micro_losses(name, tensors, trace, params, options)
    print(f"  step {step}: loss {trace['loss']:.6g}, recomputed {loss:.6g}")
    near(trace["loss"], loss, f"step {step}: loss")
    if step == 1 and options["adapter"] == "full":
        check_gradient(name, trace, params, model, prediction_ref, options)
    return trace


def check_traces(prefusion, folder, name, options):
    """Runs `align` in `folder` and checks its traces, which are returned."""
    options = COMMON | options
    prefusion.run("align", **options, objective=name, output=folder / "out", trace=folder / "trace",
                  cache=folder / "cache")
    paths = sorted((folder / "trace").iterdir())
    check(len(paths) == STEPS, f"{len(paths)} steps are traced")
    return [check_step(i + 1, path, name, options["model"], options) for i, path in enumerate(paths)]
