"""Times whole pictures of a Stable Diffusion 1.5 sized model in another program and in `prefusion generate`, in turn, on the CPU.

    benchmarks/peer/generation.py [--size 256] [--steps 6] [--pictures 6] [--dtype fp32] [--threads 2]
        [--compile | --sd-cpp sd-cli]

All weights are random and the same for both (a folder of 4.3 GB below --work). Both make the same pictures one at a time,
taking turns: while one makes a picture the other is stopped, so that both see the same machine. The first two of each, with
which models are loaded, do not count. Printed are the medians of seconds a picture, and of the ratios of neighbouring
pictures the median, quartiles and number. The pictures of both are compared too.

The other program is diffusers, with --compile through torch.compile; with --sd-cpp the sd-cli of stable-diffusion.cpp, which is
started for each picture anew, gets the model as a single file, and counts its own seconds (without loading). It has a
vocabulary of its own, so that its pictures are not compared.
"""

import argparse
import math
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

from processes import Stepped, execute, spread

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROMPT = "an astronaut riding a horse on the moon, oil painting"
GUIDANCE = 7.5
FIRST = 2  # pictures that do not count


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(ROOT / "build" / "prefusion"))
    parser.add_argument("--size", type=int, default=256, help="pixels")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--pictures", type=int, default=6, help="that count")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="diffusers' networks go through torch.compile, which takes minutes at first")
    parser.add_argument("--sd-cpp", metavar="SD_CLI", help="the program of stable-diffusion.cpp, in place of diffusers")
    parser.add_argument("--small", action="store_true", help="a tenth of the width: for trying this script")
    parser.add_argument("--work", help="folder for model and pictures; kept when given")
    parser.add_argument("--as-diffusers", type=int, metavar="PICTURES", help=argparse.SUPPRESS)
    return parser.parse_args()


def make_model(options, folder):
    import torch
    from clip_tokenizer import write_tokenizer
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    unet, vae = ((32, 64, 128, 128), (32, 32, 64, 64)) if options.small else ((320, 640, 1280, 1280), (128, 256, 512, 512))
    text = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=2 if options.small else 12, num_attention_heads=12,
                          eos_token_id=2)
    (folder / "vocabulary").mkdir(parents=True)
    write_tokenizer(folder / "vocabulary")
    StableDiffusionPipeline(
        unet=UNet2DConditionModel(sample_size=64, block_out_channels=unet, cross_attention_dim=768, attention_head_dim=8),
        vae=AutoencoderKL(block_out_channels=vae, layers_per_block=2, latent_channels=4, sample_size=512,
                          down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4),
        text_encoder=CLIPTextModel(text), tokenizer=CLIPTokenizer.from_pretrained(folder / "vocabulary"),
        scheduler=DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1,
                                set_alpha_to_one=False),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False).save_pretrained(folder / "model")


