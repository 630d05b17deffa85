"""Pictures made from pictures, as the img2img and inpainting pipelines of diffusers make them from the same folders.

start_pictures.py BINARY WORLD CASE, with WORLD from make_sd_world.py and WORLD/families from make_families.py.
"""

import inspect
import json

from families import PROMPT, denoiser_name, load, psnr, put_back, white_latents
from support import check, main

import numpy
import torch
from diffusers import (
    EulerAncestralDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    FluxFillPipeline,
    FluxImg2ImgPipeline,
    FluxInpaintPipeline,
    FluxTransformer2DModel,
    HeunDiscreteScheduler,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3InpaintPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    UNet2DConditionModel,
)
from PIL import Image, ImageOps

SCHEDULERS = {"auto": None, "euler-ancestral": EulerAncestralDiscreteScheduler, "heun": HeunDiscreteScheduler, "pndm": PNDMScheduler,
              "flow-heun": FlowMatchHeunDiscreteScheduler}


def blobs(width, height, seed, mode="RGB"):
    random = numpy.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (4, 5, len(mode)), dtype=numpy.uint8).squeeze(), mode)
    return small.resize((width, height), Image.BICUBIC)


def as_rgb(path):
    return ImageOps.exif_transpose(Image.open(path)).convert("RGB")


