"""Runs of `prefusion align` that are killed, interrupted and resumed, against one that is not.

resume.py BINARY WORLD CASE, with WORLD from make_sd_world.py.
"""

import pathlib
import random
import signal
import subprocess
import time

import pyarrow
import pyarrow.parquet

from support import Failure, check, main, read_metrics

STEPS = 60
SHAPES = pathlib.Path(__file__).resolve().parents[2] / "assets" / "shapes"


def options_of(world, adapter):
    return dict(model=world / "models" / "epsilon", data=world / "pairs.parquet", adapter=adapter, steps=STEPS,
                batch_size=3, lr=1e-3, lr_schedule="cosine", warmup=5, ema=0.99, save_every=4, keep=2, log_every=3,
                eval_every=10, eval_data=world / "eval.parquet", seed=3)


def weights_of(folder):
    names = ("pytorch_lora_weights.safetensors", "user_adapter.safetensors", "gated_lora.safetensors",
             "unet/diffusion_pytorch_model.safetensors")
    return next(folder / name for name in names if (folder / name).exists()).read_bytes()


def logged(folder):
    """Everything in metrics.jsonl but the times."""
    return [{key: value for key, value in row.items() if "second" not in key} for row in read_metrics(folder)]


def start(prefusion, options, output, resume=True):
    command = prefusion.command("align", {**options, "output": output, "resume": "auto" if resume else None})
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)


def check_same_run(found, expected):
    check(weights_of(found) == weights_of(expected), "weights differ from those of the run that was not stopped")
    rows, whole = logged(found), logged(expected)
    check([row["step"] for row in rows] == [row["step"] for row in whole],
          f"logged steps {[row['step'] for row in rows]}, expected {[row['step'] for row in whole]}")
    # A row's means reach back to the row before; those cut by a restart cover fewer steps. Evaluations are whole.
    for row, same in zip(rows, whole):
        for key in same:
            if key.startswith("eval/") or key in ("lr", "epoch"):
                check(row.get(key) == same[key], f"step {row['step']}: {key} is {row.get(key)}, expected {same[key]}")


def run_whole(prefusion, options, output):
    began = time.monotonic()
    prefusion.run("align", **options, output=output)
    return time.monotonic() - began


def killed_online(prefusion, world, scratch, **changes):
    """The samples of an unfinished round are part of a checkpoint."""
    prompts = scratch / "prompts.txt"
    prompts.write_text("a red circle\na blue square above a green circle\na cyan triangle\n")
    options = dict(model=SHAPES, objective="ddpo", prompts=prompts, steps=12, batch_size=2, prompts_per_round=2,
                   group_size=3, online_steps=4, lr=1e-4, ema=0.9, save_every=3, log_every=1, seed=4) | changes
    check_survives_kills(prefusion, options, scratch)


def killed(prefusion, world, scratch, adapter, **changes):
    check_survives_kills(prefusion, {**options_of(world, adapter), **changes}, scratch)


def check_survives_kills(prefusion, options, scratch):
    whole = run_whole(prefusion, options, scratch / "whole")
    seed = random.randrange(1 << 30)
    print(f"  kill times from seed {seed}; a whole run takes {whole:.2f} s")
    rng = random.Random(seed)
    output = scratch / "killed"
    kills = 0
    for _ in range(8):
        process = start(prefusion, options, output)
        try:
            process.wait(timeout=rng.uniform(0.15, 0.6) * whole)
            check(process.returncode == 0, process.stderr.read().decode())
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    else:
        prefusion.run("align", **options, output=output, resume="auto")
    print(f"  killed {kills} times")
    check_same_run(output, scratch / "whole")
    left = [path.name for path in (output / "checkpoints").iterdir() if path.name.startswith(".")]
    check(not left, f"unfinished checkpoints stay behind: {left}")


def killed_on_a_flow_model(prefusion, world, scratch, **changes):
    killed_online(prefusion, world, scratch, model=world / "families" / "models" / "sd3", **changes)


def killed_self_play(prefusion, world, scratch):
    """Samples are made again from the draws; the opponent is part of a checkpoint."""
    data = scratch / "pictures"
    data.mkdir()
    for i, record in enumerate(pyarrow.parquet.read_table(world / "pairs.parquet").to_pylist()):
        (data / f"{i:03}.jpg").write_bytes(record["jpg_0"])
        (data / f"{i:03}.txt").write_text(record["caption"])
    killed(prefusion, world, scratch, "lora", objective="spin", data=data, eval_data=data, reference="refresh:5",
           steps=16, online_steps=2, eval_every=8)


def killed_gate(prefusion, world, scratch):
    experts = []
    for seed in (1, 2):
        experts.append(str(scratch / f"expert-{seed}"))
        prefusion.run("align", model=world / "models" / "epsilon", data=world / "pairs.parquet", steps=3, lr=1e-2,
                      eval_every=0, seed=seed, output=experts[-1])
    killed(prefusion, world, scratch, "lora", objective="tlpo", experts=",".join(experts))


