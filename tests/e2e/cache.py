"""`prefusion cache`, and what runs of `prefusion align` find in its cache.

cache.py BINARY WORLD CASE, with WORLD from make_sd_world.py and WORLD/families from make_families.py.
"""

import json
import re
import shutil
import signal
import subprocess
import time

import pyarrow.parquet
import torch
from safetensors.torch import load_file
from support import check, check_near, encoded_segments, main, read_metrics

GROUPS = 24  # of pairs.parquet, without its ties
BATCH = 4
STEPS_OF_A_PASS = GROUPS // BATCH


def data_options(world):
    """What decides which entries a run needs."""
    return dict(model=world / "models" / "epsilon", data=world / "pairs.parquet", eval_data=world / "eval.parquet", seed=6)


def run_options(world, **changes):
    return {**data_options(world), "batch_size": BATCH, "steps": 2 * STEPS_OF_A_PASS, "lr": 1e-3, "log_every": 1,
            "eval_every": 6, **changes}


def encoded(log):
    """(pictures, prompts, masks) that a log says were encoded."""
    found = re.search(r"encoded (\d+) pictures, (\d+) prompts, (\d+) masks", log)
    check(found, f"the log does not say what was encoded:\n{log}")
    return tuple(map(int, found.groups()))


def computed(log, what="reference errors"):
    """(computed groups, found ones)."""
    found = re.search(what + r": computed (\d+) groups, the other (\d+) were in the cache", log)
    check(found, f"the log does not say how many errors were computed:\n{log}")
    return tuple(map(int, found.groups()))


def check_same_losses(found, expected, tolerance):
    for row, same in zip(read_metrics(found), read_metrics(expected), strict=True):
        for key in ("loss", "error_chosen_ref", "error_rejected_ref", "eval/loss", "eval/error_chosen"):
            if key in same:
                check_near(row[key], same[key], tolerance, f"step {row['step']} {key}")


def nothing_anew(prefusion, world, scratch):
    """What was encoded ahead is all that a run needs, and gives the run that computes everything on the fly."""
    options, cache = data_options(world), scratch / "cache"
    log = prefusion.run("cache", **options, cache=cache, reference_errors=2)
    # 24 + 6 groups of two pictures, each flipped and not; their prompts and the empty one.
    check(encoded(log) == (120, 31, 0) and computed(log) == (2 * GROUPS, 0), log)
    log = prefusion.run("cache", **options, cache=cache, reference_errors=2)
    check(encoded(log) == (0, 0, 0) and computed(log) == (0, 2 * GROUPS), log)
    log = prefusion.run("cache", **options, cache=cache, reference_errors=3, batch_size=5)
    check(encoded(log) == (0, 0, 0) and computed(log) == (GROUPS, 2 * GROUPS), log)
    run = run_options(world, kappa=100)  # rounding of errors in batches of another size stays small in the logit
    prefusion.run("align", **run, no_cache=True, output=scratch / "live")
    for name, more in (("plain", {}), ("cached", {"reference": "cached"}),
                       ("drawn", {"reference": "cached", "reference_draws": 2})):
        log = prefusion.run("align", **run, **more, cache=cache, output=scratch / name)
        check(encoded(log) == (0, 0, 0), f"{name}: {log}")
        check(not more or computed(log)[0] == 0, f"{name}: {log}")
        check_same_losses(scratch / name, scratch / "live", 2e-5)


def families(prefusion, world, scratch):
    """The same for each family: text states of several encoders, pooled ones, masks, and the sizes of pictures."""
    from dit import make_model
    from family_objectives import with_classes

    for name in ("sdxl", "sd3", "flux", "pixart", "dit"):
        folder = scratch / name
        folder.mkdir()
        options = {**data_options(world), "eval_data": None, "resolution": 64, "eval_groups": 0}
        options["model"] = make_model(folder / "model", name) if name == "dit" else world / "families" / "models" / name
        if name == "dit":
            options["data"] = with_classes(world / "pairs.parquet", folder)
        log = prefusion.run("cache", **options, cache=folder / "cache", reference_errors=1)
        check(encoded(log)[0] == 4 * GROUPS and computed(log) == (GROUPS, 0), f"{name}: {log}")
        run = {**options, "batch_size": BATCH, "steps": STEPS_OF_A_PASS, "lr": 1e-4, "kappa": 20, "log_every": 1, "eval_every": 0}
        prefusion.run("align", **run, no_cache=True, output=folder / "live")
        log = prefusion.run("align", **run, reference="cached", reference_draws=1, cache=folder / "cache", output=folder / "cached")
        check(encoded(log) == (0, 0, 0) and computed(log)[0] == 0, f"{name}: {log}")
        check_same_losses(folder / "cached", folder / "live", 2e-4)  # six steps of AdamW let rounding grow


