"""Times one pass of a Stable Diffusion 1.5 sized UNet in diffusers and in prefusion, in turn, on the CPU.

    benchmarks/peer/denoiser.py [--rounds 3] [--sizes 256 512] [--dtypes fp32 bf16] [--threads 2]

The network has random weights, the same for both (a folder of 3.4 GB below --work). A round times diffusers, then
`prefusion bench forward`, with the same number of passes after one that does not count; ratios are of the same round.
"""

import argparse
import json
import pathlib
import statistics
import sys
import tempfile
import time

from processes import execute

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOKENS = 77


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(ROOT / "build" / "prefusion"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512], help="pixels")
    parser.add_argument("--dtypes", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--small", action="store_true", help="a quarter of the width: for trying this script")
    parser.add_argument("--work", help="folder for the model; kept when given")
    parser.add_argument("--as-diffusers", nargs=2, metavar=("SIZE", "DTYPE"), help=argparse.SUPPRESS)
    return parser.parse_args()


def make_model(options, folder):
    import torch
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    channels = (96, 192, 320, 320) if options.small else (320, 640, 1280, 1280)
    UNet2DConditionModel(sample_size=64, block_out_channels=channels, cross_attention_dim=768,
                         attention_head_dim=8).save_pretrained(folder / "unet")


def time_diffusers(options, folder):
    """In a process of its own: seconds of each pass, and the largest resident set."""
    import torch
    from diffusers import UNet2DConditionModel

    size, dtype = options.as_diffusers
    torch.set_num_threads(options.threads)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=dtype)
    latents = torch.randn(1, 4, int(size) // 8, int(size) // 8, dtype=dtype)
    states = torch.randn(1, TOKENS, 768, dtype=dtype)
    seconds = []
    with torch.no_grad():
        for _ in range(1 + options.passes):
            began = time.monotonic()
            unet(latents, 500, states)
            seconds.append(time.monotonic() - began)
    print(json.dumps(seconds[1:]))


def diffusers_round(options, folder, size, dtype):
    command = [sys.executable, __file__, "--as-diffusers", size, dtype, "--work", folder, "--threads", options.threads, "--passes",
               options.passes]
    with tempfile.TemporaryFile("w+") as output:
        _, memory = execute(command, output)
        output.seek(0)
        return statistics.median(json.load(output)), memory


def prefusion_round(options, folder, size, dtype):
    report = folder / "report.json"
    _, memory = execute([options.binary, "bench", "forward", "--model", folder, "--height", size, "--width", size, "--tokens", TOKENS,
                         "--dtype", dtype, "--threads", options.threads, "--device", "cpu", "--repeats", options.passes,
                         "--seconds", 0, "--no-backward", "--output", report])
    return json.loads(report.read_text())["rows"][0]["seconds"], memory


def measure(options, folder):
    rows = []
    for dtype in options.dtypes:
        for size in options.sizes:
            rounds = [(diffusers_round(options, folder, size, dtype), prefusion_round(options, folder, size, dtype))
                      for _ in range(options.rounds)]
            ratios = [own[0] / theirs[0] for theirs, own in rounds]
            theirs, own = (statistics.median(pair[side][0] for pair in rounds) for side in (0, 1))
            memory = [max(pair[side][1] for pair in rounds) / 1e9 for side in (0, 1)]
            rows.append(f"| {dtype}, {size} px | {theirs:.3f} | {own:.3f} | {statistics.median(ratios):.2f} "
                        f"({min(ratios):.2f} .. {max(ratios):.2f}) | {memory[0]:.2f} | {memory[1]:.2f} |")
            print(rows[-1], file=sys.stderr, flush=True)
    print("| pass | diffusers, s | prefusion, s | ratio (range) | GB | GB |\n|---|---|---|---|---|---|")
    print("\n".join(rows))


def main():
    options = parse_arguments()
    if options.as_diffusers:
        return time_diffusers(options, pathlib.Path(options.work))
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(options.work or scratch)
        if not (folder / "unet").exists():
            make_model(options, folder)
        measure(options, folder)


main()
