"""Pictures and training steps of class-conditional DiT, as diffusers makes them from the same folders.

dit.py BINARY WORLD CASE, with WORLD from make_sd_world.py.
"""

import json
import subprocess
import unittest.mock

from families import CLASS, align, expected_picture, load, psnr, put_back, white_latents
from support import check, main

import numpy
import pyarrow
import pyarrow.parquet
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel, DPMSolverMultistepScheduler, PNDMScheduler
from PIL import Image

LABELS = {"7": "cock", "134": "crane", "388": "giant panda, panda, panda bear", "517": "crane"}
SIZES = dict(num_attention_heads=3, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2, sample_size=8,
             num_embeds_ada_norm=1000)
LINEAR = dict(beta_start=0.0001, beta_end=0.02, beta_schedule="linear")
# name -> (changes of the transformer, scheduler, prompts, scales of guidance); diffusers guides models of 1000 classes alone
MODELS = {
    "dit": ({}, DDIMScheduler(**LINEAR, clip_sample=False), [CLASS, "crane", "0"], [4.0, 1.0]),
    "dit_no_variance": (dict(out_channels=4, num_layers=3), DDIMScheduler(**LINEAR, clip_sample=False), ["999"], [4.0]),
    "dit_seven": (dict(num_embeds_ada_norm=7), DPMSolverMultistepScheduler(**LINEAR), ["6", ""], [1.0]),
    "dit_patch": (dict(patch_size=4, num_attention_heads=2, attention_head_dim=14), PNDMScheduler(**LINEAR), ["panda"], [2.5]),
    "dit_v": (dict(patch_size=1, norm_elementwise_affine=True, norm_eps=1e-3),
              DDIMScheduler(**LINEAR, clip_sample=False, prediction_type="v_prediction"), ["cock"], [3.0]),
    "dit_layers": (dict(activation_fn="geglu", attention_bias=False), DDIMScheduler(**LINEAR, clip_sample=True), ["388"], [4.0]),
    "dit_old": (dict(num_layers=1), DDIMScheduler(**LINEAR, clip_sample=False), ["388"], [4.0]),
}


def make_model(folder, name):
    changes, scheduler, _, _ = MODELS[name]
    torch.manual_seed(len(name))
    vae = AutoencoderKL(block_out_channels=(8, 16, 16, 16), down_block_types=("DownEncoderBlock2D",) * 4, layers_per_block=1,
                        up_block_types=("UpDecoderBlock2D",) * 4, norm_num_groups=8, sample_size=64, scaling_factor=0.2)
    transformer = DiTTransformer2DModel(**{**SIZES, **changes})
    with torch.no_grad():
        for weight in [*transformer.parameters(), *vae.parameters()]:
            if weight.dim() == 1:
                weight.add_(0.2 * torch.randn(weight.shape))
        vae.quant_conv.weight[:4].mul_(8.0)
        vae.quant_conv.bias[4:].fill_(-5.0)
    DiTPipeline(transformer=transformer.eval(), vae=vae.eval(), scheduler=scheduler).save_pretrained(folder)
    index = json.loads((folder / "model_index.json").read_text())
    if name != "dit_seven":
        index["id2label"] = LABELS
    if name == "dit_old":  # as folders were before the class had a name of its own
        index["transformer"] = ["diffusers", "Transformer2DModel"]
        config = json.loads((folder / "transformer" / "config.json").read_text())
        config |= dict(_class_name="Transformer2DModel", cross_attention_dim=None, num_vector_embeds=None,
                       only_cross_attention=False, use_linear_projection=False)
        (folder / "transformer" / "config.json").write_text(json.dumps(config))
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def pictures(prefusion, world, scratch):
    """Every model, by names and by numbers of classes, with and without guidance."""
    for name, (_, _, prompts, scales) in MODELS.items():
        folder = make_model(scratch / name, name)
        inspected = subprocess.run([prefusion.binary, "inspect", str(folder)], capture_output=True, text=True)
        check(inspected.returncode == 0 and "not checked" not in inspected.stdout, f"inspect: {inspected.stdout}{inspected.stderr}")
        pipeline = load(folder)
        for prompt in prompts:
            for scale in scales:
                settings = dict(steps=4, guidance_scale=scale, seed=11, prompt=prompt)
                output = scratch / "picture.png"
                prefusion.run("generate", model=folder, output=output, **settings)
                found = numpy.array(Image.open(output))
                quality = psnr(found, expected_picture(name, pipeline, settings))
                print(f"  {name}, {settings}: {quality:.1f} dB")
                check(quality > 50, f"{name} with {settings}: {quality:.1f} dB")
                check(found.std() > 5, "the picture is flat: the comparison tells nothing")
    repainted(prefusion, scratch, scratch / "dit")