def generate_with_diffusers(options, folder):
    """In a process of its own, as its documentation has it."""
    import torch
    from diffusers import StableDiffusionPipeline

    torch.set_num_threads(options.threads)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[options.dtype]
    pipeline = StableDiffusionPipeline.from_pretrained(folder / "model", torch_dtype=dtype, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    if options.compile:
        pipeline.unet = torch.compile(pipeline.unet)
        pipeline.vae.decoder = torch.compile(pipeline.vae.decoder)
    for seed in range(options.as_diffusers):
        # Drawn in fp32 as prefusion does: in bf16 the same generator gives other numbers.
        noise = torch.randn(1, 4, options.size // 8, options.size // 8, generator=torch.Generator("cpu").manual_seed(seed)).to(dtype)
        picture = pipeline(PROMPT, height=options.size, width=options.size, num_inference_steps=options.steps, guidance_scale=GUIDANCE,
                           latents=noise).images[0]
        picture.save(folder / f"diffusers-{seed}.png")


def diffusers_command(options, folder, count):
    return [sys.executable, __file__, "--as-diffusers", count, "--work", folder, "--size", options.size, "--steps", options.steps,
            "--dtype", options.dtype, "--threads", options.threads, *(["--compile"] if options.compile else [])]


def prefusion_command(options, folder, count):
    return [options.binary, "generate", "--model", folder / "model", "--prompt", PROMPT, "--num-images", count, "--batch-size", 1,
            "--height", options.size, "--width", options.size, "--steps", options.steps, "--guidance-scale", GUIDANCE, "--dtype",
            options.dtype, "--threads", options.threads, "--device", "cpu", "--quiet", "--output", folder / f"prefusion-{count}"]


class StableDiffusionCpp:
    """Its pictures one by one; of all of them the peak bytes."""

    def __init__(self, options, folder):
        self.options, self.folder, self.peak = options, folder, 0
        self.model = folder / f"model-{options.dtype}.safetensors"
        if not self.model.exists():
            execute([options.binary, "convert", "--model", folder / "model", "--output", self.model, "--dtype", options.dtype, "--quiet"])

    def seconds_of(self, seed):
        options, log = self.options, self.folder / "sd-cpp.log"
        with open(log, "wb") as output:
            _, peak = execute(
                [options.sd_cpp, "-m", self.model, "-p", PROMPT, "-H", options.size, "-W", options.size, "--steps", options.steps,
                 "--cfg-scale", GUIDANCE, "--sampling-method", "euler", "-s", seed, "-t", options.threads, "-v",
                 "-o", self.folder / "sd-cpp.png"], output)
        self.peak = max(self.peak, peak)
        return float(re.search(r"generate_image completed in ([\d.]+)s", log.read_text(errors="replace"))[1])

    def finish(self):
        return self.peak


class Watched:
    """A program that makes all pictures, stopped after each."""

    def __init__(self, command, folder, pattern):
        self.program, self.folder, self.pattern = Stepped(command), folder, pattern

    def seconds_of(self, picture):
        return self.program.advance_until(lambda: len(list(self.folder.glob(self.pattern))) > picture)

    def finish(self):
        return self.program.finish()


def in_turns(options, folder):
    """Of the other program and prefusion: seconds of every picture that counts, peak bytes."""
    subprocess.run(["rm", "-rf", *folder.glob("prefusion-*"), *folder.glob("diffusers-*.png")], check=True)
    count = FIRST + options.pictures
    if options.sd_cpp:
        other = StableDiffusionCpp(options, folder)
    else:
        other = Watched(diffusers_command(options, folder, count), folder, "diffusers-*.png")
    programs = [other, Watched(prefusion_command(options, folder, count), folder, f"prefusion-{count}/*.png")]
    seconds = [[], []]
    for picture in range(count):
        for side, program in enumerate(programs):
            took = program.seconds_of(picture)
            seconds[side] += [took] if picture >= FIRST else []
            print(f"{('the other', 'prefusion')[side]}: {took:.2f} s", file=sys.stderr, flush=True)
    return [(seconds[side], program.finish()) for side, program in enumerate(programs)]


def signal_to_noise(options, folder):
    """dB, of the worst picture."""
    import numpy
    from PIL import Image

    own = sorted((folder / f"prefusion-{FIRST + options.pictures}").glob("*.png"))
    worst = math.inf
    for seed, path in enumerate(own):
        pair = [numpy.asarray(Image.open(file), dtype=float) for file in (path, folder / f"diffusers-{seed}.png")]
        error = ((pair[0] - pair[1]) ** 2).mean()
        worst = min(worst, 10 * math.log10(255**2 / error) if error else math.inf)
    return worst


def main():
    options = parse_arguments()
    if options.as_diffusers:
        return generate_with_diffusers(options, pathlib.Path(options.work))
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(options.work or scratch)
        if not (folder / "model").exists():
            make_model(options, folder)
        theirs, own = in_turns(options, folder)
        ratios = [b / a for a, b in zip(theirs[0], own[0])]
        peer = ", torch.compile" if options.compile else ", stable-diffusion.cpp" if options.sd_cpp else ""
        likeness = "" if options.sd_cpp else f"{signal_to_noise(options, folder):.0f}"
        print(f"| {options.dtype}, {options.size} px, {options.steps} steps, guidance{peer} | {statistics.median(theirs[0]):.2f} | "
              f"{statistics.median(own[0]):.2f} | {spread(ratios)} | {theirs[1] / 1e9:.2f} | "
              f"{own[1] / 1e9:.2f} | {likeness} |")


main()