def other_data(prefusion, world, scratch):
    """Lists, masks and prompts of each picture, single pictures, and full fine-tuning from an adapter."""
    prefusion.run("align", **run_options(world, steps=1), rank=2, output=scratch / "start")
    start = scratch / "start" / "pytorch_lora_weights.safetensors"
    for name, data, more in (("rankdpo", "lists.parquet", {}), ("masked", "rich_pairs.parquet", {}),
                             ("dcpo", "rich_pairs.parquet", {}), ("kto", "unpaired.jsonl", {}),
                             ("sft", "pairs.parquet", {}),
                             ("diffusion-dpo", "pairs.parquet", {"adapter": "full", "init_lora": start}),
                             ("diffusion-dpo", "pairs.parquet", {"init_lora": start}),
                             ("diffusion-dpo", "pairs.parquet", {"reference_model": world / "models" / "epsilon_other"}),
                             ("diffusion-dpo", "pairs.parquet", {"timestep_range": "100:300", "curriculum": "hardness:3"})):
        options = {**data_options(world), "data": world / data, "eval_data": None, "objective": name, **more}
        cache = scratch / "cache"
        log = prefusion.run("cache", **options, cache=cache, reference_errors=1)
        check(computed(log)[0] > 0, f"{name}: {log}")
        log = prefusion.run("align", **options, cache=cache, steps=3, batch_size=3, reference="cached",
                            reference_draws=1, output=scratch / "out")
        check(encoded(log) == (0, 0, 0) and computed(log)[0] == 0, f"{name} {more}: {log}")
        if "curriculum" in more:
            check(computed(log, "hardness at timestep 125")[0] == 0, log)
        for path in sorted((scratch / "out").rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()


def traced_draws(folder, steps):
    """What each pass drew, whatever its order: timesteps, and sums that tell latents and noise."""
    traces = [load_file(folder / f"step-{step:06}.safetensors") for step in range(1, steps + 1)]
    passes = [traces[i : i + STEPS_OF_A_PASS] for i in range(0, steps, STEPS_OF_A_PASS)]
    draws = []
    for parts in passes:
        names = ("latents", "noise", "error", "error_ref")
        numbers = [torch.cat([part[name].flatten(1).double().sum(1) for part in parts]) for name in names]
        timesteps = torch.cat([part["timesteps"][:, 0] for part in parts]).double()
        rows = torch.stack([timesteps, *numbers], dim=1)
        draws.append(rows[rows[:, 2].argsort()])
    return draws


def draws_in_turn(prefusion, world, scratch):
    """Pass e uses draw e mod D: with a policy that does not move, passes D apart have the same inputs and errors."""
    options = run_options(world, steps=4 * STEPS_OF_A_PASS, lr=0, weight_decay=0, eval_every=0, reference="cached",
                          trace_steps=4 * STEPS_OF_A_PASS, cache=scratch / "cache")
    log = prefusion.run("align", **options, reference_draws=2, output=scratch / "two", trace=scratch / "trace")
    check(computed(log) == (2 * GROUPS, 0), log)
    draws = traced_draws(scratch / "trace", 4 * STEPS_OF_A_PASS)
    for first, second in ((0, 2), (1, 3)):
        check_near(draws[first], draws[second], 1e-6, f"passes {first} and {second}")
    check((draws[0] - draws[1]).abs().max() > 1, "both draws are the same")
    log = prefusion.run("align", **options, output=scratch / "endless")
    check(computed(log) == (2 * GROUPS, 2 * GROUPS), f"without a number every pass draws anew:\n{log}")


def sweep(prefusion, world, scratch):
    """Runs that differ in kappa share one pass of the reference."""
    for index, kappa in enumerate((50, 100, 500, 1000, 2500)):
        log = prefusion.run("align", **run_options(world, steps=3 * STEPS_OF_A_PASS, eval_every=0), kappa=kappa,
                            reference="cached", reference_draws=2, cache=scratch / "cache", output=scratch / str(kappa))
        check(computed(log) == ((0, 2 * GROUPS) if index else (2 * GROUPS, 0)), log)


def interrupted(prefusion, world, scratch):
    """SIGTERM keeps what was computed; the command goes on there."""
    draws = 60
    options = {**data_options(world), "reference_errors": draws, "batch_size": 2}
    began = time.monotonic()
    prefusion.run("cache", **options, cache=scratch / "whole")
    whole = time.monotonic() - began
    process = subprocess.Popen(prefusion.command("cache", {**options, "cache": scratch / "cache"}),
                               stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    time.sleep(0.6 * whole)
    process.send_signal(signal.SIGTERM)
    text = process.communicate(timeout=60)[1].decode()
    check(process.returncode == 143 and "error:" not in text, f"exit code {process.returncode}: {text}")
    log = prefusion.run("cache", **options, cache=scratch / "cache")
    left, found = computed(log)
    print(f"  {found} groups were kept, {left} left")
    check(left + found == draws * GROUPS and found > 0 and left > 0, log)
    check(encoded(log) == (0, 0, 0), log)


def refusals(prefusion, world, scratch):
    options = data_options(world)
    for changes, words in (({}, "--cache is required"),
                           ({"objective": "ddpo"}, "no data to encode"),
                           ({"objective": "dspo", "reference_errors": 1}, "predictions"),
                           ({"reference_errors": -1}, "--reference-errors"),
                           ({"keep_ties": True}, "--keep-ties")):
        more = {"cache": scratch / "cache"} if changes else {}
        text = prefusion.run("cache", exit_code=2, **options, **more, **changes)
        check(words in text.splitlines()[-1], text)
    text = prefusion.run("cache", exit_code=3, **{**options, "data": scratch / "absent.parquet"}, cache=scratch / "cache")
    check("absent.parquet" in text.splitlines()[-1], text)
    help_text = subprocess.run([prefusion.binary, "cache", "--help"], capture_output=True, text=True, check=True).stdout
    for word in ("--reference-errors", "--reference-draws", "--init-lora", "Example"):
        check(word in help_text, f"{word} is missing in the help")


def refused_early(prefusion, world, scratch):
    """What cannot be is said before anything is encoded; what an adapter file brings is not given beside it."""
    model = scratch / "model"
    shutil.copytree(world / "models" / "epsilon", model)
    config = model / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"prediction_type": "sample"}))
    run = run_options(world, steps=2, eval_every=0)
    for changes, words in ((dict(model=model, logit_weighting="debiased"), "debiased: not defined for sample"),
                           (dict(model=model, loss_weighting="debiased"), "debiased: not defined for sample"),
                           (dict(timestep_range="900:1100"), "--timestep-range")):
        text = prefusion.run("align", exit_code=2, **{**run, **changes}, output=scratch / "out")
        check(words in text.splitlines()[-1], text)
        check(not list(scratch.rglob("latents.h5")), "data was encoded before the refusal")
    prefusion.run("align", **run, rank=2, output=scratch / "start")
    start = scratch / "start" / "pytorch_lora_weights.safetensors"
    for flag, value in (("rank", 8), ("lora_alpha", 4), ("target_modules", "to_q")):
        text = prefusion.run("align", exit_code=2, **run, **{flag: value}, init_lora=start, output=scratch / "out")
        check("--" + flag.replace("_", "-") + " beside --init-lora" in text.splitlines()[-1], text)
    prefusion.run("align", **run, init_lora=start, output=scratch / "more")
    prefusion.run("align", config=scratch / "more" / "run.toml", output=scratch / "again")
    name = "pytorch_lora_weights.safetensors"
    check((scratch / "more" / name).read_bytes() == (scratch / "again" / name).read_bytes(), "run.toml is another run")


