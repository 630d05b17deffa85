"""Recomputes the first steps of `prefusion align` from its trace with diffusers, torch autograd and the optimizers of torch
and transformers.

training_step.py BINARY WORLD CASE, with WORLD from make_sd_world.py.
"""

import copy
import io
import json
import shutil

from support import check, check_near, encoded_captions, main, read_metrics

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler, FlowMatchEulerDiscreteScheduler, UNet2DConditionModel
from diffusers.optimization import get_scheduler
from diffusers.utils import logging
from peft import LoraConfig
from peft.utils import set_peft_model_state_dict
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from transformers.optimization import Adafactor

logging.set_verbosity_error()
torch.set_num_threads(1)

STEPS = 3
FAINT = 1e-4  # of a tensor's largest gradient: there, what is rounding in the largest is a part of the whole
COMMON = dict(steps=STEPS, batch_size=3, lr=1e-3, weight_decay=0.1, max_grad_norm=0.5, eval_every=0, log_every=1,
              empty_prompt_rate=0.3, seed=5)


def lora_state(path):
    return {name.removeprefix("unet."): value for name, value in load_file(path).items()}


def lora_metadata(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["lora_adapter_metadata"])


def round_to_bytes(unet, dtype):
    """Weights of blocks as they are in a byte each, with a scale for each output channel."""
    for name, module in unet.named_modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)) and name.split(".")[0].endswith(("block", "blocks")):
            weight = module.weight.data
            largest = weight.abs().flatten(1).amax(1).view(-1, *[1] * (weight.dim() - 1))
            scale = largest / {"int8": 127, "fp8": 448}[dtype]
            scaled = weight / scale
            rounded = scaled.round() if dtype == "int8" else scaled.to(torch.float8_e4m3fn).float()
            module.weight.data = rounded * scale


def make_policy(model, initial_lora, base_dtype=None):
    unet = UNet2DConditionModel.from_pretrained(f"{model}/unet").eval()
    if base_dtype:
        round_to_bytes(unet, base_dtype)
    if initial_lora:
        entries = lora_metadata(initial_lora)
        config = {key.removeprefix("unet."): value for key, value in entries.items()}
        unet.requires_grad_(False)
        unet.add_adapter(LoraConfig(r=config["r"], lora_alpha=config["lora_alpha"],
                                    target_modules=config["target_modules"]))
        set_peft_model_state_dict(unet, lora_state(initial_lora))
    return unet


def trainable(unet):
    return {name: parameter for name, parameter in unet.named_parameters() if parameter.requires_grad}


def item_errors(unet, noisy, timesteps, text, target):
    groups, k = timesteps.shape
    prediction = unet(noisy.flatten(0, 1), timesteps.flatten(), text.repeat_interleave(k, 0)).sample
    error = (target.flatten(0, 1) - prediction).float().pow(2).mean(dim=(1, 2, 3))
    return prediction.view_as(noisy), error.view(groups, k)


def flow_inputs_from(trace, scheduler):
    """As the training scripts of diffusers for flow models have it: the timesteps are some of the scheduler's, and the
    noise levels those that go with them."""
    latents, noise, timesteps = (trace[name].flatten(0, 1) for name in ("latents", "noise", "timesteps"))
    indices = [(scheduler.timesteps == timestep).nonzero().item() for timestep in timesteps]
    check(torch.equal(trace["sigmas"].flatten(), scheduler.sigmas[indices]), "sigmas are not those of the timesteps")
    sigmas = scheduler.sigmas[indices].view(-1, 1, 1, 1)
    noisy = (1.0 - sigmas) * latents + sigmas * noise
    return noisy.view_as(trace["latents"]), (noise - latents).view_as(trace["latents"])


def inputs_from(trace, scheduler):
    """Noisy latents and targets as diffusers makes them from the traced draws."""
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        return flow_inputs_from(trace, scheduler)
    latents, noise, timesteps = (trace[name].flatten(0, 1) for name in ("latents", "noise", "timesteps"))
    noisy = scheduler.add_noise(latents, noise, timesteps)
    is_v = scheduler.config.prediction_type == "v_prediction"
    target = scheduler.get_velocity(latents, noise, timesteps) if is_v else noise
    return noisy.view_as(trace["latents"]), target.view_as(trace["latents"])


