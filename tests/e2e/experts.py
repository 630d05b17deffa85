"""LoRA experts of parts of the schedule or of preference dimensions, and the gate that fuses them (objective tlpo).

experts.py BINARY WORLD CASE, with WORLD from make_sd_world.py.
"""

import copy
import json

from support import check, check_near, check_same_runs, main

import numpy
import pyarrow
import pyarrow.parquet
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.utils import logging
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

logging.set_verbosity_error()
torch.set_num_threads(1)

STEPS = 3
COMMON = dict(steps=STEPS, batch_size=3, weight_decay=0.1, max_grad_norm=0.5, beta=400, eval_every=0, log_every=1,
              empty_prompt_rate=0.3, seed=5)
SAMPLING = dict(prompt="a red circle near the river", guidance_scale=4.0, scheduler="ddim")


def align(prefusion, world, output, **options):
    options = {**COMMON, "model": world / "models" / "epsilon", "data": world / "pairs.parquet", **options}
    prefusion.run("align", **options, output=output)
    return output


def expert(prefusion, world, output, **options):
    """A LoRA that changes much."""
    return align(prefusion, world, output, **{"steps": 8, "lr": 2e-2, "kappa": 2000, "beta": None, "spike_factor": 0,
                                              "rank": 3, "lora_alpha": 5, **options})


def two_experts(prefusion, world, scratch):
    first = expert(prefusion, world, scratch / "first", timestep_range="0:600")
    second = expert(prefusion, world, scratch / "second", seed=6, target_modules="to_q,to_v,conv1,time_emb_proj")
    return f"{first},{second / 'pytorch_lora_weights.safetensors'}"


def header(path):
    with safe_open(path, "pt") as file:
        return file.metadata()


class Fused:
    """The UNet with hooks that add what the experts of a file add, weighed by its gate."""

    def __init__(self, model, path):
        self.unet = UNet2DConditionModel.from_pretrained(f"{model}/unet").eval().requires_grad_(False)
        self.plain = copy.deepcopy(self.unet)
        tensors = load_file(path)
        self.gate = {name: value.clone().requires_grad_() for name, value in tensors.items()
                     if name.startswith("gate.")}
        experts = json.loads(header(path)["prefusion_experts"])
        self.ranges = [tuple(map(int, (entry["timestep_range"] or "0:1000").split(":"))) for entry in experts]
        lora = {}
        for name, value in tensors.items():
            if name.startswith("experts."):
                _, number, rest = name.split(".", 2)
                layer, part = rest.rsplit(".lora_", 1) if ".lora_" in rest else rest.rsplit(".", 1)
                lora.setdefault(layer, {}).setdefault(int(number), {})[part] = value
        self.layers = sorted(lora)
        self.allowed = torch.tensor([[k in lora[layer] for k in range(len(experts))] for layer in self.layers])
        for index, layer in enumerate(self.layers):
            self.unet.get_submodule(layer).register_forward_hook(self.hook(index, lora[layer]))

    def weights(self, timesteps):
        hidden = F.silu(F.linear(get_timestep_embedding(timesteps, 64, flip_sin_to_cos=True, downscale_freq_shift=0),
                                 self.gate["gate.hidden.weight"], self.gate["gate.hidden.bias"]))
        logits = F.linear(hidden, self.gate["gate.heads.weight"], self.gate["gate.heads.bias"])
        logits = logits.view(-1, *self.allowed.shape)
        acts = torch.stack([(low <= timesteps) & (timesteps < high) for low, high in self.ranges], 1)
        allowed = self.allowed[None] & acts[:, None]
        return logits.masked_fill(~allowed, -torch.inf).softmax(-1).nan_to_num()

    def hook(self, index, experts):
        def add(module, inputs, output):
            for number, lora in experts.items():
                scale = lora["alpha"] / lora["A.weight"].shape[0]
                if isinstance(module, torch.nn.Conv2d):
                    low = F.conv2d(inputs[0], lora["A.weight"], stride=module.stride, padding=module.padding)
                    delta = F.conv2d(low, lora["B.weight"])
                else:
                    delta = inputs[0] @ lora["A.weight"].T @ lora["B.weight"].T
                weight = self.current[:, index, number].view(-1, *[1] * (delta.dim() - 1))
                output = output + scale * weight * delta
            return output

        return add

    def errors(self, trace):
        noisy, timesteps, text, target = (trace[name] for name in
                                          ("noisy_latents", "timesteps", "encoder_hidden_states", "target"))
        inputs = noisy.flatten(0, 1), timesteps.flatten(), text.repeat_interleave(2, 0)
        self.current = self.weights(inputs[1])
        error = lambda prediction: (prediction.view_as(target) - target).pow(2).mean(dim=(2, 3, 4))
        with torch.no_grad():
            error_ref = error(self.plain(*inputs).sample)
        return error(self.unet(*inputs).sample), error_ref


