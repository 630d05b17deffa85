"""Runs of `prefusion align --train-text-encoder`, recomputed with diffusers, transformers, PEFT and torch.

text_encoder.py BINARY WORLD CASE, with WORLD from make_sd_world.py and WORLD/families from make_families.py.
"""

import json

from families import PROMPT, check_inputs, load, lora_weights, psnr
from support import check, check_near, main, read_metrics

import numpy
import pyarrow.parquet
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.utils import set_peft_model_state_dict
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

RANK, ALPHA = 2, 3.0
LR, KAPPA, STEPS = 1e-2, 200, 3
ENCODERS = ("text_encoder", "text_encoder_2")


def folder_of(world, name):
    return world / "families" / "models" / name if name == "sdxl" else world / "models" / "epsilon"


def options_of(world, name, **changes):
    return {**dict(model=folder_of(world, name), data=world / "pairs.parquet", batch_size=3, lr=LR, kappa=KAPPA, rank=3,
                   eval_every=0, log_every=1, seed=3, empty_prompt_rate=0.3, resolution=64, weight_decay=0.1,
                   max_grad_norm=0.5, train_text_encoder=True, text_encoder_rank=RANK, text_encoder_alpha=ALPHA), **changes}


def encode(name, pipeline, captions):
    """States and pooled states, with gradients where something asks for them."""
    if name == "sdxl":
        states, _, pooled, _ = pipeline.encode_prompt(captions, prompt_2=captions, do_classifier_free_guidance=False)
        return states, pooled
    return pipeline.encode_prompt(captions, "cpu", 1, False)[0], None


def add_text_lora(encoder, folder, component):
    """An adapter of a run on a text encoder, by PEFT; returns its parameters by their names in the file."""
    inject_adapter_in_model(LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["q_proj", "k_proj", "v_proj", "out_proj"]),
                            encoder)
    weights = {key: value for key, value in lora_weights(folder / "pytorch_lora_weights.safetensors", component).items()
               if not key.startswith(("unet.", *(other + "." for other in ENCODERS if other != component)))}
    nested = any(key.startswith("text_model.") for key, _ in encoder.named_modules())
    renamed = {key if nested else key.removeprefix("text_model."): value for key, value in weights.items()}
    result = set_peft_model_state_dict(encoder, renamed)
    check(not result.unexpected_keys, f"keys PEFT does not know: {result.unexpected_keys[:3]}")
    check(len(renamed) == sum("lora_" in key for key, _ in encoder.named_parameters()), f"{component}: keys are missing")
    prefix = component + "." + ("" if nested else "text_model.")
    return {prefix + key.replace(".default.", "."): parameter for key, parameter in encoder.named_parameters()
            if "lora_" in key}


def trained_pipeline(world, name, start):
    """The pipeline with the adapters a run starts from, and their parameters by their names in the file."""
    pipeline = load(folder_of(world, name))
    for component in ("unet", "vae", *ENCODERS):
        if hasattr(pipeline, component):
            getattr(pipeline, component).requires_grad_(False)
    weights = load_file(start / "pytorch_lora_weights.safetensors")
    inject_adapter_in_model(LoraConfig(r=3, lora_alpha=3, target_modules=["to_q", "to_k", "to_v", "to_out.0"]), pipeline.unet)
    set_peft_model_state_dict(pipeline.unet, {key.removeprefix("unet."): value for key, value in weights.items()
                                              if key.startswith("unet.")})
    parameters = {"unet." + key.replace(".default.", "."): parameter
                  for key, parameter in pipeline.unet.named_parameters() if "lora_" in key}
    for component in ENCODERS:
        if getattr(pipeline, component, None) is not None:
            parameters |= add_text_lora(getattr(pipeline, component), start, component)
    check(parameters.keys() == weights.keys(), f"keys differ: {sorted(parameters.keys() ^ weights.keys())[:4]}")
    return pipeline, parameters


def predict(name, unet, trace, timesteps, states, pooled):
    k = trace["timesteps"].shape[1]
    added = {}
    if name == "sdxl":
        ids = trace["time_ids"].flatten(0, 1).float()
        added = dict(added_cond_kwargs={"text_embeds": pooled.repeat_interleave(k, 0), "time_ids": ids})
    return unet(trace["noisy_latents"].flatten(0, 1), timesteps, states.repeat_interleave(k, 0), **added).sample