def objective_loss(objective, kappa, error, error_ref):
    if objective == "sft":
        return error.mean()
    score = error_ref - error
    return -F.logsigmoid(kappa * (score[:, 0] - score[:, 1])).mean()


def check_step(step, trace, unet, reference, scheduler, options, kappa):
    """One optimizer step's forward and backward passes, compared with the trace; leaves gradients in the UNet."""
    noisy, target = inputs_from(trace, scheduler)
    check_near(trace["noisy_latents"], noisy, 1e-5, f"step {step} noisy latents")
    check_near(trace["target"], target, 1e-5, f"step {step} target")
    check(torch.equal(trace["noise"][:, :1].expand_as(trace["noise"]), trace["noise"]), "noise differs within a group")
    check(torch.equal(trace["timesteps"][:, :1].expand_as(trace["timesteps"]), trace["timesteps"]), "timesteps differ")
    micro_size = options["batch_size"]
    predictions, errors, errors_ref, total = [], [], [], 0.0
    for begin in range(0, len(noisy), micro_size):
        part = slice(begin, begin + micro_size)
        inputs = (noisy[part], trace["timesteps"][part], trace["encoder_hidden_states"][part], target[part])
        prediction, error = item_errors(unet, *inputs)
        error_ref = None
        if reference:
            with torch.no_grad():
                error_ref = reference(inputs)
            errors_ref.append(error_ref)
        loss = objective_loss(options["objective"], kappa, error, error_ref) / options["accumulate"]
        loss.backward()
        total += loss.item()
        predictions.append(prediction.detach())
        errors.append(error.detach())
    check_near(trace["prediction"], torch.cat(predictions), 2e-5, f"step {step} prediction")
    check_near(trace["error"], torch.cat(errors), 3e-6, f"step {step} error")
    check(("error_ref" in trace) == (reference is not None), "error_ref is there only with a reference")
    if reference:
        check_near(trace["error_ref"], torch.cat(errors_ref), 3e-6, f"step {step} error_ref")
    # The loss of a pair depends on kappa times a difference of errors, which amplifies their last digits.
    check_near(trace["loss"], torch.tensor(total), 1e-4 if reference else 3e-6, f"step {step} loss")


class MovingReference:
    """A copy of the policy whose trained weights follow it as `--reference` says."""

    def __init__(self, unet, text):
        self.network = copy.deepcopy(unet)
        self.kind, *self.numbers = text.split(":")
        self.start = {name: value.detach().clone() for name, value in trainable(unet).items()}

    def __call__(self, inputs):
        return item_errors(self.network, *inputs)[1]

    @torch.no_grad()
    def follow(self, step, unet):
        first = float(self.numbers[0])
        policy = trainable(unet)
        for name, value in trainable(self.network).items():
            if self.kind == "ema":
                value.copy_(first * value + (1 - first) * policy[name])
            elif self.kind == "refresh" and step % first == 0:
                mix = float(self.numbers[1]) if len(self.numbers) > 1 else 1.0
                value.copy_(mix * policy[name] + (1 - mix) * value)
            elif self.kind == "extrapolated":
                value.copy_(self.start[name] + first * (policy[name] - self.start[name]))


def reference_of(unet, is_lora):
    if not is_lora:
        frozen = copy.deepcopy(unet)
        return lambda inputs: item_errors(frozen, *inputs)[1]

    def adapter_off(inputs):
        unet.disable_adapters()
        error = item_errors(unet, *inputs)[1]
        unet.enable_adapters()
        return error

    return adapter_off