def gate_steps_equal_pytorch(prefusion, world, scratch, **options):
    model = world / "models" / "epsilon"
    options = dict(objective="tlpo", experts=two_experts(prefusion, world, scratch), lr=1e-2,
                   objective_args="gate_width=7", **options)
    align(prefusion, world, scratch / "out", trace=scratch / "trace", trace_steps=STEPS, **options)
    align(prefusion, world, scratch / "initial", **{**options, "lr": 0, "steps": 1})
    fused = Fused(model, scratch / "initial" / "gated_lora.safetensors")
    start = fused.weights(torch.tensor([100, 800]))
    check(torch.equal(start[0][fused.allowed.all(dim=1)], torch.full_like(start[0][fused.allowed.all(dim=1)], 0.5)),
          "a new gate does not weigh equally")
    initial = {name: value.detach().clone() for name, value in fused.gate.items()}
    optimizer = torch.optim.AdamW(fused.gate.values(), lr=1e-2, weight_decay=COMMON["weight_decay"])
    for step in range(1, STEPS + 1):
        trace = load_file(scratch / "trace" / f"step-{step:06}.safetensors")
        error, error_ref = fused.errors(trace)
        check_near(trace["error"], error.detach(), 1e-5, f"step {step} error")
        check_near(trace["error_ref"], error_ref, 3e-6, f"step {step} error_ref")
        check((error - error_ref).abs().max() > 1e-3, "the experts change nothing")
        improvement = error_ref - error
        loss = -F.logsigmoid(200 * (improvement[:, 0] - improvement[:, 1])).mean()
        check_near(trace["loss"], loss.detach(), 1e-3, f"step {step} loss")
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(fused.gate.values(), COMMON["max_grad_norm"])
        check_near(trace["grad_norm"], norm, 1e-3, f"step {step} gradient norm")
        optimizer.step()
        optimizer.zero_grad()
    found = load_file(scratch / "out" / "gated_lora.safetensors")
    moved = sum((fused.gate[name] - value).detach().pow(2).sum().item() for name, value in initial.items())
    difference = sum((fused.gate[name] - found[name]).detach().pow(2).sum().item() for name in initial)
    share = (difference / moved) ** 0.5
    print(f"  updates: relative error {share:.1e}")
    check(share < 1e-2, f"updates differ by a share of {share}")
    experts = load_file(scratch / "first" / "pytorch_lora_weights.safetensors")
    for name, value in experts.items():
        check(torch.equal(found["experts.0." + name.removeprefix("unet.")], value), f"{name} of an expert has moved")


def picture(prefusion, scratch, steps=6, loras=(), **options):
    command = prefusion.command("generate", {**SAMPLING, **options, "steps": steps, "output": scratch / "picture.png"})
    for lora in loras:
        command += ["--lora", str(lora)]
    prefusion.run_command(command)
    return numpy.asarray(Image.open(scratch / "picture.png")).astype(int)


