"""Runs every objective on the shapes world with the same data, steps and judge, and prints what each of them does.

    benchmarks/objectives/run.py                          all objectives: a small sweep of learning rate and kappa, 3 seeds
    benchmarks/objectives/run.py --quick --only mapo kto  one short run each, without a sweep: a look at a change, minutes

A run aligns assets/shapes (all weights, weight average 0.9, 24 pictures a step), then compares it with the start on
held-out captions under the judge (docs/shapes.md). The sweep tries two learning rates at the smaller kappa, then the
larger kappa (for MaPO: T) at the better learning rate, with a seed of its own; the best is the highest win rate among those that lose
at most 5 points of correctness. Every finished run is a line of --results: an interrupted benchmark goes on where it was.
"""

import argparse
import concurrent.futures
import itertools
import json
import math
import os
import pathlib
import re
import statistics
import subprocess
import sys
import threading
import time
import typing

ROOT = pathlib.Path(__file__).resolve().parents[2]
LEARNING_RATES = (5e-5, 1e-4)
KAPPA_FACTORS = (0.16, 0.8)  # of an objective's default; DPO's 2500 becomes 400 and 2000
# Objectives without a kappa whose margin has another strength: the parameter, its default, and what else is set.
STRENGTHS = {"mapo": ("T", 1000.0, "weight=1")}
Z95 = 1.959963984540054
SWEEP_SEED = 100
SWEEP_CAPTIONS = 48
LARGEST_LOSS = 0.05  # of correctness, that a setting of the sweep may have: two of its captions
SAMPLING = dict(scheduler="dpm++", steps=10, guidance_scale=3, batch_size=32)

WITHOUT_DATA = {"dcpo": "two prompts a picture", "tdpo": "wrong prompts", "masked": "masks", "ppd": "users",
                "tlpo": "experts to fuse"}
NEEDS_SCORES = ("smpo", "odpo")
LIVE_REFERENCE = ("dspo", "smpo", "ddim-inpo", "linear")  # those whose reference cannot be cached


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="objectives to run")
    parser.add_argument("--quick", action="store_true", help="no sweep, one seed, 20 steps, 96 captions")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--captions", type=int, default=160, help="held-out captions of a comparison")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="objectives at a time")
    parser.add_argument("--threads", type=int, default=1, help="of a job")
    parser.add_argument("--binary", default=str(ROOT / "build" / "prefusion"))
    parser.add_argument("--work", default=str(ROOT / "build" / "objectives"), help="data and runs")
    parser.add_argument("--results", help="file of finished runs (WORK/results.jsonl)")
    parser.add_argument("--table", action="store_true", help="print the table of what is finished, run nothing")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.steps, options.captions = 1, 20, 96
    return options


class Objective(typing.NamedTuple):
    name: str
    data: str
    kappa: float | None  # default of kappa or of what takes its place (STRENGTHS), None where there is neither
    has_reference: bool  # one that does not move


def listed_objectives(binary):
    """What --list-objectives says, and DPO on the best and worst of each list, with which RankDPO is compared, or of the
    policy's own samples."""
    text = subprocess.run([binary, "align", "--list-objectives"], check=True, capture_output=True, text=True).stdout
    rows = []
    for line in text.splitlines()[1:]:
        name, data, reference = re.split(r"\s{2,}", line)[:3]
        kappa = re.search(r"kappa (\S+) \(beta", line)
        strength = float(kappa.group(1)) if kappa else STRENGTHS[name][1] if name in STRENGTHS else None
        rows.append(Objective(name, data, strength, reference == "yes"))
    return rows + [Objective("diffusion-dpo on lists", "pair", 2500.0, True),
                   Objective("diffusion-dpo on own samples", "own", 2500.0, True)]


class Run(typing.NamedTuple):
    """One alignment."""
    objective: str
    lr: float
    kappa: float | None
    seed: int
    steps: int

    def name(self):
        kappa = "" if self.kappa is None else f"-kappa{self.kappa:g}"
        return f"{self.objective.replace(' ', '-')}-lr{self.lr:g}{kappa}-seed{self.seed}-{self.steps}"