def check_weights(found, expected, initial, faint):
    """The updates, which are far smaller than the weights, decide. AdamW turns gradients that are hardly more than
    rounding into whole steps: entries that had such ones (`faint`) may differ by a part of the learning rate."""
    check(found.keys() == expected.keys(), f"keys differ: {sorted(found.keys() ^ expected.keys())[:4]}")
    share = sum(mask.sum().item() for mask in faint.values()) / sum(mask.numel() for mask in faint.values())
    check(share < 0.01, f"{share:.1%} of the gradients are rounding")
    moved = difference = 0.0
    for name, value in expected.items():
        moved += (value - initial[name]).double().pow(2).sum().item()
        difference += (found[name] - value).double().pow(2).sum().item()
        distance = (found[name] - value).abs() / COMMON["lr"]
        check(distance.max() < 0.5, f"{name} differs by {distance.max()} of the learning rate")
        check(distance[~faint[name]].max() < 0.05, f"{name} differs by {distance[~faint[name]].max()} of the learning rate")
    share = (difference / moved) ** 0.5
    print(f"  updates: relative error {share:.1e}")
    check(moved > 0 and share < 3e-4, f"updates differ by a share of {share}")


def check_first_row(rows, objective):
    if objective != "diffusion-dpo":
        return
    check(abs(rows[0]["loss"] - 0.6931472) < 1e-5, f"the first loss is {rows[0]['loss']}, not log 2")
    check(rows[0]["accuracy"] == 0.5 and rows[0]["margin"] == 0.0, "policy and reference differ before the first step")