def difference(a, b):
    return numpy.abs(a - b).max()


def restricted_loras_act_in_their_range(prefusion, world, scratch):
    """A LoRA trained on a part of the schedule says so, and is on there alone, also beside another part's."""
    model = world / "models" / "epsilon"
    low = expert(prefusion, world, scratch / "low", timestep_range="0:500")
    high = expert(prefusion, world, scratch / "high", timestep_range="500:1000", lora_format="kohya")
    file = lambda folder: next(folder.glob("*.safetensors"))
    check(header(file(low))["prefusion_timestep_range"] == "0:500", str(header(file(low))))
    check(header(file(high))["prefusion_timestep_range"] == "500:1000", str(header(file(high))))
    everywhere = scratch / "everywhere.safetensors"
    metadata = header(file(low))
    del metadata["prefusion_timestep_range"]
    save_file(load_file(file(low)), everywhere, metadata=metadata)
    plain = picture(prefusion, scratch, model=model)
    restricted = picture(prefusion, scratch, model=model, lora=low)
    check(difference(restricted, plain) > 2, "the LoRA changes nothing")
    check(difference(restricted, picture(prefusion, scratch, model=model, lora=everywhere)) > 2, "it acts everywhere")
    # A single step is made at timestep 1: of the low part.
    check(difference(picture(prefusion, scratch, 1, model=model, lora=low),
                     picture(prefusion, scratch, 1, model=model, lora=everywhere)) == 0, "it does not act inside")
    check(difference(picture(prefusion, scratch, 1, model=model, lora=high),
                     picture(prefusion, scratch, 1, model=model)) == 0, "it acts outside")
    both = picture(prefusion, scratch, model=model, loras=[low, high])
    check(min(difference(both, restricted), difference(both, plain)) > 2, "the other LoRA changes nothing")
    # Training goes on as it is restricted.
    align(prefusion, world, scratch / "more", init_lora=low, lr=1e-3)
    check(header(file(scratch / "more"))["prefusion_timestep_range"] == "0:500", "the range got lost")
    error = prefusion.run("align", exit_code=2, model=model, data=world / "pairs.parquet", adapter="full", steps=1,
                          init_lora=low, eval_every=0, output=scratch / "merged")
    check("merged" in error.splitlines()[-1], error)


def gated_lora_is_generated_with(prefusion, world, scratch):
    """Of two experts of disjoint parts the gate's weights are 1: the fused file draws what the two LoRAs draw."""
    model = world / "models" / "epsilon"
    low = expert(prefusion, world, scratch / "low", timestep_range="0:500")
    high = expert(prefusion, world, scratch / "high", timestep_range="500:1000", seed=6)
    out = align(prefusion, world, scratch / "out", objective="tlpo", experts=f"{low},{high}", lr=1e-2, sample_every=3,
                sample_prompts=world / "prompts.txt", sample_steps=2)
    both = picture(prefusion, scratch, model=model, loras=[low, high])
    plain = picture(prefusion, scratch, model=model)
    check(difference(both, plain) > 2, "the LoRAs change nothing")
    for lora in (out, out / "gated_lora.safetensors"):
        check(difference(picture(prefusion, scratch, model=model, lora=lora), both) <= 1, "the fused file differs")
    check(difference(picture(prefusion, scratch, model=model, lora=f"{out}:0"), plain) == 0, "scale 0 is not the model")
    check(difference(picture(prefusion, scratch, model=model, lora=f"{out}:0.5"), both) > 2, "the scale has no effect")


