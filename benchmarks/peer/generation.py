"""Times whole pictures of a Stable Diffusion 1.5 sized model in diffusers and in `prefusion generate`, in turn, on the CPU.

    benchmarks/peer/generation.py [--rounds 3] [--size 256] [--steps 6] [--pictures 3] [--dtype fp32] [--threads 2]

All weights are random and the same for both (a folder of 4.3 GB below --work). A round makes two pictures and then
--pictures more with each program, one at a time: seconds a picture are the difference over those more, so that loading
does not count. The pictures of both are compared too.
"""

import argparse
import math
import pathlib
import statistics
import subprocess
import sys
import tempfile

from processes import execute

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROMPT = "an astronaut riding a horse on the moon, oil painting"
GUIDANCE = 7.5
FIRST = 2  # pictures of the run that is subtracted


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(ROOT / "build" / "prefusion"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=256, help="pixels")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--pictures", type=int, default=3)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, default=2)
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
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder / "model", torch_dtype={"fp32": torch.float32, "bf16": torch.bfloat16}[options.dtype], safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    for seed in range(options.as_diffusers):
        picture = pipeline(PROMPT, height=options.size, width=options.size, num_inference_steps=options.steps, guidance_scale=GUIDANCE,
                           generator=torch.Generator("cpu").manual_seed(seed)).images[0]
        picture.save(folder / f"diffusers-{seed}.png")


def diffusers_command(options, folder, count):
    return [sys.executable, __file__, "--as-diffusers", count, "--work", folder, "--size", options.size, "--steps", options.steps,
            "--dtype", options.dtype, "--threads", options.threads]


def prefusion_command(options, folder, count):
    return [options.binary, "generate", "--model", folder / "model", "--prompt", PROMPT, "--num-images", count, "--batch-size", 1,
            "--height", options.size, "--width", options.size, "--steps", options.steps, "--guidance-scale", GUIDANCE, "--dtype",
            options.dtype, "--threads", options.threads, "--device", "cpu", "--quiet", "--output", folder / f"prefusion-{count}"]


def seconds_a_picture(command_of, options, folder):
    subprocess.run(["rm", "-rf", *folder.glob("prefusion-*")], check=True)
    first, _ = execute(command_of(options, folder, FIRST))
    whole, memory = execute(command_of(options, folder, FIRST + options.pictures))
    return (whole - first) / options.pictures, memory


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
        rounds = []
        for _ in range(options.rounds):
            rounds.append([seconds_a_picture(command, options, folder) for command in (diffusers_command, prefusion_command)])
            print(f"{rounds[-1][0][0]:.2f} and {rounds[-1][1][0]:.2f} s a picture", file=sys.stderr, flush=True)
        ratios = [own[0] / theirs[0] for theirs, own in rounds]
        seconds = [statistics.median(pair[side][0] for pair in rounds) for side in (0, 1)]
        memory = [max(pair[side][1] for pair in rounds) / 1e9 for side in (0, 1)]
        print(f"| {options.dtype}, {options.size} px, {options.steps} steps, guidance | {seconds[0]:.2f} | {seconds[1]:.2f} | "
              f"{statistics.median(ratios):.2f} ({min(ratios):.2f} .. {max(ratios):.2f}) | {memory[0]:.2f} | {memory[1]:.2f} | "
              f"{signal_to_noise(options, folder):.0f} |")


main()
