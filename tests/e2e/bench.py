"""`prefusion bench`: what it counts against torch's own counter on diffusers' networks, its reports, and what it refuses.

bench.py BINARY WORLD CASE
"""

import json
import os
import pathlib
import shutil

from support import check, main

import numpy
import torch
from PIL import Image
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch.utils.flop_counter import FlopCounterMode

ASSETS = pathlib.Path(__file__).resolve().parents[2] / "assets"
ONCE = dict(warmup=0, repeats=1, seconds=0)


def bench(prefusion, scratch, what, **options):
    """The JSON report; its table is on standard output."""
    path = scratch / f"{what}.json"
    command = [prefusion.binary, "bench", what, "--threads", "1", "--output", str(path)]
    for name, value in {**ONCE, **options}.items():
        for item in value if isinstance(value, list) else [value]:
            command += ["--" + name.replace("_", "-")] + ([] if item is True else [str(item)])
    prefusion.run_command(command)
    return json.loads(path.read_text())


def operations(unet, height, width, tokens, with_backward):
    unet.set_attn_processor(AttnProcessor())  # plain products, which torch's counter knows on the CPU
    inputs = torch.randn(2, unet.config.in_channels, height, width), 500, torch.randn(2, tokens, unet.config.cross_attention_dim)
    counter = FlopCounterMode(display=False)
    with counter:
        sample = unet(*inputs).sample
        if with_backward:
            sample.square().mean().backward()
    return counter.get_total_flops()


def forward(prefusion, world, scratch):
    """A pass has as many operations as diffusers' network, with its weights and with random ones."""
    source = world / "models" / "epsilon"
    unet = UNet2DConditionModel.from_pretrained(source / "unet")
    shape = dict(batch_size=2, height=64, width=80, tokens=9)
    expected = operations(unet, 8, 10, 9, with_backward=False)
    config_only = scratch / "config-only"
    (config_only / "unet").mkdir(parents=True)
    shutil.copy(source / "unet" / "config.json", config_only / "unet")
    for arguments in (dict(model=source), dict(model=config_only, random_weights=True)):
        report = bench(prefusion, scratch, "forward", **arguments, **shape)
        rows = {row["name"].split(" of ")[0]: row for row in report["rows"]}
        check(rows["forward"]["flops"] == expected, f"{rows['forward']['flops']} operations, expected {expected}")
        check(rows["forward"]["items_per_second"] > 0 and report["matmul_flops_per_second"] > 0, f"rates in {report}")
        # The whole backward pass computes two products for each of the forward pass, but not the first layer's input
        # gradient, and attention's recomputed scores.
        ratio = rows["forward and backward"]["flops"] / expected
        check(2.9 < ratio < 3.1, f"forward and backward are {ratio:.2f} times the forward pass")
    report = bench(prefusion, scratch, "forward", model=ASSETS / "shapes", height=64, width=48, no_backward=True)
    check("1 x 16 x 12 latents" in report["rows"][0]["name"], f"latents of an autoencoder of factor 4: {report['rows']}")
    report = bench(prefusion, scratch, "forward", model=source, no_backward=True, **shape)
    check(len(report["rows"]) == 1, f"{len(report['rows'])} rows without a backward pass")


def others(prefusion, world, scratch):
    """Kernels beside ATen's, pictures and their parts, scores."""
    report = bench(prefusion, scratch, "kernels", only="error of an item")
    ours = [row for row in report["rows"] if "baseline" in row]
    check(len(ours) == 2 and len(report["rows"]) == 4, f"rows {[row['name'] for row in report['rows']]}")
    names = {row["name"] for row in report["rows"]}
    check(all(row["baseline"] in names and row["bytes"] > 0 for row in ours), f"baselines of {ours}")
    check(report["matmul_flops_per_second"] > 0 and report["copy_bytes_per_second"] > 0, f"yardsticks of {report}")
    report = bench(prefusion, scratch, "kernels", only=["error of an item, 8 of 4", "linear rows"], no_yardsticks=True)
    check(not any("per_second" in key for key in report), f"yardsticks nobody wanted: {report}")
    check(len(report["rows"]) == 6, f"rows of two names: {[row['name'] for row in report['rows']]}")
    report = bench(prefusion, scratch, "generate", model=ASSETS / "shapes", steps=2, batch_size=2)
    whole, latents, text, decoding = report["rows"]
    check(whole["pictures_per_second"] > 0, f"{whole}")
    check(whole["flops"] > latents["flops"] > text["flops"] > 0, f"operations of {report['rows']}")
    parts = latents["flops"] + decoding["flops"]
    check(whole["flops"] == parts, f"{whole['flops']} operations of pictures, {parts} of latents and decoding")
    config_only = scratch / "config-only"
    for source in (ASSETS / "shapes").rglob("*.json"):
        if source.parent.name in ("shapes", "unet", "vae", "scheduler"):
            target = config_only / source.relative_to(ASSETS / "shapes")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    tokens = json.loads((ASSETS / "shapes" / "text_encoder" / "config.json").read_text())["max_position_embeddings"]
    report = bench(prefusion, scratch, "generate", model=config_only, random_weights=True, steps=2, batch_size=2, tokens=tokens)
    check([row["flops"] for row in report["rows"]] == [parts - text["flops"], latents["flops"] - text["flops"], decoding["flops"]],
          f"operations with random weights: {report['rows']}")


