"""Trajectories of torch.optim.AdamW, an 8-bit AdamW written here and transformers' Adafactor; gradient clipping and
learning-rate schedules.

make_training.py OUT writes OUT/<case>.safetensors for every optimizer case, OUT/codes.safetensors, OUT/clip-<n>.safetensors
and OUT/schedules.json.
"""

import json
import os
import sys

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from safetensors.torch import save_file
from transformers import get_scheduler
from transformers.optimization import Adafactor

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
    return "missing" in case and (name == "scalar" or (name == "linear.bias" and step in (0, 2)))


def trajectory(case, make, dtype=torch.float32, args="", weight_decay=1e-2, own_rate=False):
    """The steps of make(parameters, weight decay), which has the interface of torch.optim."""
    generator = torch.Generator().manual_seed(len(case))
    parameters = make_parameters(dtype, generator)
    # Half precision is optimised as fp32 copies; the parameter is their rounding.
    masters = {name: torch.nn.Parameter(value.float().clone()) for name, value in parameters.items()}
    optimizer = make(masters.values(), weight_decay)
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
        if not own_rate:
            optimizer.param_groups[0]["lr"] = RATES[step]
        optimizer.step()
        for name, master in masters.items():
            tensors[f"after.{step}.{name}"] = master.detach().to(dtype).clone()
            tensors[f"master.{step}.{name}"] = master.detach().clone()
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    metadata = {"weight_decay": str(weight_decay), "rates": json.dumps(RATES), "args": args}
    save_file(tensors, f"{OUT}/{case}.safetensors", metadata=metadata)


def optimizer_case(case, **options):
    trajectory(case, lambda parameters, decay: torch.optim.AdamW(parameters, lr=0.0, weight_decay=decay), **options)


def adafactor_case(case, own_rate=False, dtype=torch.float32, weight_decay=1e-2, args="", **settings):
    settings = {"scale_parameter": False, "relative_step": own_rate, **settings}
    lr = None if own_rate else 0.0
    make = lambda parameters, decay: Adafactor(parameters, lr=lr, weight_decay=decay, **settings)
    trajectory(case, make, dtype=dtype, args=args, weight_decay=weight_decay, own_rate=own_rate)


def dynamic_code(is_signed):
    """Bit by bit: leading zeros are the exponent, a one ends them, what is left is a fraction between 0.1 and 1."""
    bits = 7 if is_signed else 8
    values = {0.0, 1.0}
    for zeros in range(7):
        fraction_bits = bits - 1 - zeros
        for fraction in range(2**fraction_bits):
            value = (0.1 + 0.9 * (fraction + 0.5) / 2**fraction_bits) * 10.0**-zeros
            values |= {value, -value} if is_signed else {value}
    return torch.tensor(sorted(values), dtype=torch.float64).float()


class Coded:
    """A flat tensor in blocks of 256, each element the nearest of 256 values times the block's largest."""

    def __init__(self, count, is_signed):
        self.is_signed = is_signed
        self.table = dynamic_code(is_signed)
        self.write(torch.zeros(count))

    def write(self, values):
        codes, scales = [], []
        for block in values.split(256):
            scale = block.abs().max()
            scaled = block / scale if scale > 0 else block
            code = (scaled[:, None] - self.table[None]).abs().argmin(1)
            if not self.is_signed:
                code = torch.where(scaled > 0, code.clamp_min(1), code)
            codes.append(code)
            scales.append(scale)
        self.codes, self.scales = torch.cat(codes), torch.stack(scales)

    def read(self):
        return self.table[self.codes] * self.scales.repeat_interleave(256)[: len(self.codes)]


def coded_adamw_steps(weight, gradients, lr, decay, beta1=0.9, beta2=0.999, eps=1e-8):
    first, second = Coded(weight.numel(), True), Coded(weight.numel(), False)
    for step, gradient in enumerate(gradients, 1):
        mean = beta1 * first.read() + (1 - beta1) * gradient
        square = beta2 * second.read() + (1 - beta2) * gradient**2
        weight = weight * (1 - lr * decay)
        weight = weight - lr * (mean / (1 - beta1**step)) / ((square / (1 - beta2**step)).sqrt() + eps)
        first.write(mean)
        second.write(square)
    return weight, first, second


def write_codes():
    generator = torch.Generator().manual_seed(8)
    tensors = {}
    for name, is_signed in (("signed", True), ("unsigned", False)):
        # Blocks of very different sizes, one of zeros, a last one that is not full.
        values = torch.randn(5 * 256 + 77, generator=generator) ** 3
        values *= 10.0 ** torch.arange(-6, 6, 2).repeat_interleave(256)[: len(values)]
        values[256:512] = 0
        values = values if is_signed else values.abs()
        coded = Coded(len(values), is_signed)
        coded.write(values)
        tensors |= {f"{name}.table": coded.table, f"{name}.values": values, f"{name}.codes": coded.codes.byte(),
                    f"{name}.scales": coded.scales, f"{name}.read": coded.read()}
    weight = torch.randn(4 * 1100 + 3, generator=generator)
    gradients = torch.randn(6, len(weight), generator=generator) * torch.logspace(-3, 1, len(weight))
    after, first, second = coded_adamw_steps(weight, gradients, lr=1e-2, decay=0.1)
    tensors |= {"adamw.weight": weight, "adamw.gradients": gradients, "adamw.after": after, "adamw.first": first.read(),
                "adamw.second": second.read()}
    save_file(tensors, f"{OUT}/codes.safetensors")


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
adafactor_case("adafactor_plain")
adafactor_case("adafactor_missing", weight_decay=0.0)
adafactor_case("adafactor_scaled", scale_parameter=True, args="scale_parameter=1")
adafactor_case("adafactor_relative", own_rate=True, scale_parameter=True, args="scale_parameter=1,relative_step=1")
adafactor_case("adafactor_warmup", own_rate=True, warmup_init=True, args="relative_step=1,warmup_init=1")
adafactor_case("adafactor_momentum", beta1=0.9, args="beta1=0.9")
adafactor_case("adafactor_tuned", clip_threshold=0.3, decay_rate=-0.5, eps=(1e-4, 0.1), scale_parameter=True,
               args="clip_threshold=0.3,decay_rate=-0.5,eps1=1e-4,eps2=0.1,scale_parameter=1")
adafactor_case("adafactor_bf16", dtype=torch.bfloat16)
write_codes()
for i, limit in enumerate([0.1, 1.0, 1000.0]):
    clip_case(i, limit)
cases = [(kind, warmup, total) for kind in ("constant", "linear", "cosine") for warmup, total in ((0, 10), (4, 17), (5, 5))]
with open(f"{OUT}/schedules.json", "w") as file:
    json.dump([schedule(*case) for case in cases], file)