def steps(prefusion, world, scratch, name, **changes):
    """Loss, gradients and updates of all adapters, the reference under the text encoders of the start."""
    options = options_of(world, name, **changes)
    prefusion.run("align", **options, steps=STEPS, output=scratch / "out", trace=scratch / "trace", trace_steps=STEPS)
    prefusion.run("align", **{**options, "lr": 0}, steps=1, output=scratch / "start")
    start = load(folder_of(world, name))
    pipeline, parameters = trained_pipeline(world, name, scratch / "start")
    captions = pyarrow.parquet.read_table(world / "pairs.parquet", columns=["caption"])["caption"].to_pylist() + [""]
    with torch.no_grad():
        start_states, start_pooled = encode(name, start, captions)
    initial = {key: value.detach().clone() for key, value in parameters.items()}
    optimizer = torch.optim.AdamW(parameters.values(), lr=LR, weight_decay=0.1)
    for step in range(1, STEPS + 1):
        trace = load_file(scratch / "trace" / f"step-{step:06}.safetensors")
        timesteps = check_inputs(start, trace)
        found = [(start_states - row).abs().flatten(1).amax(dim=1).argmin().item() for row in trace["encoder_hidden_states_ref"]]
        check_near(trace["encoder_hidden_states_ref"], start_states[found], 1e-5, f"step {step}: states of the start")
        states, pooled = encode(name, pipeline, [captions[index] for index in found])
        check_near(trace["encoder_hidden_states"], states.detach(), 1e-5, f"step {step}: states")
        pooled_ref = None
        if name == "sdxl":
            pooled_ref = start_pooled[found]
            check_near(trace["pooled"], pooled.detach(), 1e-5, f"step {step}: pooled")
            check_near(trace["pooled_ref"], pooled_ref, 1e-5, f"step {step}: pooled of the start")
        target = trace["target"].flatten(0, 1)
        errors = lambda prediction: (prediction - target).pow(2).mean(dim=(1, 2, 3)).view(trace["timesteps"].shape)
        error = errors(predict(name, pipeline.unet, trace, timesteps, states, pooled))
        with torch.no_grad():
            error_ref = errors(predict(name, start.unet, trace, timesteps, start_states[found], pooled_ref))
        check_near(trace["error"], error.detach(), 1e-5, f"step {step}: error")
        check_near(trace["error_ref"], error_ref, 1e-5, f"step {step}: error_ref")
        score = error_ref - error
        loss = -torch.nn.functional.logsigmoid(KAPPA * (score[:, 0] - score[:, 1])).mean()
        check_near(trace["loss"], loss.detach(), 1e-4, f"step {step}: loss")
        loss.backward()
        text_norm = sum(p.grad.pow(2).sum() for key, p in parameters.items() if "text_" in key and p.grad is not None).sqrt()
        norm = torch.nn.utils.clip_grad_norm_(parameters.values(), 0.5)
        check(text_norm > 1e-3 * norm, f"the text encoders' share of the gradient is {text_norm / norm}: it tells nothing")
        check_near(trace["grad_norm"], norm, 2e-4, f"step {step}: gradient norm")
        optimizer.step()
        optimizer.zero_grad()
    rows = read_metrics(scratch / "out")
    check(abs(rows[0]["loss"] - 0.6931472) < 1e-6 and rows[0]["margin"] == 0, "policy and reference differ at the start")
    weights = load_file(scratch / "out" / "pytorch_lora_weights.safetensors")
    for part in ("unet.", "text_encoder.", *(["text_encoder_2."] if name == "sdxl" else [])):
        keys = [key for key in weights if key.startswith(part)]
        moved = sum((parameters[key].detach() - initial[key]).pow(2).sum() for key in keys).sqrt()
        error = sum((weights[key] - parameters[key].detach()).pow(2).sum() for key in keys).sqrt()
        print(f"  {part} updates: relative error {error / moved:.1e}")
        check(moved > 0 and error < 2e-3 * moved, f"{part} updates differ by a share of {error / moved}")


