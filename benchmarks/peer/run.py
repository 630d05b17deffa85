"""Times huggingface/diffusers' own Diffusion-DPO scripts and `prefusion align` side by side on the CPU.

Both fine-tune the same small model (rank-8 LoRA, fp32) on the same Parquet file with the same batch and resolution.
Runs alternate, so that both meet the same neighbours on the machine; the figure that counts is the ratio.

    benchmarks/peer/run.py --script train_diffusion_dpo.py [--python PYTHON] [--rounds 3] [--steps 8] [--threads 2]
    benchmarks/peer/run.py --script train_diffusion_dpo_sdxl.py --family sdxl

Seconds a step are the differences between the wall times of TensorBoard events, which both programs write after each
step. The first steps of a run are left out. Memory is the largest resident set of the process.
"""

import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
WARM_UP_STEPS = 2


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--script", required=True, help="path of train_diffusion_dpo.py, or train_diffusion_dpo_sdxl.py")
    parser.add_argument("--family", choices=["sd", "sdxl"], default="sd", help="what the script trains")
    parser.add_argument("--python", default=sys.executable, help="Python that has the script's packages")
    parser.add_argument("--binary", default=str(ROOT / "build" / "prefusion"))
    parser.add_argument("--rounds", type=int, default=3, help="runs of each program")
    parser.add_argument("--steps", type=int, default=8, help="steps a run")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=4, help="pairs a step")
    parser.add_argument("--resolution", type=int, default=256, help="pixels")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--only", nargs="*", help="variants to run: script, no-cache, cached, cached-reference, mapo")
    parser.add_argument("--work", help="folder for model, data and outputs; kept when given")
    return parser.parse_args()


def script_command(options, work, output):
    return [options.python, options.script, "--pretrained_model_name_or_path", work / "inputs" / "model",
            "--dataset_name", work / "inputs" / "data", "--dataset_split_name", "train", "--output_dir", output,
            "--cache_dir", work / "dataset_cache", "--resolution", options.resolution, "--train_batch_size",
            options.batch_size, "--max_train_steps", options.steps, "--rank", options.rank, "--seed", 0,
            "--learning_rate", 1e-5, "--lr_warmup_steps", 0, "--mixed_precision", "no", "--report_to", "tensorboard"]


def prefusion_command(options, work, output, *flags):
    return [options.binary, "align", "--model", work / "inputs" / "model", "--data",
            work / "inputs" / "data" / "train.parquet", "--output", output, "--resolution", options.resolution,
            "--batch-size", options.batch_size, "--steps", options.steps, "--rank", options.rank, "--threads",
            options.threads, "--log-every", 1, "--eval-every", 0, "--device", "cpu", "--quiet", *flags]


VARIANTS = {
    "script": script_command,
    "no-cache": lambda options, work, output: prefusion_command(options, work, output, "--no-cache"),
    "cached": prefusion_command,
    # Errors of the reference computed ahead: what a step then costs beside an objective that needs no reference.
    "cached-reference": lambda options, work, output: prefusion_command(options, work, output, "--reference", "cached"),
    "mapo": lambda options, work, output: prefusion_command(options, work, output, "--objective", "mapo"),
}


def step_seconds(folder):
    """Differences of the wall times at which consecutive steps were logged."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = []
    for file in pathlib.Path(folder).rglob("events.out.tfevents.*"):
        accumulator = EventAccumulator(str(file)).Reload()
        if "loss" in accumulator.Tags()["scalars"]:
            events += [(event.step, event.wall_time) for event in accumulator.Scalars("loss")]
    times = [wall_time for _, wall_time in sorted(events)]
    return [later - earlier for earlier, later in zip(times, times[1:])][WARM_UP_STEPS - 1 :]


def run(options, work, variant):
    """Seconds a step, peak memory in bytes, and whole seconds of one run."""
    output = work / "output" / variant
    shutil.rmtree(output, ignore_errors=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "MKL_NUM_THREADS": str(options.threads),
                   "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [str(part) for part in VARIANTS[variant](options, work, output)]
    began = time.monotonic()
    with open(work / f"{variant}.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began
    if status != 0:
        sys.exit(f"{variant} failed:\n{(work / f'{variant}.log').read_text(errors='replace')[-3000:]}")
    return step_seconds(output), usage.ru_maxrss * 1024, seconds


def print_table(results):
    print("\n| variant | seconds a step: median (range) | ratio | peak memory, GB | ratio | whole run, s |")
    print("|---|---|---|---|---|---|")
    base = results.get("script")
    for variant, runs in results.items():
        steps = [seconds for run_steps, _, _ in runs for seconds in run_steps]
        median, memory = statistics.median(steps), max(memory for _, memory, _ in runs)
        ratios = ["", ""]
        if base:
            # Each run against the script's run of the same round.
            of_rounds = [statistics.median(run_[0]) / statistics.median(other[0]) for run_, other in zip(runs, base)]
            ratios = [f"{statistics.median(of_rounds):.2f}", f"{memory / max(other[1] for other in base):.2f}"]
        whole = statistics.median(seconds for _, _, seconds in runs)
        print(f"| {variant} | {median:.2f} ({min(steps):.2f} .. {max(steps):.2f}) | {ratios[0]} "
              f"| {memory / 1e9:.2f} | {ratios[1]} | {whole:.0f} |")


def main():
    options = parse_arguments()
    work = pathlib.Path(options.work or tempfile.mkdtemp(prefix="prefusion-peer-"))
    variants = options.only or list(VARIANTS)
    try:
        if not (work / "inputs").exists():
            maker = pathlib.Path(__file__).parent / "make_inputs.py"
            subprocess.run([options.python, str(maker), str(work / "inputs"), options.family], check=True)
        results = {variant: [] for variant in variants}
        for round_ in range(options.rounds):
            for variant in variants:
                results[variant].append(run(options, work, variant))
                steps, memory, seconds = results[variant][-1]
                print(f"round {round_ + 1} {variant}: {statistics.median(steps):.2f} s a step, {memory / 1e9:.2f} GB, "
                      f"{seconds:.0f} s in all", flush=True)
        print_table(results)
    finally:
        if not options.work:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
