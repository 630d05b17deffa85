"""Operation counts of torch.utils.flop_counter for the cases of tests/core/flop_counter_reference_test.cpp.

Writes counts.json: {case: [forward, forward and backward]}.
"""

import json
import pathlib
import sys

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

CASES = {
    "linear": ([(2, 5, 7), (3, 7), (3,)], F.linear),
    "linear_without_bias": ([(4, 6), (8, 6)], F.linear),
    "batched_product": ([(2, 3, 4, 5), (2, 3, 5, 6)], torch.matmul),
    "broadcast_product": ([(6, 4, 5), (5, 2)], torch.matmul),
    "convolution": ([(2, 3, 9, 8), (5, 3, 3, 3), (5,)], lambda x, w, b: F.conv2d(x, w, b, padding=1)),
    "strided_convolution": ([(1, 4, 11, 7), (6, 4, 3, 2)],
                            lambda x, w: F.conv2d(x, w, stride=(2, 1), padding=(0, 1), dilation=(1, 2))),
    "convolution_1d": ([(2, 3, 10), (4, 3, 5)], lambda x, w: F.conv1d(x, w, stride=2)),
    "transposed_convolution": ([(2, 3, 5, 4), (3, 6, 4, 4)], lambda x, w: F.conv_transpose2d(x, w, stride=2, padding=1)),
}


def count(run):
    counter = FlopCounterMode(display=False)
    with counter:
        run()
    return counter.get_total_flops()


def main():
    counts = {}
    for name, (shapes, function) in CASES.items():
        inputs = [torch.randn(shape, requires_grad=True) for shape in shapes]
        counts[name] = [count(lambda: function(*inputs)), count(lambda: function(*inputs).sum().backward())]
    (pathlib.Path(sys.argv[1]) / "counts.json").write_text(json.dumps(counts))


main()