def flow_model(world, scratch, **config):
    """The folder of a model with the same network taken for a flow model."""
    model = scratch / "flow"
    shutil.copytree(world / "models" / "epsilon", model)
    FlowMatchEulerDiscreteScheduler(**config).save_pretrained(model / "scheduler")
    index = json.loads((model / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "FlowMatchEulerDiscreteScheduler"]
    (model / "model_index.json").write_text(json.dumps(index))
    return model


def recompute_flow(prefusion, world, scratch, shift, **changes):
    recompute(prefusion, world, scratch, flow_model(world, scratch, shift=shift), **changes)


def refused_flow(prefusion, world, scratch):
    """What a flow model cannot be trained with is named before anything is encoded."""
    options = dict(model=flow_model(world, scratch, shift=3.0), output=scratch / "out", steps=1)
    pairs = dict(options, data=world / "pairs.parquet")
    for changes, named in ((dict(objective="ddim-inpo"), "ddim-inpo"), (dict(objective="smpo"), "smpo"),
                           (dict(logit_weighting="debiased"), "debiased"), (dict(timestep_range="1:2"), "1:2")):
        code = 3 if "objective" in changes else 2
        check(named in prefusion.run("align", exit_code=code, **pairs, **changes), f"{named} is not named")
    prompts = scratch / "prompts.txt"
    prompts.write_text("a red circle\na blue square\n")
    # The noise of sampling is that of the model's own steps.
    diffusion = dict(options, model=world / "models" / "epsilon")
    for fixed, changes, named in ((options, dict(objective="flow-grpo", eta=0.5), "--eta"),
                                  (options, dict(objective="spo", objective_args="noise_level=0"), "noise_level"),
                                  (diffusion, dict(objective="ddpo", objective_args="noise_level=0.5"), "noise_level"),
                                  (diffusion, dict(objective="dance-grpo"), "dance-grpo"),
                                  (diffusion, dict(objective="grpo-guard"), "grpo-guard")):
        text = prefusion.run("align", exit_code=2, **fixed, **changes, reward="shapes", prompts=prompts)
        check(named in text.splitlines()[-1], f"{named} is not named:\n{text}")


def optimizer_of(parameters, options):
    if options.get("optimizer") == "adafactor":
        return Adafactor(parameters, lr=options["lr"], weight_decay=options["weight_decay"], relative_step=False,
                         scale_parameter=False)
    return torch.optim.AdamW(parameters, lr=options["lr"], weight_decay=options["weight_decay"])


def recompute(prefusion, world, scratch, model_name, objective="diffusion-dpo", adapter="lora", **changes):
    model = world / "models" / model_name  # or a folder
    options = {**COMMON, "accumulate": 2, "objective": objective, "adapter": adapter, **changes}
    if objective == "diffusion-dpo":
        options.setdefault("beta", 400)
    fixed = dict(model=model, data=world / "pairs.parquet")
    prefusion.run("align", **fixed, **options, output=scratch / "out", trace=scratch / "trace", trace_steps=STEPS)
    initial_lora = options.get("init_lora")
    if adapter == "lora" and not initial_lora:  # without a learning rate a run writes the adapter it starts from
        prefusion.run("align", **fixed, **{**options, "lr": 0, "steps": 1}, output=scratch / "initial")
        initial_lora = scratch / "initial" / "pytorch_lora_weights.safetensors"

    unet = make_policy(model, initial_lora, options.get("base_dtype"))
    reference = reference_of(unet, initial_lora is not None) if objective != "sft" else None
    if "init_lora" in options:
        reference = MovingReference(unet, "start:0")  # stays there
    elif ":" in options.get("reference", ""):
        reference = MovingReference(unet, options["reference"])
    is_flow = "FlowMatch" in json.loads((model / "scheduler" / "scheduler_config.json").read_text())["_class_name"]
    scheduler_class = FlowMatchEulerDiscreteScheduler if is_flow else DDPMScheduler
    scheduler = scheduler_class.from_pretrained(f"{model}/scheduler")
    parameters = trainable(unet)
    initial = {name: value.detach().clone() for name, value in parameters.items()}
    faint = {name: torch.zeros_like(value, dtype=torch.bool) for name, value in parameters.items()}
    optimizer = optimizer_of(parameters.values(), options)
    schedule = get_scheduler(options.get("lr_schedule", "constant"), optimizer,
                             num_warmup_steps=options.get("warmup", 0), num_training_steps=STEPS)
    rows = read_metrics(scratch / "out")
    check([row["step"] for row in rows] == [1, 2, 3], f"logged steps {[row['step'] for row in rows]}")
    check_first_row(rows, objective)
    for step in range(1, STEPS + 1):
        trace = load_file(scratch / "trace" / f"step-{step:06}.safetensors")
        check_step(step, trace, unet, reference, scheduler, options, kappa=0.5 * options.get("beta", 0))
        norm = torch.nn.utils.clip_grad_norm_(parameters.values(), options["max_grad_norm"])
        check_near(trace["grad_norm"], norm, 1e-4, f"step {step} gradient norm")
        for name, value in parameters.items():
            faint[name] |= value.grad.abs() < FAINT * value.grad.abs().max()
        check(abs(rows[step - 1]["lr"] - schedule.get_last_lr()[0]) < 1e-12, f"step {step}: learning rate")
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if isinstance(reference, MovingReference):
            reference.follow(step, unet)
    check(not (scratch / "trace" / f"step-{STEPS + 1:06}.safetensors").exists(), "too many steps are traced")

    if adapter == "lora":
        found = lora_state(scratch / "out" / "pytorch_lora_weights.safetensors")
        parameters = {name.replace(".default.", "."): value for name, value in parameters.items()}
        initial = {name.replace(".default.", "."): value for name, value in initial.items()}
        faint = {name.replace(".default.", "."): value for name, value in faint.items()}
    else:
        found = load_file(scratch / "out" / "unet" / "diffusion_pytorch_model.safetensors")
    check_weights(found, {name: value.detach() for name, value in parameters.items()}, initial, faint)


def bytes_beside_lora(prefusion, world, scratch):
    """Frozen weights of a byte each, in both dtypes, are those of a network whose weights were rounded."""
    for dtype in ("int8", "fp8"):
        (scratch / dtype).mkdir()
        recompute(prefusion, world, scratch / dtype, "epsilon", base_dtype=dtype, target_modules="to_q,to_out.0,ff.net.2,conv1")
    options = dict(model=world / "models" / "epsilon", data=world / "pairs.parquet", output=scratch / "out", steps=1)
    for changes in (dict(adapter="full"), dict(reference="frozen")):
        text = prefusion.run("align", exit_code=2, **options, **changes, base_dtype="int8")
        check("--base-dtype" in text.splitlines()[-1], text)


def started_from_adapter(prefusion, world, scratch):
    """A second run goes on from the first one's adapter, which is the reference's as well."""
    options = dict(model=world / "models" / "epsilon", data=world / "pairs.parquet")
    prefusion.run("align", **options, **COMMON, rank=3, lora_alpha=5, beta=400, output=scratch / "first")
    recompute(prefusion, world, scratch, "epsilon", init_lora=scratch / "first" / "pytorch_lora_weights.safetensors")


def full_start_has_the_adapter(prefusion, world, scratch):
    """Full fine-tuning from an adapter starts, and has its reference, at the merged weights."""
    options = dict(model=world / "models" / "epsilon", data=world / "pairs.parquet")
    prefusion.run("align", **options, **COMMON, rank=3, lora_alpha=5, beta=400, output=scratch / "first")
    lora = scratch / "first" / "pytorch_lora_weights.safetensors"
    still = {**COMMON, "steps": 1, "lr": 0}
    prefusion.run("align", **options, **still, adapter="full", init_lora=lora, output=scratch / "still")
    unet = make_policy(options["model"], lora)
    start = {name: value.clone() for name, value in UNet2DConditionModel.from_pretrained(
        options["model"] / "unet").state_dict().items()}
    unet.fuse_lora()
    unet.unload_lora()
    fused = unet.state_dict()
    found = load_file(scratch / "still" / "unet" / "diffusion_pytorch_model.safetensors")
    moved = max((fused[name] - start[name]).abs().max().item() for name in fused)
    largest = max((found[name] - value).abs().max().item() for name, value in fused.items())
    check(moved > 1e-4 and largest < 1e-3 * moved, f"merged weights differ by {largest}, the adapter moves them by {moved}")
    check_first_row(read_metrics(scratch / "still"), "diffusion-dpo")


def cached_reference(prefusion, world, scratch):
    """Errors computed ahead give the run that computes them on the fly, and a sweep shares the one pass."""
    options = {**COMMON, "steps": 12, "batch_size": 4, "model": world / "models" / "epsilon", "eval_every": 6,
               "data": world / "pairs.parquet", "eval_data": world / "eval.parquet", "cache": scratch / "cache"}
    for adapter in ("lora", "full"):
        for kappa in (100, 500):
            live, cached = scratch / f"live-{adapter}-{kappa}", scratch / f"cached-{adapter}-{kappa}"
            prefusion.run("align", **options, adapter=adapter, kappa=kappa, output=live)
            log = prefusion.run("align", **options, adapter=adapter, kappa=kappa, reference="cached", output=cached)
            check(("computed 0 " in log) == (adapter == "full" or kappa == 500), f"the pass is not shared:\n{log}")
            for row, same in zip(read_metrics(cached), read_metrics(live), strict=True):
                for key in ("loss", "error_chosen_ref", "error_rejected_ref", "eval/loss", "eval/error_chosen_ref"):
                    if key in same:
                        check_near(row[key], same[key], 1e-9, f"step {row['step']} {key}")


def posterior_of(vae, data):
    from torchvision import transforms

    transform = transforms.Compose([
        transforms.Resize(64, interpolation=transforms.InterpolationMode.BILINEAR), transforms.CenterCrop(64),
        transforms.ToTensor(), transforms.Normalize([0.5], [0.5])])
    pixels = transform(Image.open(io.BytesIO(data)).convert("RGB"))
    with torch.no_grad():
        return vae.encode(pixels[None]).latent_dist


def check_traced_data(prefusion, world, scratch, no_cache):
    """Traced text states are those of the records' captions, traced latents draws from their pictures' posteriors."""
    import pyarrow.parquet

    model = world / "models" / "epsilon"
    prefusion.run("align", model=model, data=world / "pairs.parquet", steps=3, batch_size=8, eval_every=0,
                  no_hflip=True, empty_prompt_rate=0, no_cache=no_cache, output=scratch / "out",
                  trace=scratch / "trace", trace_steps=3)
    records = pyarrow.parquet.read_table(world / "pairs.parquet").to_pylist()
    records = [record for record in records if record["label_0"] != 0.5]
    states = encoded_captions(model, [record["caption"] for record in records])
    vae = AutoencoderKL.from_pretrained(f"{model}/vae").eval()
    seen, spreads, wrong_spreads = [], [], []
    for step in range(1, 4):
        trace = load_file(scratch / "trace" / f"step-{step:06}.safetensors")
        for i in range(8):
            distances = (states - trace["encoder_hidden_states"][i]).abs().amax(dim=(1, 2))
            index = distances.argmin().item()
            check(distances[index] < 1e-4, f"text states of no record: {distances[index]}")
            seen.append(index)
            record = records[index]
            chosen_first = record["label_0"] == 1.0
            pair = [record["jpg_0"], record["jpg_1"]] if chosen_first else [record["jpg_1"], record["jpg_0"]]
            for item in range(2):
                latents = trace["latents"][i, item] / vae.config.scaling_factor
                for picture, out in ((pair[item], spreads), (pair[1 - item], wrong_spreads)):
                    posterior = posterior_of(vae, picture)
                    out.append(((latents - posterior.mean[0]) / posterior.std[0]).std().item())
    check(sorted(seen) == list(range(len(records))), "an epoch does not hold every pair once")
    # 256 standard normal numbers have a spread of 1 +- 0.05.
    print(f"  spread of the draws {min(spreads):.2f} .. {max(spreads):.2f}, of exchanged {min(wrong_spreads):.2f} ..")
    check(0.75 < min(spreads) and max(spreads) < 1.25, f"latents are no draws: {min(spreads)} .. {max(spreads)}")
    check(min(wrong_spreads) > 1.3, f"chosen and rejected cannot be told apart: {min(wrong_spreads)}")


main({
    "dpo_lora_epsilon": lambda *a: recompute(*a, "epsilon"),
    "dpo_lora_v_prediction": lambda *a: recompute(*a, "v_prediction", rank=4, lora_alpha=6, lr_schedule="cosine",
                                                  target_modules="to_q,to_out.0,ff.net.2,conv1"),
    "dpo_full_epsilon": lambda *a: recompute(*a, "epsilon", adapter="full", lr_schedule="linear"),
    "dpo_full_v_prediction": lambda *a: recompute(*a, "v_prediction", adapter="full", no_cache=True),
    "dpo_checkpointed": lambda *a: recompute(*a, "epsilon", adapter="full", gradient_checkpointing=True),
    "dpo_lora_ema_reference": lambda *a: recompute(*a, "epsilon", reference="ema:0.6"),
    "dpo_full_refreshed_reference": lambda *a: recompute(*a, "epsilon", adapter="full", reference="refresh:2:0.7"),
    "dpo_lora_extrapolated_reference": lambda *a: recompute(*a, "v_prediction", reference="extrapolated:-0.5"),
    "dpo_full_adafactor": lambda *a: recompute(*a, "epsilon", adapter="full", optimizer="adafactor", lr_schedule="cosine"),
    "dpo_bytes_beside_lora": bytes_beside_lora,
    "dpo_lora_flow": lambda *a: recompute_flow(*a, shift=3.0, timestep_sampling="logit-normal"),
    "sft_full_flow": lambda *a: recompute_flow(*a, shift=1.0, objective="sft", adapter="full", timestep_range="600:1000"),
    "refused_flow": refused_flow,
    "started_from_adapter": started_from_adapter,
    "full_start_has_the_adapter": full_start_has_the_adapter,
    "cached_reference": cached_reference,
    "sft_full_epsilon": lambda *a: recompute(*a, "epsilon", objective="sft", adapter="full"),
    "sft_lora_v_prediction": lambda *a: recompute(*a, "v_prediction", objective="sft"),
    "cached_data": lambda *a: check_traced_data(*a, no_cache=False),
    "live_data": lambda *a: check_traced_data(*a, no_cache=True),
})
