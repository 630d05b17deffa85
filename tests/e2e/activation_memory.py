"""`prefusion align --activation-memory`: the same bits from less memory.

activation_memory.py BINARY WORLD CASE, with WORLD from make_sd_world.py and WORLD/families from make_families.py.
"""

import re
import subprocess

from support import check, main


def run(prefusion, folder, **options):
    """Weights that a run writes, and its log."""
    command = prefusion.command("align", dict(options, output=folder))
    done = subprocess.run(command, capture_output=True, text=True)
    check(done.returncode == 0, done.stderr)
    return (folder / "pytorch_lora_weights.safetensors").read_bytes(), done.stderr


def plan_of(log):
    """GB that are kept, GB that all blocks would keep, and how many blocks of how many are recomputed."""
    found = re.search(r"blocks keep ([\d.e-]+) of ([\d.e-]+) GB; (\d+) of (\d+) are computed again", log)
    check(found, f"no plan in the log: {log}")
    return float(found[1]), float(found[2]), int(found[3]), int(found[4])


def budgets(prefusion, world, scratch):
    models = {"sd": world / "models" / "epsilon"}
    models.update((name, world / "families" / "models" / name) for name in ("sdxl", "sd3", "flux", "pixart"))
    for name, model in models.items():
        common = dict(model=model, data=world / "pairs.parquet", steps=3, batch_size=2, lr=1e-2, kappa=200, rank=2, resolution=64,
                      eval_every=0, seed=3)
        expected, log = run(prefusion, scratch / f"{name}-all", **common)
        check("blocks keep" not in log, log)
        weights, log = run(prefusion, scratch / f"{name}-much", **common, activation_memory=10)
        kept, whole, recomputed, blocks = plan_of(log)
        check(weights == expected and kept == whole and recomputed == 0, f"{name}: {log}")
        weights, log = run(prefusion, scratch / f"{name}-less", **common, activation_memory=0.8 * whole)
        kept, again, recomputed, blocks = plan_of(log)
        check(weights == expected, f"{name}: other weights with less memory")
        check(again == whole, f"{name}: {again} and {whole} GB: {log}")
        # Of two equal blocks one cannot be kept while the other is computed again.
        check(kept < 0.8 * whole and 0 < recomputed and (blocks <= 2 or recomputed < blocks), f"{name}: {log}")


def refusals(prefusion, world, scratch):
    common = dict(model=world / "models" / "epsilon", data=world / "pairs.parquet", output=scratch / "run", steps=1)
    text = prefusion.run("align", exit_code=2, **common, activation_memory=1, gradient_checkpointing=True)
    check("leave one out" in text.splitlines()[-1], text)
    prefusion.run("align", exit_code=2, **common, activation_memory=-1)


main({"budgets": budgets, "refusals": refusals})
