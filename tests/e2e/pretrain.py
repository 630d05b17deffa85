"""Tiny runs of `prefusion pretrain` on the shapes world.

pretrain.py BINARY WORLD CASE; the world is not used.
"""

import pathlib

from support import check, main, read_metrics, snapshot

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "examples" / "shapes-config"
OPTIONS = dict(num_scenes=64, vae_steps=2, vae_batch_size=4, steps=6, batch_size=4, save_every=2, log_every=1, seed=1,
               device="cpu", dtype="fp16")


def weights(folder):
    return {name: data for name, data in snapshot(folder).items()
            if name.endswith(".safetensors") and not name.startswith("checkpoints")}


def stopped_run_ends_bit_identical(prefusion, world, scratch):
    prefusion.run("pretrain", model=CONFIGS, output=scratch / "whole", **OPTIONS)
    prefusion.run("pretrain", model=CONFIGS, output=scratch / "parts", **OPTIONS, stop_after=3)
    check(not (scratch / "parts" / "unet" / "diffusion_pytorch_model.safetensors").exists(), "a stopped run has no model")
    prefusion.run("pretrain", model=CONFIGS, output=scratch / "parts", **OPTIONS, resume=True)
    check(weights(scratch / "parts") == weights(scratch / "whole"), "weights differ from those of the whole run")
    check(len(weights(scratch / "whole")) == 3, f"components written: {sorted(weights(scratch / 'whole'))}")
    rows = [[row["loss"] for row in read_metrics(scratch / name)] for name in ("parts", "whole")]
    check(rows[0] == rows[1] and len(rows[0]) == 6, f"losses differ: {rows}")


def another_run_starts_from_a_model(prefusion, world, scratch):
    prefusion.run("pretrain", model=CONFIGS, output=scratch / "first", **OPTIONS)
    prefusion.run("pretrain", model=scratch / "first", output=scratch / "second", **{**OPTIONS, "seed": 2, "lr": 1e-9})
    first, second = weights(scratch / "first"), weights(scratch / "second")
    vae = "vae/diffusion_pytorch_model.safetensors"
    check(first[vae] == second[vae], "a VAE with weights was trained again")
    check(first.keys() == second.keys(), f"files differ: {sorted(first.keys() ^ second.keys())}")
    steps = sorted(path.name for path in (scratch / "second" / "checkpoints").iterdir())
    check(steps == ["step-000006"], f"checkpoints of the first run came along: {steps}")
    check([row["step"] for row in read_metrics(scratch / "second")] == [1, 2, 3, 4, 5, 6], "rows of the first run stay")
    prefusion.run("generate", model=scratch / "second", prompt="a red circle", steps=2, output=scratch / "picture.png")


main({
    "stopped_run_ends_bit_identical": stopped_run_ends_bit_identical,
    "another_run_starts_from_a_model": another_run_starts_from_a_model,
})
