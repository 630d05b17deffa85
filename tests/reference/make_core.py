"""Reference values for tests/core/python_parity_test.cpp: make_core.py OUTPUT_FOLDER SAFETENSORS_FILE.

Copies the given safetensors file through the safetensors package, and draws from torch generators.
"""

import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file


def main() -> None:
    output, source = Path(sys.argv[1]), sys.argv[2]
    with safe_open(source, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        metadata = file.metadata()
    save_file(tensors, output / "theirs.safetensors", metadata=metadata)

    draws = {}
    for seed in (0, 42, 2**40):
        generator = torch.Generator("cpu").manual_seed(seed)
        draws[f"small.{seed}"] = torch.randn(5, generator=generator)
        draws[f"large.{seed}"] = torch.randn(1, 4, 9, 7, generator=generator)
        draws[f"uniform.{seed}"] = torch.rand(6, generator=generator)
    save_file(draws, output / "draws.safetensors")


if __name__ == "__main__":
    main()
