"""Loads what `prefusion align` wrote with diffusers and compares pictures with `prefusion generate`.

outputs.py BINARY WORLD CASE, with WORLD from make_sd_world.py.
"""

import json
import math

from support import check, main

import numpy
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from diffusers.utils import logging
from PIL import Image

logging.set_verbosity_error()
torch.set_num_threads(1)

PROMPT = "a red circle near the river"
SAMPLING = dict(steps=6, guidance_scale=4.0, scheduler="ddim", seed=11)


def psnr(a, b):
    difference = numpy.mean((a.astype(float) - b.astype(float)) ** 2)
    return 99.0 if difference == 0 else 10 * math.log10(255**2 / difference)


def picture_of_diffusers(model, lora=None):
    pipeline = StableDiffusionPipeline.from_pretrained(model, safety_checker=None, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    if lora:
        pipeline.load_lora_weights(lora, weight_name="pytorch_lora_weights.safetensors")
    generator = torch.Generator("cpu").manual_seed(SAMPLING["seed"])
    image = pipeline(PROMPT, num_inference_steps=SAMPLING["steps"], guidance_scale=SAMPLING["guidance_scale"],
                     generator=generator).images[0]
    return numpy.asarray(image)


def picture_of_prefusion(prefusion, scratch, **options):
    prefusion.run("generate", prompt=PROMPT, output=scratch / "picture.png", **SAMPLING, **options)
    return numpy.asarray(Image.open(scratch / "picture.png"))


def check_pictures(found, expected, start):
    ratio, change = psnr(found, expected), psnr(expected, start)
    print(f"  PSNR {ratio:.1f} dB to diffusers, {change:.1f} dB to the starting model")
    check(ratio > 50, f"PSNR {ratio:.1f} dB")
    check(change < 40, f"the training hardly shows ({change:.1f} dB), so nothing is tested")


def align(prefusion, world, scratch, model, **options):
    defaults = dict(steps=8, batch_size=4, lr=2e-2, eval_every=0, kappa=2000, output=scratch / "out", spike_factor=0)
    prefusion.run("align", model=model, data=world / "pairs.parquet", **{**defaults, **options})
    return scratch / "out"


def lora_loads(prefusion, world, scratch, model_name, **options):
    model = world / "models" / model_name
    out = align(prefusion, world, scratch, model, **options)
    found = picture_of_prefusion(prefusion, scratch, model=model, lora=out)
    check_pictures(found, picture_of_diffusers(model, lora=out), picture_of_diffusers(model))


def kohya_lora_loads(prefusion, world, scratch):
    model = world / "models" / "epsilon"
    out = align(prefusion, world, scratch, model, lora_format="kohya", rank=4, lora_alpha=6)
    lora = next(out.glob("*.safetensors"))
    found = picture_of_prefusion(prefusion, scratch, model=model, lora=lora)
    check_pictures(found, picture_of_diffusers(model, lora=out), picture_of_diffusers(model))


def model_loads(prefusion, world, scratch, model_name, **options):
    model = world / "models" / model_name
    out = align(prefusion, world, scratch, model, adapter="full", lr=3e-3, **options)
    check_pictures(picture_of_prefusion(prefusion, scratch, model=out), picture_of_diffusers(out),
                   picture_of_diffusers(model))


def output_folder_is_complete(prefusion, world, scratch):
    out = align(prefusion, world, scratch, world / "models" / "epsilon", eval_every=4, log_every=1,
                eval_data=world / "eval.parquet", sample_every=8, sample_prompts=world / "prompts.txt", sample_steps=2)
    for name in ("pytorch_lora_weights.safetensors", "run.toml", "metrics.jsonl", "report.html", "README.md",
                 "samples/step-000008/000.png", "samples/step-000008/001.png", "checkpoints/step-000008/state.json"):
        check((out / name).is_file(), f"{name} is missing")
    check(list(out.glob("events.out.tfevents.*")), "there are no TensorBoard events")
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    check([row["step"] for row in rows] == list(range(9)), f"steps {[row['step'] for row in rows]}")
    keys = {"step", "epoch", "loss", "lr", "grad_norm", "seconds_per_step", "samples_per_second", "accuracy", "margin",
            "error_chosen", "error_rejected", "error_chosen_ref", "error_rejected_ref"}
    check(keys <= rows[1].keys(), f"metrics.jsonl lacks {keys - rows[1].keys()}")
    parts = {key: value for key, value in rows[5].items() if key.startswith("time/")}
    check({"time/policy", "time/reference", "time/backward", "time/optimizer", "time/data"} <= parts.keys(), f"parts {parts}")
    check(abs(sum(parts.values()) - rows[5]["seconds_per_step"]) < 0.02 * rows[5]["seconds_per_step"] + 1e-3,
          f"parts {parts} are not the {rows[5]['seconds_per_step']} s of the step")
    check(rows[5]["tflops"] > 0, "no operations were counted")
    check({"eval/loss", "eval/accuracy", "eval/margin"} <= rows[8].keys(), f"no held-out metrics: {rows[8].keys()}")
    page = (out / "report.html").read_text()
    check("<svg" in page and "data:image/png;base64," in page and "http" not in page.replace("http://www.w3.org", ""),
          "report.html does not stand alone")
    # The written configuration repeats the run.
    again = scratch / "again"
    prefusion.run("align", config=out / "run.toml", output=again)
    check((again / "pytorch_lora_weights.safetensors").read_bytes()
          == (out / "pytorch_lora_weights.safetensors").read_bytes(), "run.toml does not repeat the run")


main({
    "lora": lambda *a: lora_loads(*a, "epsilon"),
    "lora_with_alpha": lambda *a: lora_loads(*a, "v_prediction", rank=4, lora_alpha=6, ema=0.9,
                                             target_modules="to_q,to_out.0,conv1,proj_in"),
    "lora_kohya": kohya_lora_loads,
    "full": lambda *a: model_loads(*a, "epsilon"),
    "full_with_average": lambda *a: model_loads(*a, "v_prediction", ema=0.9),
    "folder": output_folder_is_complete,
})