def segments(prefusion, world, scratch):
    """Prompts in segments are other entries than prompts cut off; a run gets their states from the cache."""
    from transformers import CLIPTextModel, CLIPTokenizer

    folder = world / "models" / "epsilon"
    table = pyarrow.parquet.read_table(world / "pairs.parquet")
    captions = [f"{caption}. It is old? Two\nboats lie there, e.g. a red one" for caption in table["caption"].to_pylist()]
    pyarrow.parquet.write_table(table.set_column(table.schema.get_field_index("caption"), "caption", [captions]), scratch / "long.parquet")
    options = dict(model=folder, data=scratch / "long.parquet", eval_groups=0, seed=6)
    cache = scratch / "cache"
    check(encoded(prefusion.run("cache", **options, cache=cache))[1] == 25, "24 prompts and the empty one")
    log = prefusion.run("cache", **options, cache=cache, long_prompts="segments")
    check(encoded(log) == (0, 25, 0), log)
    run = dict(options, cache=cache, batch_size=BATCH, lr=1e-3, eval_every=0, save_every=1, empty_prompt_rate=0.4, trace_steps=2)
    del run["eval_groups"]
    log = prefusion.run("align", **run, steps=2, long_prompts="segments", trace=scratch / "trace", output=scratch / "run")
    check(encoded(log) == (0, 0, 0), log)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder").eval()
    known = torch.cat([encoded_segments(tokenizer, encoder, caption)[0] for caption in [*captions, ""]])
    matches = set()
    for step in (1, 2):
        for found in load_file(scratch / "trace" / f"step-{step:06}.safetensors")["encoder_hidden_states"]:
            distances = (known - found).abs().flatten(1).amax(dim=1)
            check(distances.min() < 1e-4, f"text states of no prompt: {distances.min()}")
            matches.add(int(distances.argmin()))
    check(len(matches) > 2 and len(captions) in matches, f"prompts {matches}: one that was dropped, and others")
    text = prefusion.run("align", exit_code=2, **run, steps=3, resume="auto", output=scratch / "run")
    check("long_prompts" in text.splitlines()[-1], text)
    prefusion.run("align", **run, steps=1, long_prompts="segments", train_text_encoder=True, rank=2, output=scratch / "text")
    check(read_metrics(scratch / "text")[0]["grad_norm"] > 0, "no gradient")
    text = prefusion.run("align", exit_code=2, **run, steps=1, long_prompts="chunk", output=scratch / "x")
    check("--long-prompts" in text.splitlines()[-1], text)


CASES = (refused_early, nothing_anew, families, other_data, draws_in_turn, sweep, interrupted, segments, refusals)
main({case.__name__: case for case in CASES})