def files(scratch):
    """Start pictures and masks in all the ways they come."""
    blobs(75, 69, 1).save(scratch / "plain.png")
    blobs(64, 64, 2, "RGBA").save(scratch / "alpha.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    blobs(90, 70, 3).save(scratch / "turned.jpg", exif=exif, quality=95)
    Image.fromarray(numpy.linspace(0, 65535, 64 * 72).reshape(64, 72).astype(numpy.uint16)).save(scratch / "deep.png")
    y, x = numpy.mgrid[:64, :64]
    disc = numpy.uint8(255 * numpy.clip(1.6 - numpy.hypot(x - 36, y - 28) / 18, 0, 1))
    Image.fromarray(disc).save(scratch / "mask.png")
    colours = numpy.stack([disc, disc[::-1], disc.T], axis=2)
    Image.fromarray(colours).resize((130, 100), Image.BICUBIC).save(scratch / "mask_colour.png")
    half = numpy.where(x < 30, 255, 20).astype(numpy.uint8)  # alpha weighs in the resize, then it is dropped
    Image.fromarray(numpy.dstack([colours, half])).resize((72, 90), Image.BICUBIC).save(scratch / "mask_alpha.png")
    Image.fromarray(disc.astype(numpy.uint16) * 256 + 77).save(scratch / "mask_deep.png")


def check_same(prefusion, scratch, pipeline, folder, settings, told, files_given, where):
    """`settings` are those of the command line, `told` is what the pipeline is told instead of them."""
    output = scratch / "found.png"
    prefusion.run("generate", model=folder, prompt=PROMPT, output=output, **settings, **files_given)
    before = pipeline.scheduler
    if cls := SCHEDULERS[settings.get("scheduler", "auto")]:
        pipeline.scheduler = cls.from_config(pipeline.scheduler.config)
    arguments = {key: settings[key] for key in ("guidance_scale", "strength", "negative_prompt") if key in settings}
    expected = pipeline(prompt=PROMPT, num_inference_steps=settings["steps"], **arguments, **told,
                        generator=torch.Generator("cpu").manual_seed(settings["seed"])).images[0]
    pipeline.scheduler = before
    found = numpy.array(Image.open(output))
    quality = psnr(found, numpy.array(expected))
    print(f"  {where} {settings}: {quality:.1f} dB")
    check(quality > 50, f"{where} with {settings}: {quality:.1f} dB")
    return found


def from_components(cls, components):
    wanted = inspect.signature(cls.__init__).parameters
    pipeline = cls(**{name: part for name, part in components.items() if name in wanted})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def from_folder(cls, folder):
    return from_components(cls, load(folder).components)


def as_mask(path):
    """16 bits are cut to the upper 8."""
    mask = Image.open(path)
    return Image.fromarray((numpy.array(mask) >> 8).astype(numpy.uint8)) if mask.mode.startswith("I") else mask


def model_folder(world, name):
    return world / "models" / name if name in ("epsilon", "v_prediction") else world / "families" / "models" / name


IMG2IMG = {
    "epsilon": StableDiffusionImg2ImgPipeline, "sdxl": StableDiffusionXLImg2ImgPipeline, "sd35": StableDiffusion3Img2ImgPipeline,
    "flux": FluxImg2ImgPipeline,
}


def img2img(prefusion, world, scratch, name):
    files(scratch)
    folder = model_folder(world, name)
    pipeline = from_folder(IMG2IMG[name], folder)
    takes_size = name.startswith(("sd3", "flux"))
    runs = [
        dict(file="plain.png", steps=5, strength=0.6, guidance_scale=4.5, seed=11),
        dict(file="alpha.png", steps=4, strength=0.9, guidance_scale=1.0, seed=2),
        dict(file="turned.jpg", steps=3, strength=1.0, guidance_scale=3.0, seed=7),
    ]
    if name != "epsilon":  # what samplers do is compared in tests/schedulers
        runs = runs[:2]
    else:
        runs += [dict(file="plain.png", steps=6, strength=0.45, guidance_scale=5.0, seed=3, scheduler=scheduler,
                      negative_prompt="dogs, highly detailed") for scheduler in ("euler-ancestral", "heun", "pndm")]
    for settings in runs:
        picture = as_rgb(scratch / settings["file"])
        file = settings.pop("file")
        told = dict(image=picture)
        if takes_size:  # these pipelines go to the model's size by themselves, which is large
            settings |= dict(height=64, width=96)
            told |= dict(height=64, width=96)
        found = check_same(prefusion, scratch, pipeline, folder, settings, told, dict(init_image=scratch / file), file)
        check(takes_size or found.shape[:2] == (picture.height // 8 * 8, picture.width // 8 * 8), f"size {found.shape}")
    check(found.std() > 5, "the picture is flat: the comparison tells nothing")


def pixart(prefusion, world, scratch):
    """diffusers has no such pipelines, but one that goes on from latents at given timesteps."""
    files(scratch)
    folder = model_folder(world, "pixart")
    for strength, mask in ((0.6, None), (0.6, "mask.png"), (1.0, "mask_colour.png")):
        pipeline = load(folder)
        generator = torch.Generator().manual_seed(12)
        pixels = pipeline.image_processor.preprocess(as_rgb(scratch / "plain.png"), height=64, width=64)
        scheduler = pipeline.scheduler
        scheduler.set_timesteps(5)
        timesteps = scheduler.timesteps[5 - int(5 * strength):]
        with torch.no_grad():
            latents = pipeline.vae.encode(pixels).latent_dist.sample(generator) * pipeline.vae.config.scaling_factor
        noise = torch.randn(latents.shape, generator=generator)
        noisy = noise if strength == 1 else scheduler.add_noise(latents, noise, timesteps[:1])
        if mask:
            put_back(scheduler, latents, noise, white_latents(scratch / mask))
        expected = pipeline(PROMPT, timesteps=timesteps.tolist(), latents=noisy, guidance_scale=4.5, height=64, width=64,
                            use_resolution_binning=False).images[0]
        given = dict(mask_image=scratch / mask) if mask else {}
        prefusion.run("generate", model=folder, prompt=PROMPT, steps=5, strength=strength, guidance_scale=4.5, seed=12, height=64,
                      width=64, init_image=scratch / "plain.png", **given, output=scratch / "found.png")
        quality = psnr(numpy.array(Image.open(scratch / "found.png")), numpy.array(expected))
        print(f"  pixart, {strength}, {mask}: {quality:.1f} dB")
        check(quality > 50, f"pixart, {strength}, {mask}: {quality:.1f} dB")


# Pipelines of ordinary denoisers, and of those that are told the mask and the masked picture.
INPAINT = {"epsilon": StableDiffusionInpaintPipeline, "sdxl": StableDiffusionXLInpaintPipeline, "sd3": StableDiffusion3InpaintPipeline,
           "sd35": StableDiffusion3InpaintPipeline, "flux": FluxInpaintPipeline, "flux_schnell": FluxInpaintPipeline}
WIDE_INPAINT = {**INPAINT, "flux": FluxFillPipeline}


def wide_denoiser(name, base):
    if name == "sd35":
        return SD3Transformer2DModel.from_config(base.transformer.config, in_channels=2 * 16 + 1, out_channels=16)
    if name == "flux":  # tokens of 2 x 2 latent pixels, each with a mask of 8 x 8
        return FluxTransformer2DModel.from_config(base.transformer.config, in_channels=4 * (4 + 4 + 64), out_channels=4 * 4)
    return UNet2DConditionModel.from_config(base.unet.config, in_channels=9)


def inpainting_model(world, scratch, name):
    """An ordinary model whose denoiser takes the mask and the masked picture too."""
    base = load(model_folder(world, name))
    torch.manual_seed(5)
    wide = wide_denoiser(name, base)
    with torch.no_grad():
        for weight in wide.parameters():
            if weight.abs().max() == 0:
                weight.normal_(std=0.2)
    pipeline = from_components(WIDE_INPAINT[name], {**base.components, denoiser_name(base): wide.eval()})
    pipeline.save_pretrained(scratch / "wide")
    return pipeline, scratch / "wide"


def inpaint_runs(name, is_wide):
    runs = [
        dict(mask="mask.png", steps=4, strength=1.0, guidance_scale=4.5, seed=11),
        dict(mask="mask_colour.png", steps=5, strength=0.7, guidance_scale=3.0, seed=2**33, height=72, width=56),
    ]
    if name in ("sd3", "sd35", "flux", "flux_schnell"):  # sides of whole tokens; FLUX's are 16 pixels
        runs[1] |= dict(height=80, width=48)
    if is_wide:
        return runs
    more = {
        "epsilon": [dict(mask="mask.png", steps=5, strength=0.5, guidance_scale=1.0, seed=5, scheduler="euler-ancestral"),
                    dict(mask="mask.png", steps=4, strength=0.75, guidance_scale=3.0, seed=5, scheduler="heun")],
        "sd3": [dict(mask="mask_alpha.png", steps=5, strength=0.5, guidance_scale=1.0, seed=5, negative_prompt="dogs"),
                dict(mask="mask.png", steps=4, strength=0.6, guidance_scale=3.0, seed=6, scheduler="flow-heun"),
                dict(mask="mask.png", steps=3, strength=1.0, guidance_scale=1.0, seed=7, scheduler="flow-heun")],
        "flux": [dict(mask="mask_deep.png", steps=3, strength=0.3, guidance_scale=1.0, seed=5, height=32, width=96)],
    }
    return runs + more.get(name, [])


def inpaint(prefusion, world, scratch, name, is_wide):
    files(scratch)
    if is_wide:
        pipeline, folder = inpainting_model(world, scratch, name)
    else:
        folder = model_folder(world, name)
        pipeline = from_folder(INPAINT[name], folder)
    picture = as_rgb(scratch / "plain.png")
    for settings in inpaint_runs(name, is_wide):
        if name.startswith("flux"):  # whose own size is large
            settings = dict(height=64, width=64) | settings
        mask = settings.pop("mask")
        size = dict(height=settings.get("height", 64), width=settings.get("width", 64))
        told = dict(image=picture, mask_image=as_mask(scratch / mask), **size)
        given = dict(init_image=scratch / "plain.png", mask_image=scratch / mask)
        found = check_same(prefusion, scratch, pipeline, folder, settings, told, given, f"{name}, {mask}")
    check(found.std() > 5, "the picture is flat: the comparison tells nothing")
    if name in ("sd3", "flux"):
        batches(prefusion, scratch, name, pipeline, folder)


def batches(prefusion, scratch, name, pipeline, folder):
    """A picture under a mask is the same alone and beside another, each by its own seed."""
    size = dict(height=64, width=48)
    prefusion.run("generate", model=folder, prompt=PROMPT, steps=3, strength=0.7, guidance_scale=2.0, seed=20, num_images=2,
                  batch_size=2, init_image=scratch / "plain.png", mask_image=scratch / "mask.png", output=scratch, **size)
    for i in range(2):
        expected = pipeline(PROMPT, image=as_rgb(scratch / "plain.png"), mask_image=Image.open(scratch / "mask.png"), strength=0.7,
                            num_inference_steps=3, guidance_scale=2.0, generator=torch.Generator().manual_seed(20 + i), **size).images[0]
        quality = psnr(numpy.array(Image.open(scratch / f"00000-{i:03}.png")), numpy.array(expected))
        print(f"  {name}, picture {i} of a batch: {quality:.1f} dB")
        check(quality > 50, f"{name}, picture {i} of a batch: {quality:.1f} dB")


def refiner(prefusion, world, scratch):
    """SDXL's second model: one text encoder, an aesthetic score in place of the target size."""
    files(scratch)
    base = load(model_folder(world, "sdxl"))
    torch.manual_seed(6)
    unet = UNet2DConditionModel.from_config(base.unet.config, cross_attention_dim=30,
                                            projection_class_embeddings_input_dim=base.unet.config.projection_class_embeddings_input_dim - 8)
    pipeline = StableDiffusionXLImg2ImgPipeline(
        vae=base.vae, text_encoder=None, tokenizer=None, text_encoder_2=base.text_encoder_2, tokenizer_2=base.tokenizer_2,
        unet=unet.eval(), scheduler=base.scheduler, requires_aesthetics_score=True, force_zeros_for_empty_prompt=False)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(scratch / "refiner")
    for settings in (dict(steps=5, strength=0.4, guidance_scale=5.0, seed=1),
                     dict(steps=4, strength=0.8, guidance_scale=3.0, seed=2, negative_prompt="dogs")):
        check_same(prefusion, scratch, pipeline, scratch / "refiner", settings, dict(image=as_rgb(scratch / "plain.png")),
                   dict(init_image=scratch / "plain.png"), "refiner")
    text = prefusion.run("generate", exit_code=2, model=scratch / "refiner", prompt=PROMPT, output=scratch / "x.png", steps=2)
    check("refiner" in text.splitlines()[-1], text)


def refusals(prefusion, world, scratch):
    files(scratch)
    plain = dict(model=model_folder(world, "epsilon"), prompt=PROMPT, output=scratch / "x.png", steps=4)
    start = dict(plain, init_image=scratch / "plain.png")
    black = scratch / "black.png"
    Image.new("L", (64, 64)).save(black)
    (scratch / "text.png").write_text("no picture")
    inpainting_model(world, scratch, "epsilon")

    def refused(code, words, **options):
        line = prefusion.run("generate", exit_code=code, **options).splitlines()[-1]
        check(all(word in line for word in words), f"expected {words} in: {line}")

    refused(2, ["--init-image"], **plain, strength=0.5)
    refused(2, ["--init-image"], **plain, mask_image=scratch / "mask.png")
    refused(2, ["--strength", "4 steps"], **start, strength=0.2)
    refused(2, ["--strength"], **start, strength=1.5)
    refused(2, ["--strength"], **start, strength=0)
    refused(2, ["inpainting", "--mask-image"], **dict(plain, model=scratch / "wide"))
    refused(2, ["inpainting", "--mask-image"], **dict(start, model=scratch / "wide"))
    refused(3, ["black.png"], **start, mask_image=black)
    refused(3, ["text.png"], **dict(plain, init_image=scratch / "text.png"))
    refused(3, ["missing.png"], **dict(plain, init_image=scratch / "missing.png"))
    align = dict(model=scratch / "wide", data=world / "pairs.parquet", output=scratch / "run", steps=1)
    line = prefusion.run("align", exit_code=3, **align).splitlines()[-1]
    check("StableDiffusionInpaintPipeline" in line, line)
    inpainting_model(world, scratch, "flux")
    refused(2, ["inpainting", "--mask-image"], **dict(start, model=scratch / "wide", height=64, width=64))
    line = prefusion.run("align", exit_code=3, **align).splitlines()[-1]
    check("FluxFillPipeline" in line, line)


def settings_and_resume(prefusion, world, scratch):
    """A picture says what it was made from; another picture under the same name is made anew. 16 bits are cut to 8."""
    files(scratch)
    options = dict(model=model_folder(world, "epsilon"), prompt=PROMPT, output=scratch / "out", steps=3, num_images=2,
                   init_image=scratch / "deep.png", strength=0.7)
    prefusion.run("generate", **options)
    path = scratch / "out" / "00000-001.png"
    first = Image.open(path)
    settings = json.loads(first.info["prefusion"])
    check(settings["init_image"]["name"] == "deep.png" and settings["strength"] == 0.7, str(settings))
    check((settings["height"], settings["width"]) == (64, 72), str(settings))
    check("Denoising strength: 0.7" in first.info["parameters"], first.info["parameters"])
    pipeline = from_folder(StableDiffusionImg2ImgPipeline, options["model"])
    grey = numpy.array(Image.open(scratch / "deep.png")).astype(numpy.uint16) >> 8
    expected = pipeline(PROMPT, image=Image.fromarray(grey.astype(numpy.uint8)).convert("RGB"), strength=0.7, num_inference_steps=3,
                        guidance_scale=7.5, generator=torch.Generator().manual_seed(1)).images[0]
    check(psnr(numpy.array(first), numpy.array(expected)) > 50, "16-bit grey")
    before = path.read_bytes(), path.stat().st_mtime_ns
    prefusion.run("generate", **options, resume=True)
    check((path.read_bytes(), path.stat().st_mtime_ns) == before, "a kept picture was made anew")
    blobs(72, 64, 9).save(scratch / "deep.png")
    prefusion.run("generate", **options, resume=True)
    check(path.read_bytes() != before[0], "another start picture left the old result")
    masked = dict(options, num_images=1, mask_image=scratch / "mask.png", strength=None)
    prefusion.run("generate", **masked, resume=True)
    settings = json.loads(Image.open(scratch / "out" / "00000-000.png").info["prefusion"])
    check(settings["mask_image"]["name"] == "mask.png" and settings["strength"] == 1, str(settings))
    before = (scratch / "out" / "00000-000.png").read_bytes()
    (scratch / "mask.png").write_bytes((scratch / "mask_colour.png").read_bytes())
    prefusion.run("generate", **masked, resume=True)
    check((scratch / "out" / "00000-000.png").read_bytes() != before, "another mask left the old result")


def each(run, *arguments):
    """One case that runs over models: most of the time of a small one is Python's start."""

    def case(prefusion, world, scratch):
        for i, given in enumerate(arguments):
            folder = scratch / str(i)
            folder.mkdir()
            run(prefusion, world, folder, *given)

    return case


main({
    "img2img": each(img2img, *((name,) for name in IMG2IMG)),
    "inpaint": each(inpaint, *((name, is_wide) for name in ("epsilon", "sdxl") for is_wide in (False, True))),
    "inpaint_flow": each(inpaint, *((name, False) for name in ("sd3", "sd35", "flux", "flux_schnell")), ("sd35", True), ("flux", True)),
    "pixart": pixart, "refiner": refiner, "refusals": refusals, "settings_and_resume": settings_and_resume,
})
