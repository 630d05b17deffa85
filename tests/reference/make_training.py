"""Trajectories of torch.optim.AdamW, gradient clipping and learning-rate schedules.

make_training.py OUT writes OUT/<case>.safetensors for every optimizer case, OUT/clip-<n>.safetensors and
OUT/schedules.json.
"""

import json
import os
import sys

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from safetensors.torch import save_file
from transformers import get_scheduler

torch.set_num_threads(1)
OUT = sys.argv[1]
STEPS = 5
RATES = [1e-2, 3e-3, 2e-2, 0.0, 1e-2]


def make_parameters(dtype, generator):
    shapes = {"linear.weight": (5, 7), "linear.bias": (5,), "conv.weight": (4, 3, 3, 3), "scalar": ()}
    values = {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}
    values["conv.weight"] = values["conv.weight"].contiguous(memory_format=torch.channels_last)
    return values


def gradient_is_missing(case, name, step):
    return case == "missing" and (name == "scalar" or (name == "linear.bias" and step in (0, 2)))


def optimizer_case(case, dtype=torch.float32, weight_decay=1e-2):
    generator = torch.Generator().manual_seed(len(case))
    parameters = make_parameters(dtype, generator)
    # Half precision is optimised as fp32 copies; the parameter is their rounding.
    masters = {name: torch.nn.Parameter(value.float().clone()) for name, value in parameters.items()}
    optimizer = torch.optim.AdamW(masters.values(), lr=0.0, weight_decay=weight_decay)
    tensors = {f"initial.{name}": value.clone() for name, value in parameters.items()}
    for step in range(STEPS):
        for name, master in masters.items():
            master.grad = None
            if gradient_is_missing(case, name, step):
                continue
            scale = 10.0 ** (step - 3)
            gradient = (torch.randn(master.shape, generator=generator) * scale).to(dtype)
            tensors[f"gradient.{step}.{name}"] = gradient
            master.grad = gradient.float()
        optimizer.param_groups[0]["lr"] = RATES[step]
        optimizer.step()
        for name, master in masters.items():
            tensors[f"after.{step}.{name}"] = master.detach().to(dtype).clone()
            tensors[f"master.{step}.{name}"] = master.detach().clone()
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    metadata = {"weight_decay": str(weight_decay), "rates": json.dumps(RATES)}
    save_file(tensors, f"{OUT}/{case}.safetensors", metadata=metadata)


def clip_case(index, max_norm):
    generator = torch.Generator().manual_seed(index)
    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((30, 20), (7,), (2, 3, 4), (5,))]
    tensors = {}
    for i, parameter in enumerate(parameters[:-1]):  # the last one has no gradient
        parameter.grad = torch.randn(parameter.shape, generator=generator)
        tensors[f"before.{i}"] = parameter.grad.clone()
    tensors["norm"] = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    for i, parameter in enumerate(parameters[:-1]):
        tensors[f"after.{i}"] = parameter.grad
    save_file(tensors, f"{OUT}/clip-{index}.safetensors", metadata={"max_norm": str(max_norm)})


def schedule(kind, warmup, total):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    name = "constant_with_warmup" if kind == "constant" else kind
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total)
    factors = []
    for _ in range(total + 2):
        factors.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return {"kind": kind, "warmup": warmup, "total": total, "factors": factors}


optimizer_case("plain")
optimizer_case("undecayed", weight_decay=0.0)
optimizer_case("strongly_decayed", weight_decay=0.5)
optimizer_case("bf16", dtype=torch.bfloat16)
optimizer_case("fp16", dtype=torch.float16)
optimizer_case("missing")
for i, limit in enumerate([0.1, 1.0, 1000.0]):
    clip_case(i, limit)
cases = [(kind, warmup, total) for kind in ("constant", "linear", "cosine") for warmup, total in ((0, 10), (4, 17), (5, 5))]
with open(f"{OUT}/schedules.json", "w") as file:
    json.dump([schedule(*case) for case in cases], file)