def killed_users(prefusion, world, scratch):
    """Some users are asked for in some steps alone; their moments and step counts are part of a checkpoint."""
    records = pyarrow.parquet.read_table(world / "pairs.parquet").to_pylist()
    for i, record in enumerate(records):
        record.update(user_id=i % 7)
    data = scratch / "judged.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), data)
    killed(prefusion, world, scratch, "lora", objective="ppd", data=data, eval_data=data, lr=1e-2)


def killed_curriculum(prefusion, world, scratch):
    """Stages and passes go on where they were; another number of steps would move the stages."""
    records = pyarrow.parquet.read_table(world / "pairs.parquet").to_pylist()
    for i, record in enumerate(records):
        record.update(score_0=float(i), score_1=0.0)
    data = scratch / "scored.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), data)
    killed(prefusion, world, scratch, "lora", data=data, curriculum="margin:4")
    options = {**options_of(world, "lora"), "data": data, "curriculum": "margin:4", "steps": 80}
    text = prefusion.run("align", exit_code=2, **options, output=scratch / "whole", resume="auto")
    check("curriculum" in text.splitlines()[-1], text)


def killed_hardness(prefusion, world, scratch):
    """The order is that of the start although the policy moves on."""
    killed(prefusion, world, scratch, "lora", curriculum="hardness:4")
    options = {**options_of(world, "lora"), "curriculum": "hardness:4", "steps": 80}
    text = prefusion.run("align", exit_code=2, **options, output=scratch / "whole", resume="auto")
    check("curriculum" in text.splitlines()[-1], text)


def wait_for_checkpoint(process, output):
    for _ in range(2000):
        if list(output.glob("checkpoints/step-*")):
            return
        check(process.poll() is None, "the run ended before its first checkpoint")
        time.sleep(0.01)
    raise Failure("no checkpoint appeared")


def interrupted(prefusion, world, scratch, number, exit_code):
    options = {**options_of(world, "lora"), "steps": 400, "lr_schedule": "constant"}
    output = scratch / "interrupted"
    process = start(prefusion, options, output, resume=False)
    wait_for_checkpoint(process, output)
    process.send_signal(number)
    text = process.communicate(timeout=60)[1].decode()
    check(process.returncode == exit_code, f"exit code {process.returncode}, expected {exit_code}: {text}")
    check("error:" not in text, f"an interrupt is no error: {text}")
    saved = max(int(path.name[5:]) for path in output.glob("checkpoints/step-*"))
    check(not (output / "pytorch_lora_weights.safetensors").exists(), "the run was over already")
    # What is finished with fewer steps must equal a run that was never stopped; 4 more steps are enough to see it.
    target = saved + 4
    for folder, resume in ((output, "auto"), (scratch / "whole", None)):
        prefusion.run("align", **{**options, "steps": target}, output=folder, resume=resume)
    check(weights_of(output) == weights_of(scratch / "whole"), "weights differ from those of the run that was not stopped")
    print(f"  saved at step {saved}")
    steps = [row["step"] for row in read_metrics(output)]
    check(steps == sorted(set(steps)) and steps[-1] == target, f"logged steps {steps}")


def same_after_interrupt(prefusion, world, scratch):
    """As killed, but with SIGTERM, which saves at the very step."""
    options = options_of(world, "lora")
    run_whole(prefusion, options, scratch / "whole")
    output = scratch / "interrupted"
    process = start(prefusion, options, output)
    wait_for_checkpoint(process, output)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    check(process.returncode == 143, f"exit code {process.returncode}")
    prefusion.run("align", **options, output=output, resume="auto")
    check_same_run(output, scratch / "whole")


def other_numbers_are_refused(prefusion, world, scratch):
    """Key, old and new value of whatever changes the run's numbers are named, all at once."""
    options = {**options_of(world, "lora"), "steps": 6, "kappa": 500}
    output = scratch / "out"
    prefusion.run("align", **options, output=output)
    data = pyarrow.parquet.read_table(world / "pairs.parquet")
    column = data.column_names.index("caption")
    captions = pyarrow.array([f"{caption}!" for caption in data["caption"].to_pylist()])
    pyarrow.parquet.write_table(data.set_column(column, "caption", captions), scratch / "pairs.parquet")
    for change, words in (({"kappa": 600}, ("kappa", "500", "600")), ({"lr": 2e-3}, ("lr", "0.001", "0.002")),
                          ({"optimizer": "adafactor"}, ("optimizer", "adamw", "adafactor")),
                          ({"optimizer_args": "beta2=0.99"}, ("optimizer_args", "beta2=0.99")),
                          ({"steps": 8}, ("lr_schedule", "6 steps", "8 steps")), ({"warmup": 2}, ("warmup 5", "warmup 2")),
                          ({"sft_weight": 0.5}, ("sft_weight", "0.0", "0.5")), ({"safe_loser": 0.5}, ("safe_loser", "null")),
                          ({"loss_weighting": "min-snr"}, ("loss_weighting", "none", "min-snr")),
                          ({"rank": 4}, ("rank", "8", "4")), ({"ema": 0.9}, ("ema", "0.99", "0.9")),
                          ({"max_grad_norm": 2}, ("max_grad_norm",)), ({"weight_decay": 0.5}, ("weight_decay",)),
                          ({"empty_prompt_rate": 0.5}, ("empty_prompt_rate", "0.2", "0.5")),
                          ({"auto_kappa": 0.2}, ("auto_kappa", "0.2")), ({"no_hflip": True}, ("no_hflip", "false", "true")),
                          ({"model": world / "models" / "epsilon_other"}, ("start",)),
                          ({"data": scratch / "pairs.parquet"}, ("train_records",)),
                          ({"dtype": "bf16", "accumulate": 2}, ("dtype", "Float", "BFloat16", "accumulate was 1"))):
        text = prefusion.run("align", exit_code=2, **{**options, **change}, output=output, resume="auto")
        check(all(word in text.splitlines()[-1] for word in words), f"{change}: {text}")
    prefusion.run("align", **options, output=output, resume="auto")