class Results:
    """Finished runs, a line each; a key is everything that a result depends on besides the program."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.lock = threading.Lock()
        self.rows = {}
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                row = json.loads(line)
                self.rows[self.key(row)] = row

    @staticmethod
    def key(row):
        return tuple(row[name] for name in (*Run._fields, "captions"))

    def find(self, run, captions):
        return self.rows.get((*run, captions))

    def add(self, row):
        with self.lock:
            self.rows[self.key(row)] = row
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")


class Benchmark:
    def __init__(self, options):
        self.options = options
        self.work = pathlib.Path(options.work)
        self.work.mkdir(parents=True, exist_ok=True)
        self.results = Results(options.results or self.work / "results.jsonl")
        self.lists_lock = threading.Lock()
        self.workers = threading.local()
        self.worker_numbers = itertools.count()

    def command(self, program, **arguments):
        command = [self.options.binary, program] if program in ("align", "evaluate") else [str(program)]
        for name, value in arguments.items():
            flag = "--" + name.replace("_", "-")
            for item in value if isinstance(value, list) else [value]:
                command += [flag] if item is True else [flag, str(item)]
        return command + ["--threads", str(self.options.threads), "--device", "cpu", "--quiet"]

    def execute(self, command):
        """Peak resident bytes of a command that must succeed."""
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status != 0:
            raise RuntimeError(f"failed: {' '.join(command)}")
        return usage.ru_maxrss * 1024

    def lists(self):
        """Ranked lists of four of the model's own pictures, made once."""
        captions = 120 if self.options.quick else 300
        path = self.work / f"lists-{captions}.parquet"
        with self.lists_lock:
            if not path.exists():
                print("sampling ranked lists", file=sys.stderr)
                maker = pathlib.Path(self.options.binary).parent / "shapes_preferences"
                self.execute(self.command(maker, model=ROOT / "assets" / "shapes", output=path, layout="lists",
                                          captions=captions, num_images=4, scheduler="dpm++", steps=10,
                                          guidance_scale=3, seed=2))
        return path

    def cache(self):
        """A cache folder of the calling thread: one process at a time may write it."""
        if not hasattr(self.workers, "number"):
            self.workers.number = next(self.worker_numbers)
        return self.work / f"cache-{self.workers.number}"

    def captions(self):
        """Training captions for online objectives: those of the pairs."""
        import pyarrow.parquet

        path = self.work / "captions.txt"
        table = pyarrow.parquet.read_table(ROOT / "assets" / "shapes-preferences.parquet", columns=["caption"])
        path.write_text("\n".join(sorted(set(table["caption"].to_pylist()))) + "\n")
        return path

    def data_of(self, row):
        name, kind = row.name, row.data
        if name == "longalign":  # follows a gradient: its reward is a stand-in for the judge
            return dict(prompts=self.captions(), reward="shapes-soft", online_steps=10, online_guidance=3, batch_size=12,
                        objective_args="gradient_every=4")
        if kind == "online":  # 24 pictures a step as well; each serves two steps
            return dict(prompts=self.captions(), reward="shapes", online_steps=10, online_guidance=3, batch_size=4,
                        group_size=6, prompts_per_round=8, inner_epochs=2)
        if kind == "own":  # the best and the worst of four; each pair serves two steps
            return dict(prompts=self.captions(), reward="shapes", online_steps=10, online_guidance=3, eta=0, batch_size=12,
                        group_size=4, prompts_per_round=12, inner_epochs=2, empty_prompt_rate=0.1)
        uses_lists = kind == "list" or name in NEEDS_SCORES or name.endswith(" on lists")
        data = self.lists() if uses_lists else ROOT / "assets" / "shapes-preferences.parquet"
        groups = {"list": 6, "unpaired": 24}.get(kind, 12)  # 24 pictures a step for all
        arguments = dict(data=data, cache=self.cache(), batch_size=groups, no_hflip=True,
                         empty_prompt_rate=0.1, eval_every=20)
        if name not in LIVE_REFERENCE and row.has_reference:
            arguments["reference"] = "cached"
        return arguments

    def align(self, row, run):
        """Trains one run; its folder, and what it took."""
        output = self.work / "runs" / run.name()
        arguments = dict(model=ROOT / "assets" / "shapes", objective=row.name.split(" ")[0], adapter="full", lr=run.lr,
                         lr_schedule="cosine", warmup=5, steps=run.steps, ema=0.9, seed=run.seed, save_every=0, log_every=1, output=output,
                         **self.data_of(row))
        if row.name in STRENGTHS:
            parameter, _, others = STRENGTHS[row.name]
            arguments["objective_args"] = f"{parameter}={run.kappa:g},{others}"
        elif run.kappa is not None:
            arguments["kappa"] = run.kappa
        subprocess.run(["rm", "-rf", str(output)], check=True)
        return output, self.execute(self.command("align", **arguments))

    def run_all(self, row, runs, captions):
        """Results of runs, those that are not known yet aligned and compared with the start together."""
        missing = [run for run in runs if self.results.find(run, captions) is None]
        began = time.monotonic()
        trained = [self.align(row, run) for run in missing]
        if missing:
            comparison = self.work / "runs" / f"{missing[0].name()}-evaluation"
            subprocess.run(["rm", "-rf", str(comparison)], check=True)
            # One seed for the pictures of all: the start's are drawn once.
            self.execute(self.command("evaluate", model=[output for output, _ in trained],
                                      baseline=ROOT / "assets" / "shapes", held_out=captions, reward="shapes",
                                      **SAMPLING, seed=missing[0].seed, output=comparison))
        for run, (output, memory) in zip(missing, trained):
            summary = comparison / output.name / "summary.json" if len(missing) > 1 else comparison / "summary.json"
            result = {**run._asdict(), "captions": captions, "peak_bytes": memory,
                      **self.measured(output, json.loads(summary.read_text()))}
            self.results.add(result)
            subprocess.run(["rm", "-rf", str(output)], check=True)
            print(f"{run.name()}: win rate {result['win_rate']:.3f}, correct {result['correct_before']:.3f} -> "
                  f"{result['correct_after']:.3f}", file=sys.stderr)
        if missing:
            subprocess.run(["rm", "-rf", str(comparison)], check=True)
            print(f"{row.name}: {len(missing)} runs in {time.monotonic() - began:.0f} s", file=sys.stderr)
        return [self.results.find(run, captions) for run in runs]

    def measured(self, output, summary):
        rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
        last = next((row for row in reversed(rows) if "eval/error_chosen_ref" in row), {})

        def drift(item):
            error, start = last.get(f"eval/error_{item}"), last.get(f"eval/error_{item}_ref")
            return error / start - 1 if error is not None and start else None

        axes = {axis["name"]: axis for axis in summary["axes"]}
        seconds = [row["seconds_per_step"] for row in rows if "seconds_per_step" in row][2:]
        return {"win_rate": summary["win_rate"]["value"], "win_low": summary["win_rate"]["low"],
                "correct_before": axes["correct"]["baseline"]["value"], "correct_after": axes["correct"]["model"]["value"],
                "taste_before": axes["taste"]["baseline"]["value"], "taste_after": axes["taste"]["model"]["value"],
                "drift_chosen": drift("chosen"), "drift_rejected": drift("rejected"),
                "seconds_per_step": statistics.median(seconds)}

    def best(self, row, settings):
        """The (lr, kappa) that wins most without losing correctness."""
        runs = [Run(row.name, lr, kappa, SWEEP_SEED, self.options.steps) for lr, kappa in settings]

        def score(result):
            lost = result["correct_before"] - result["correct_after"]
            return (lost <= LARGEST_LOSS, result["win_rate"] if lost <= LARGEST_LOSS else -lost)

        results = self.run_all(row, runs, SWEEP_CAPTIONS)
        _, setting = max(zip(results, settings), key=lambda pair: score(pair[0]))
        return setting

    def settings(self, row):
        """Learning rate and kappa: without a sweep the larger rate and the smaller kappa, else the best."""
        small, large = (None, None) if row.kappa is None else (row.kappa * factor for factor in KAPPA_FACTORS)
        if self.options.quick:
            return LEARNING_RATES[1], small
        lr, _ = self.best(row, [(lr, small) for lr in LEARNING_RATES])
        return (lr, None) if small is None else self.best(row, [(lr, small), (lr, large)])

    def measure(self, row):
        lr, kappa = self.settings(row)
        runs = [Run(row.name, lr, kappa, seed, self.options.steps) for seed in range(self.options.seeds)]
        return self.run_all(row, runs, self.options.captions)

    def finished(self, row):
        """Results of the full runs, if all of them are there; of the last setting that has them."""
        settings = {}
        for result in self.results.rows.values():
            if (result["objective"], result["steps"], result["captions"]) == (row.name, self.options.steps,
                                                                              self.options.captions):
                settings.setdefault((result["lr"], result["kappa"]), {})[result["seed"]] = result
        whole = [by_seed for by_seed in settings.values() if set(range(self.options.seeds)) <= set(by_seed)]
        return [whole[-1][seed] for seed in range(self.options.seeds)] if whole else []