def gate_learns_the_preference(prefusion, world, scratch):
    """Of an expert that helps and one of the opposite taste the gate chooses the one that the pairs agree with."""
    options = dict(steps=40, batch_size=8, lr=1e-2, kappa=500, beta=None, no_hflip=True, spike_factor=0, seed=1)
    swapped = pyarrow.parquet.read_table(world / "pairs.parquet").to_pylist()
    for record in swapped:
        record["label_0"], record["label_1"] = record["label_1"], record["label_0"]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(swapped), scratch / "swapped.parquet")
    good = align(prefusion, world, scratch / "good", **options)
    bad = align(prefusion, world, scratch / "bad", **{**options, "data": scratch / "swapped.parquet"})
    out = align(prefusion, world, scratch / "out", **options, objective="tlpo", experts=f"{bad},{good}")
    fused = Fused(world / "models" / "epsilon", out / "gated_lora.safetensors")
    weights = fused.weights(torch.arange(50, 1000, 100))[:, :, 1].mean().item()
    print(f"  mean weight of the expert that helps {weights:.2f}")
    check(weights > 0.6, f"the gate gives the expert that helps {weights}")


def refusals(prefusion, world, scratch):
    low = expert(prefusion, world, scratch / "low", steps=1)
    fixed = {**COMMON, "model": world / "models" / "epsilon", "data": world / "pairs.parquet", "objective": "tlpo",
             "output": scratch / "refused"}
    for changes, code, mentions in (
            ({}, 2, "--experts"), (dict(experts=low), 2, "two or more"),
            (dict(experts=f"{low},{low}", adapter="full"), 2, "--adapter"),
            (dict(experts=f"{low},{low}", rank=3), 2, "--rank"), (dict(experts=f"{low},{low}", init_lora=low), 2, "--init-lora"),
            (dict(experts=f"{low},{low}", objective="mapo", beta=None), 2, "tlpo"),
            (dict(experts=f"{low},{scratch / 'absent'}"), 3, "absent")):
        error = prefusion.run("align", exit_code=code, **{**fixed, **changes})
        check(mentions in error.splitlines()[-1], error)
    out = align(prefusion, world, scratch / "out", objective="tlpo", experts=f"{low},{low}", steps=1)
    path, broken = out / "gated_lora.safetensors", scratch / "broken.safetensors"
    whole, metadata = load_file(path), header(path)
    name = next(name for name in whole if name.endswith("lora_A.weight"))

    def cases():
        save_file({**whole, name: whole[name][:, :1].contiguous()}, broken, metadata=metadata)
        yield
        save_file({key: value for key, value in whole.items() if key != name}, broken, metadata=metadata)
        yield
        save_file(whole, broken, metadata={**metadata, "prefusion_experts": "[{]"})
        yield
        save_file({**whole, "gate.heads.bias": whole["gate.heads.bias"] / 0}, broken, metadata=metadata)
        yield

    for _ in cases():
        error = prefusion.run("generate", exit_code=3, **SAMPLING, steps=1, model=world / "models" / "epsilon",
                              lora=broken, output=scratch / "x.png")
        check("broken.safetensors" in error.splitlines()[-1], error)
        prefusion.run_command([prefusion.binary, "inspect", str(broken), "--model", str(world / "models" / "epsilon")], 3)
    prefusion.run_command([prefusion.binary, "inspect", str(path), "--model", str(world / "models" / "epsilon")])


def references_agree(prefusion, world, scratch):
    low = expert(prefusion, world, scratch / "low")
    high = expert(prefusion, world, scratch / "high", seed=6)
    for reference in ("adapter-off", "cached", "frozen"):
        align(prefusion, world, scratch / reference, objective="tlpo", experts=f"{low},{high}", lr=1e-2,
              reference=reference, cache=scratch / "cache")
    check_same_runs(scratch / "adapter-off", [scratch / "cached", scratch / "frozen"])


main({
    "steps": gate_steps_equal_pytorch,
    "checkpointed": lambda *a: gate_steps_equal_pytorch(*a, gradient_checkpointing=True),
    "ranges": restricted_loras_act_in_their_range,
    "generate": gated_lora_is_generated_with,
    "learns": gate_learns_the_preference,
    "refusals": refusals,
    "references": references_agree,
})
