"""Times convolutions of a UNet's shapes as ATen computes them and as matrix products over columns, on the CPU in fp32.

    benchmarks/peer/convolutions.py [--threads 2] [--repeats 7]

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
    window = weight.shape[2]
    columns = F.unfold(pictures, window, padding=window // 2) if window > 1 else pictures.flatten(2)
    return torch.matmul(weight.flatten(1), columns).add_(bias[:, None])


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
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