def pooled_wins(results):
    """Wins over the runs of all seeds together, with the 95 % score interval (Wilson)."""
    count = sum(result["captions"] for result in results)
    rate = sum(result["win_rate"] * result["captions"] for result in results) / count
    shrink = 1 / (1 + Z95**2 / count)
    centre = shrink * (rate + Z95**2 / (2 * count))
    reach = shrink * Z95 * math.sqrt(rate * (1 - rate) / count + Z95**2 / (4 * count**2))
    return f"{100 * rate:.0f} % [{100 * (centre - reach):.0f}, {100 * (centre + reach):.0f}]"


def data_text(row):
    if row.name.endswith(" on lists"):
        return "pairs of these lists"
    if row.name in NEEDS_SCORES:
        return "pairs of the lists, with scores"
    return {"pair": "pairs", "single": "pictures", "unpaired": "pictures", "list": "lists of 4", "own": "own samples (`--prompts`)",
            "online": "own samples (`--prompts`)"}[row.data]


def table_row(row, results):
    def mean(name, scale=1.0, digits=1):
        values = [result[name] for result in results if result[name] is not None]
        return f"{scale * statistics.mean(values):.{digits}f}" if values else None

    def setting(value):
        return f"{value:.0e}".replace("e-0", "e-") if value < 1e-3 else f"{value:g}"

    first = results[0]
    strength = "" if first["kappa"] is None else setting(first["kappa"])
    if row.name in STRENGTHS:
        strength = f"{STRENGTHS[row.name][0]} {strength}"
    wins = ", ".join(f"{100 * result['win_rate']:.0f}" for result in results)
    gained = 100 * statistics.mean(result["correct_after"] - result["correct_before"] for result in results)
    drifts = [mean(f"drift_{item}", 100) for item in ("chosen", "rejected")]
    drift = " / ".join(f"{value} %" for value in drifts if value is not None)
    return (f"| {row.name.split(' ')[0]} | {data_text(row)} | {setting(first['lr'])} | {strength} | {pooled_wins(results)} | {wins} | "
            f"{100 * min(result['win_low'] for result in results):.0f} | {gained:+.1f} | "
            f"{mean('taste_before', digits=3)} -> {mean('taste_after', digits=3)} | {drift} | "
            f"{mean('seconds_per_step', digits=2)} | {mean('peak_bytes', 1e-9, 2)} |")


HEADER = """| objective | data | lr | kappa | win rate against the start | each seed | lowest lower end | correctness, points | taste | drift of chosen / rejected | s a step | GB |
|---|---|---|---|---|---|---|---|---|---|---|---|"""


def table(benchmark, rows):
    lines = [HEADER]
    for row in rows:
        if row.name in WITHOUT_DATA:
            lines.append(f"| {row.name} | not run: the shapes world has no {WITHOUT_DATA[row.name]} |" + " |" * 10)
        elif results := benchmark.finished(row):
            lines.append(table_row(row, results))
    return "\n".join(lines)


def main():
    options = parse_arguments()
    benchmark = Benchmark(options)
    rows = listed_objectives(options.binary)
    if options.only:
        known = {row.name for row in rows}
        if unknown := set(options.only) - known:
            sys.exit(f"--only: no such objective: {', '.join(sorted(unknown))}")
        rows = [row for row in rows if row.name in options.only]
    if not options.table:
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(benchmark.measure, [row for row in rows if row.name not in WITHOUT_DATA]))
    print(table(benchmark, rows))


main()