def picture(prefusion, world, scratch, name):
    """The result makes the same picture in diffusers, with all its adapters, here and there; samples show it too."""
    prompts = scratch / "prompts.txt"
    prompts.write_text(PROMPT + "\n")
    prefusion.run("align", **options_of(world, name), steps=4, output=scratch / "out", sample_every=4, sample_prompts=prompts,
                  sample_steps=2, sample_guidance=3.5)
    with safe_open(scratch / "out" / "pytorch_lora_weights.safetensors", "pt") as file:
        described = json.loads(file.metadata()["lora_adapter_metadata"])
        without = {key: file.get_tensor(key) for key in file.keys() if key.startswith("unet.")}
    check(described["text_encoder.r"] == RANK and described["text_encoder.lora_alpha"] == ALPHA, f"metadata {described}")
    arguments = dict(num_inference_steps=2, guidance_scale=3.5, height=64, width=64)
    generator = lambda: torch.Generator("cpu").manual_seed(4)
    pipeline = load(folder_of(world, name))
    pipeline.load_lora_weights(scratch / "out")
    expected = numpy.array(pipeline(PROMPT, generator=generator(), **arguments).images[0])
    pipeline = load(folder_of(world, name))
    pipeline.load_lora_weights(without)
    unet_alone = numpy.array(pipeline(PROMPT, generator=generator(), **arguments).images[0])
    output = scratch / "picture.png"
    prefusion.run("generate", model=folder_of(world, name), prompt=PROMPT, lora=scratch / "out", output=output, steps=2,
                  guidance_scale=3.5, seed=4, height=64, width=64)
    quality, other = psnr(numpy.array(Image.open(output)), expected), psnr(unet_alone, expected)
    print(f"  {quality:.1f} dB from diffusers, which is {other:.1f} dB from the UNet's adapter alone")
    check(quality > 50 and other < 50, f"{quality:.1f} dB from diffusers, the UNet's adapter alone {other:.1f} dB")
    sample = scratch / "sample.png"
    prefusion.run("generate", model=folder_of(world, name), prompt=PROMPT, lora=scratch / "out", output=sample, steps=2,
                  guidance_scale=3.5, seed=3)
    found = numpy.array(Image.open(scratch / "out" / "samples" / "step-000004" / "000.png"))
    check(psnr(found, numpy.array(Image.open(sample))) > 45, "the sample of the run is another picture")


def resumed(prefusion, world, scratch):
    for more in (dict(ema=0.9), dict(no_cache=True, gradient_checkpointing=True)):
        options = options_of(world, "sdxl", eval_every=2, eval_data=world / "eval.parquet", **more)
        whole, parts = scratch / f"whole-{len(more)}", scratch / f"parts-{len(more)}"
        prefusion.run("align", **options, steps=5, output=whole)
        prefusion.run("align", **options, steps=2, output=parts)
        prefusion.run("align", **options, steps=5, output=parts, resume="auto")
        weights = [(folder / "pytorch_lora_weights.safetensors").read_bytes() for folder in (whole, parts)]
        check(weights[0] == weights[1], f"{more}: weights differ")
        rows = [[row for row in read_metrics(folder) if "eval/loss" in row] for folder in (whole, parts)]
        check(len(rows[0]) > 2 and rows[0][-1]["eval/loss"] == rows[1][-1]["eval/loss"], "measurements differ")
        check(rows[0][-1]["eval/loss"] != rows[0][0]["eval/loss"], "nothing was learnt")
    text = prefusion.run("align", exit_code=2, **{**options, "text_encoder_rank": 1}, steps=5, output=parts, resume="auto")
    check("text_encoder_rank" in text.splitlines()[-1], text)


def refusals(prefusion, world, scratch):
    flux = world / "families" / "models" / "flux"
    for changes, words in ((dict(adapter="full"), "needs --adapter lora"), (dict(reference="cached"), "the start"),
                           (dict(reference="ema:0.9"), "the start"), (dict(init_lora=world), "leave --init-lora out"),
                           (dict(reference_model=world / "models" / "epsilon_other"), "--reference-model"),
                           (dict(train_text_encoder=None), "need --train-text-encoder"), (dict(model=flux), "flux")):
        options = options_of(world, "sd", **changes)
        if "init_lora" in changes:
            options["rank"] = None
        text = prefusion.run("align", exit_code=2, **options, steps=1, output=scratch / "out")
        check(words in text.splitlines()[-1], f"{changes}: {text}")


def each(case, *settings):
    """The case with each of the settings, in a folder of its own."""
    def run(prefusion, world, scratch):
        for number, (name, changes) in enumerate(settings):
            folder = scratch / str(number)
            folder.mkdir()
            case(prefusion, world, folder, name, **changes)
    return run


main({"steps": each(steps, ("sd", {}), ("sdxl", {}), ("sdxl", dict(gradient_checkpointing=True, no_cache=True))),
      "pictures": each(picture, ("sd", {}), ("sdxl", {})), "resumed": resumed, "refusals": refusals})
