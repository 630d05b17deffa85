"""Times convolutions of a UNet's shapes as ATen computes them and as matrix products over columns, on the CPU.

    benchmarks/peer/convolutions.py [--dtype bf16] [--threads 2] [--repeats 7]

What nn/product_conv2d.cpp decides by: GFLOP/s of both (medians) by channels, window and pixels.
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F

CHANNELS = ((1280, 1280), (2560, 1280), (640, 640), (320, 320))
PICTURES = ((1, 4), (1, 8), (2, 8), (1, 16), (2, 16))  # how many, and their side in pixels


def median_seconds(function, repeats):
    function()
    seconds = []
    for _ in range(repeats):
        began = time.monotonic()
        function()
        seconds.append(time.monotonic() - began)
    return statistics.median(seconds)


def product(pictures, weight, bias):
    """One product for all pictures, for windows of one pixel one each, as nn/product_conv2d.cpp has it."""
    window = weight.shape[2]
    if window == 1:
        return [torch.addmm(bias[:, None], weight.flatten(1), picture.flatten(1)) for picture in pictures]
    columns = F.unfold(pictures, window, padding=window // 2).transpose(0, 1).flatten(1)
    output = torch.addmm(bias[:, None], weight.flatten(1), columns)
    return output.view(len(weight), len(pictures), -1).transpose(0, 1).contiguous()


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_default_dtype({"fp32": torch.float32, "bf16": torch.bfloat16}[options.dtype])
    print("| channels | window | pixels | at::conv2d, GFLOP/s | product, GFLOP/s |\n|---|---|---|---|---|")
    for (inputs, outputs), window in ((channels, window) for window in (3, 1) for channels in CHANNELS):
        weight, bias = torch.randn(outputs, inputs, window, window), torch.randn(outputs)
        for count, side in PICTURES:
            pictures = torch.randn(count, inputs, side, side)
            work = 2e-9 * count * side**2 * weight.numel()
            rates = [work / median_seconds(function, options.repeats) for function in
                     (lambda: F.conv2d(pictures, weight, bias, padding=window // 2), lambda: product(pictures, weight, bias))]
            print(f"| {inputs} -> {outputs} | {window} | {count} x {side} x {side} | {rates[0]:.0f} | {rates[1]:.0f} |", flush=True)


main()