def repainted(prefusion, scratch, folder):
    """diffusers has no such pipeline: what is outside the mask is put back by the scheduler."""
    random = numpy.random.default_rng(1)
    Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=numpy.uint8)).resize((64, 64), Image.BICUBIC).save(scratch / "start.png")
    Image.fromarray(numpy.uint8(255 * (numpy.arange(64)[:, None] + numpy.arange(64) < 60))).save(scratch / "mask.png")
    pipeline = load(folder)
    generator = torch.Generator().manual_seed(11)
    pixels = torch.tensor(numpy.array(Image.open(scratch / "start.png"))).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        latents = pipeline.vae.encode(pixels).latent_dist.sample(generator) * pipeline.vae.config.scaling_factor
    noise = torch.randn(latents.shape, generator=generator)
    put_back(pipeline.scheduler, latents, noise, white_latents(scratch / "mask.png"))
    settings = dict(steps=4, guidance_scale=4.0, seed=11, prompt=CLASS)
    with unittest.mock.patch("diffusers.pipelines.dit.pipeline_dit.randn_tensor", return_value=noise):
        expected = expected_picture("dit", pipeline, settings)
    prefusion.run("generate", model=folder, output=scratch / "picture.png", init_image=scratch / "start.png",
                  mask_image=scratch / "mask.png", **settings)
    quality = psnr(numpy.array(Image.open(scratch / "picture.png")), expected)
    print(f"  dit, repainted: {quality:.1f} dB")
    check(quality > 50, f"dit, repainted: {quality:.1f} dB")


def steps(prefusion, world, scratch):
    """Diffusion-DPO on pairs whose captions are classes, recomputed."""
    table = pyarrow.parquet.read_table(world / "pairs.parquet")
    names = ["cock", "crane", CLASS, "3"]
    captions = pyarrow.array([names[row % len(names)] for row in range(table.num_rows)])
    data = scratch / "pairs.parquet"
    pyarrow.parquet.write_table(table.set_column(table.schema.get_field_index("caption"), "caption", captions), data)
    align(prefusion, world, scratch, "dit", make_model(scratch / "model", "dit"), data)


def refusals(prefusion, world, scratch):
    folder = make_model(scratch / "model", "dit")
    options = dict(model=folder, output=scratch / "out.png", steps=1)
    for prompt in ("a red circle", "1000", "Crane"):
        text = prefusion.run("generate", exit_code=3, **options, prompt=prompt)
        check(prompt in text.splitlines()[-1] and "from 0 to 999" in text.splitlines()[-1], text)
    text = prefusion.run("generate", exit_code=2, **options, prompt="7", long_prompts="chunk")
    check("--long-prompts" in text.splitlines()[-1], text)
    training = dict(model=folder, data=world / "pairs.parquet", output=scratch / "run", steps=1)
    text = prefusion.run("align", exit_code=3, **training)
    check("is no class" in text.splitlines()[-1], text)
    text = prefusion.run("align", exit_code=2, **training, train_text_encoder=True)
    check("--train-text-encoder" in text.splitlines()[-1], text)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"id2label": {"1000": "cat"}}))
    text = prefusion.run("generate", exit_code=3, **options, prompt="7")
    check("id2label" in text.splitlines()[-1], text)


if __name__ == "__main__":
    main({"pictures": pictures, "steps": steps, "refusals": refusals})