def training(prefusion, world, scratch):
    """A reference costs one pass of the denoiser over all items, unless its errors are cached."""
    model = world / "models" / "epsilon"
    shape = dict(model=model, height=64, width=80, tokens=9)

    def passes(items):
        return bench(prefusion, scratch, "forward", batch_size=items, no_backward=True, **shape)["rows"][0]["flops"]

    for adapter in ("lora", "full"):
        report = bench(prefusion, scratch, "train", objective="mapo,diffusion-dpo,rankdpo,sft", adapter=adapter, batch_size=2, **shape)
        rows = {row["name"].strip().removeprefix("step of ").split(",")[0]: row for row in report["rows"]}
        cached = " with its reference cached"
        check(set(rows) == {"mapo", "sft", "diffusion-dpo", "diffusion-dpo" + cached, "rankdpo", "rankdpo" + cached}, f"{list(rows)}")
        flops = {name: row["flops"] for name, row in rows.items()}
        for name, items in (("diffusion-dpo", 4), ("rankdpo", 8)):
            check(flops[name] - flops[name + cached] == passes(items), f"{adapter}, {name}: {flops}, a pass {passes(items)}")
        check(flops["mapo"] == flops["diffusion-dpo" + cached], f"{adapter}: {flops}")
        check(2 * flops["sft"] == flops["mapo"], f"{adapter}: {flops}")
        check(rows["mapo"]["groups_per_second"] > 0 and rows["mapo"]["name"].endswith("2 groups of 2"), f"{rows['mapo']}")


def tune(prefusion, world, scratch):
    """The fastest way of every attention is remembered, obeyed by later runs, and refused when its file is broken."""
    table = scratch / "deep" / "tuning.json"
    os.environ["PREFUSION_TUNING"] = str(table)
    model = world / "models" / "epsilon"
    report = bench(prefusion, scratch, "tune", model=model, height=64, width=80, batch_size=2, tokens=9)
    entries = json.loads(table.read_text())["fastest"]
    names = {row["name"].rsplit(", ", 1)[0] for row in report["rows"]}
    check(len(entries) == len(names) > 0, f"{len(entries)} entries of {len(names)} attentions")
    for name in entries:
        rows = [row for row in report["rows"] if f"{name.split(', ')[1].split(' of ')[0]}, " in row["name"]]
        check({row["name"].rsplit(", ", 1)[1] for row in rows} == {"aten", "plain"}, f"ways of {name}: {rows}")
    for wanted, expected in (("plain", {"aten", "plain"}), ("blocks,hopper", {"aten"})):
        report = bench(prefusion, scratch, "tune", model=model, height=64, width=80, batch_size=2, tokens=9, paths=wanted)
        check({row["name"].rsplit(", ", 1)[1] for row in report["rows"]} == expected, f"--paths {wanted}: {report['rows']}")
    pictures = []
    for path in ("aten", "plain"):
        table.write_text(json.dumps({"format": "prefusion attention table 1", "fastest": {name: path for name in entries}}))
        prefusion.run("generate", model=model, prompt="a red circle", steps=3, height=64, width=80, output=scratch / f"{path}.png")
        pictures.append(numpy.asarray(Image.open(scratch / f"{path}.png")).astype(int))
    check(numpy.abs(pictures[0] - pictures[1]).max() <= 2, "the ways make different pictures")
    table.write_text("{}")
    error = prefusion.run("generate", 3, model=model, prompt="x", steps=1, output=scratch / "x.png")
    check("is no table of `prefusion bench tune`" in error, error)


def refusals(prefusion, world, scratch):
    """What does not fit is refused by name."""
    for expected, arguments in (
        ("--model is missing", ["forward"]),
        ("takes no --model", ["kernels", "--model", "x"]),
        ("--random-weights: only of bench forward, generate", ["score", "--model", "x", "--random-weights"]),
        ("--no-backward: only of bench forward", ["tune", "--model", "x", "--no-backward"]),
        ("no kernel has that in its name", ["kernels", "--only", "error of an item, 8 of 4", "--only", "nothing"]),
        ("this model takes multiples of", ["forward", "--model", str(world / "models" / "epsilon"), "--height", "63"]),
        ("--adapter", ["forward", "--model", "x", "--adapter", "lora"]),
        ("--cuda-graph: only of bench forward, generate and train", ["score", "--model", "x", "--cuda-graph"]),
        ("--cuda-graph needs a CUDA device", ["forward", "--model", "x", "--cuda-graph", "--device", "cpu"]),
        ("--paths: only of bench tune", ["forward", "--model", "x", "--paths", "plain"]),
        ("--paths", ["tune", "--model", "x", "--paths", "quick"]),
        ("only of bench train", ["score", "--model", "x", "--objective", "diffusion-dpo"]),
        ("learns from its own samples", ["train", "--model", "x", "--objective", "ddpo"]),
        ("trains an adapter of its own", ["train", "--model", "x", "--objective", "ppd"]),
        ("unknown objective 'nothing'", ["train", "--model", "x", "--objective", "nothing"]),
        ("training", ["training"]),
        ("say what to time", []),
        ("bench tune: --model is missing", ["--tune"]),
        ("--tune", ["forward", "--tune", "--model", "x"]),
        ("leave one out", ["train", "--model", "x", "--gradient-checkpointing", "--activation-memory", "1"]),
    ):
        error = prefusion.run_command([prefusion.binary, "bench", *arguments], 2)
        check(expected in error, f"bench {arguments}: {error}")


main({"forward": forward, "others": others, "training": training, "tune": tune, "refusals": refusals})