def other_run_is_refused(prefusion, world, scratch):
    options = {**options_of(world, "lora"), "steps": 6, "lr_schedule": "constant"}
    output = scratch / "out"
    prefusion.run("align", **options, output=output)
    before = weights_of(output)
    for change in ({"seed": 4}, {"batch_size": 2}, {"adapter": "full"}, {"objective": "mapo"}):
        prefusion.run("align", exit_code=2, **{**options, **change}, output=output, resume="auto")
    text = prefusion.run("align", exit_code=2, **options, output=output)
    check("--resume" in text, text)
    prefusion.run("align", exit_code=3, **options, output=output, resume=scratch / "absent")
    check(weights_of(output) == before, "a refused run changed the weights of the earlier one")
    prefusion.run("align", **{**options, "steps": 8}, output=output, resume="auto")
    check(weights_of(output) != before, "two more steps change nothing")


def damaged_checkpoints_are_refused(prefusion, world, scratch):
    options = {**options_of(world, "lora"), "steps": 6, "lr_schedule": "constant"}
    output = scratch / "out"
    prefusion.run("align", **options, output=output)
    newest = max(output.glob("checkpoints/step-*"))
    state, tensors = newest / "state.json", newest / "optimizer.safetensors"
    for path, contents in ((state, [b"", b"{", b"[]", b'{"format": 1, "step": 6, "files": []}', b"\xff\xfe",
                                    b'{"format": 1, "step": 6, "files": ["optimizer", "ema"]}',
                                    b'{"format": 1, "step": 6, "files": ["optimizer", "ema"], "run": 3}']),
                           (tensors, [b"", b"\xff" * 64, tensors.read_bytes()[:-1], tensors.read_bytes() + b"x"])):
        whole = path.read_bytes()
        for content in contents:
            path.write_bytes(content)
            prefusion.run("align", exit_code=3, **{**options, "steps": 8}, output=output, resume="auto")
        path.write_bytes(whole)
    prefusion.run("align", **{**options, "steps": 8}, output=output, resume="auto")


main({
    "killed_lora": lambda *a: killed(*a, "lora"),
    "killed_full": lambda *a: killed(*a, "full"),
    "killed_8bit": lambda *a: killed(*a, "full", optimizer="adamw8bit"),
    "killed_curriculum": killed_curriculum,
    "killed_hardness": killed_hardness,
    "other_numbers_are_refused": other_numbers_are_refused,
    "killed_moving_reference": lambda *a: killed(*a, "lora", reference="ema:0.9"),
    "killed_online": killed_online,
    "killed_users": killed_users,
    "killed_gate": killed_gate,
    "killed_spo": lambda *a: killed_online(*a, objective="spo", group_size=1, objective_args="candidates=2"),
    "killed_diffusion_nft": lambda *a: killed_online(*a, objective="diffusion-nft", reference="ema:0.9",
                                                     prompts_per_round=1, objective_args="old_decay_rate=0.2"),
    "killed_flow_grpo": lambda *a: killed_on_a_flow_model(*a, objective="flow-grpo", reference="refresh:5"),
    "killed_flow_nft": lambda *a: killed_on_a_flow_model(*a, objective="diffusion-nft", prompts_per_round=1,
                                                         objective_args="old_decay_rate=0.2"),
    "killed_own_pairs": lambda *a: killed_online(*a, objective="diffusion-dpo", reference="refresh:3"),
    "killed_self_play": killed_self_play,
    "killed_longalign": lambda *a: killed_online(*a, objective="longalign", reward="shapes-soft", group_size=None,
                                                 prompts_per_round=None, objective_args="gradient_every=2"),
    "killed_cached_reference": lambda *a: killed(*a, "full", reference="cached"),
    "sigterm": lambda *a: interrupted(*a, signal.SIGTERM, 143),
    "sigint": lambda *a: interrupted(*a, signal.SIGINT, 130),
    "same_after_interrupt": same_after_interrupt,
    "other_run_is_refused": other_run_is_refused,
    "damaged_checkpoints": damaged_checkpoints_are_refused,
})
