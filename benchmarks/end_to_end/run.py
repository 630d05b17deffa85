"""The whole chain on the bundled shapes world, from nothing but its judge, with each stage's effect in one table.

    benchmarks/end_to_end/run.py            the whole size; the reward model takes most of the time
    benchmarks/end_to_end/run.py --quick    every stage in a few minutes: whether the chain works, not what it gives

A reward model learns the judge's preferences (train-reward), ranks new pictures of assets/shapes for captions it had no pair of,
and of others (synthesize), the clearer half of the lists is selected by FiFA's score (filter), RankDPO learns from all lists and
from that half in equally many steps (align), and the judge compares both with the start on held-out captions (evaluate). The
judge is asked nowhere in between but to say how good the lists are.

A stage is done when its folder has a result.json: an interrupted benchmark goes on with the next one, and inside the one it was
in where the command can. Folders carry a hash of every setting before and in their stage, so other settings are other folders.
"""

import argparse
import hashlib
import json
import math
import pathlib
import random
import shutil
import subprocess
import sys
import time

import numpy
import pyarrow
import pyarrow.compute
import pyarrow.parquet

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "assets" / "shapes"
PREFERENCES = ROOT / "assets" / "shapes-preferences.parquet"
SAMPLING = dict(scheduler="dpm++", steps=10, guidance_scale=3)
LISTS_A_STEP = 6  # of four: 24 pictures
Z95 = 1.959963984540054


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small fraction of everything, one seed")
    parser.add_argument("--judged", type=int, default=300, help="captions of judged lists the reward learns from, beside the bundled pairs")
    parser.add_argument("--reward-steps", type=int, default=800)
    parser.add_argument("--prompts", type=int, default=320, help="ranked lists of four pictures")
    parser.add_argument("--keep", default="50%", help="of the lists, by filter")
    parser.add_argument("--steps", type=int, default=40, help="of each alignment")
    parser.add_argument("--lr", type=float, default=1e-4, help="of the alignments")
    parser.add_argument("--kappa", type=float, default=400, help="of RankDPO")
    parser.add_argument("--captions", type=int, default=160, help="held-out captions of a comparison")
    parser.add_argument("--seeds", type=int, default=2, help="alignments of each kind")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--binary", default=str(ROOT / "build" / "prefusion"))
    parser.add_argument("--work", default=str(ROOT / "build" / "end_to_end"))
    options = parser.parse_args()
    if options.quick:
        options.judged, options.reward_steps, options.prompts = 12, 60, 36
        options.steps, options.captions, options.seeds = 8, 24, 1
    return options


def wilson(successes, count):
    """A share with its 95 % score interval."""
    rate = successes / count
    shrink = 1 / (1 + Z95**2 / count)
    centre = shrink * (rate + Z95**2 / (2 * count))
    reach = shrink * Z95 * math.sqrt(rate * (1 - rate) / count + Z95**2 / (4 * count**2))
    return {"value": rate, "low": centre - reach, "high": centre + reach}


def bootstrap(values):
    """A mean with its 95 % percentile interval."""
    values = numpy.asarray(values)
    drawn = numpy.random.default_rng(0).integers(len(values), size=(4000, len(values)))
    low, high = numpy.quantile(values[drawn].mean(1), [0.025, 0.975])
    return {"value": float(values.mean()), "low": float(low), "high": float(high)}


def kendall_tau(first, second):
    """Tau-b; nothing where either is all ties."""
    first, second = numpy.asarray(first), numpy.asarray(second)
    above = numpy.triu_indices(len(first), 1)
    a = numpy.sign(first[:, None] - first[None])[above]
    b = numpy.sign(second[:, None] - second[None])[above]
    scale = math.sqrt((a != 0).sum() * (b != 0).sum())
    return float((a * b).sum() / scale) if scale else None


class Chain:
    def __init__(self, options):
        self.options = options
        self.work = pathlib.Path(options.work)
        self.keys = []

    def stage(self, name, settings, make, after=()):
        """Result of a stage, its folder among it: kept from an earlier run, or made now."""
        key = hashlib.sha256(json.dumps([name, settings, [stage["key"] for stage in after]]).encode()).hexdigest()[:10]
        folder = self.work / f"{name}-{key}"
        path = folder / "result.json"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            print(f"{name} ...", file=sys.stderr)
            began = time.monotonic()
            result = make(folder)
            result = {**result, "settings": settings, "seconds": time.monotonic() - began}
            path.with_suffix(".part").write_text(json.dumps(result, indent=1) + "\n")
            path.with_suffix(".part").rename(path)
        return {**json.loads(path.read_text()), "key": key, "folder": folder}

    def run(self, program, *flags, **arguments):
        """Runs a subcommand, or a maker of data beside the program; its standard output."""
        beside = pathlib.Path(self.options.binary).parent / program
        command = [str(beside)] if beside.exists() else [self.options.binary, program]
        for name, value in arguments.items():
            for item in value if isinstance(value, list) else [value]:
                command += ["--" + name.replace("_", "-"), str(item)]
        command += [*flags, "--threads", str(self.options.threads), "--device", "cpu", "--quiet"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            sys.exit(f"failed: {' '.join(command)}")
        return done.stdout

    # The stages, in order.

    def pairs(self, folder):
        """What the judge prefers: the bundled pairs, a quarter of their captions for the test, and lists of new pictures."""
        table = pyarrow.parquet.read_table(PREFERENCES)
        captions = sorted(set(table["caption"].to_pylist()))
        test = set(random.Random(0).sample(captions, len(captions) // 4))
        is_test = pyarrow.array([caption in test for caption in table["caption"].to_pylist()])
        pyarrow.parquet.write_table(table.filter(is_test), folder / "test.parquet")
        pyarrow.parquet.write_table(table.filter(pyarrow.compute.invert(is_test)), folder / "pairs.parquet")
        if not (folder / "sampled.parquet").exists():
            self.run("shapes_preferences", model=MODEL, output=folder / "sampled.parquet", layout="lists",
                     captions=self.options.judged, num_images=4, seed=2, **SAMPLING)
        lists = pyarrow.parquet.read_table(folder / "sampled.parquet")
        is_new = pyarrow.array([prompt not in test for prompt in lists["prompt"].to_pylist()])
        pyarrow.parquet.write_table(lists.filter(is_new), folder / "lists.parquet")
        return {"test_pairs": sum(is_test.to_pylist()), "lists": sum(is_new.to_pylist())}

    def reward(self, folder, pairs):
        source = pairs["folder"]
        self.run("train-reward", "--resume", "--no-prompt-weights", from_config=ROOT / "examples" / "shapes-reward-config",
                 train="full", data=[source / "pairs.parquet", source / "lists.parquet"], test_data=source / "test.parquet",
                 eval_fraction=0.1, in_batch_negatives=1, steps=self.options.reward_steps, batch_size=64, lr=1e-3, warmup=50,
                 weight_decay=0.05, eval_every=100, save_every=200, output=folder / "reward")
        report = json.loads((folder / "reward" / "report.json").read_text())
        return {"before": report["test_before"]["accuracy"], "after": report["test"]["overall"]["accuracy"]}

    def prompts(self, pairs):
        """Captions the reward had no pair of first, so that their share does not depend on how many are taken."""
        def captions(path):
            return sorted(set(pyarrow.parquet.read_table(path, columns=["caption"])["caption"].to_pylist()))

        unseen = captions(pairs["folder"] / "test.parquet")
        seen = sorted(set(captions(PREFERENCES)) - set(unseen))
        half = min(len(unseen), self.options.prompts // 2)
        chosen = random.Random(0).sample(unseen, half)
        return chosen + random.Random(1).sample(seen, self.options.prompts - half), set(chosen)

    def lists(self, folder, pairs, reward):
        chosen, unseen = self.prompts(pairs)
        (folder / "prompts.txt").write_text("".join(f"{caption}\n" for caption in chosen))
        self.run("synthesize", "--resume", model=MODEL, prompts=folder / "prompts.txt", per_model=4,
                 reward=f"pickscore={reward['folder'] / 'reward'}", output=folder / "lists.parquet", seed=1, **SAMPLING)
        self.run("score", "--overwrite", reward="shapes", input=folder / "lists.parquet", output=folder / "checked.jsonl")
        checked = {}
        for line in (folder / "checked.jsonl").read_text().splitlines():
            row = json.loads(line)
            checked[tuple(map(int, row["image"].rsplit("#", 1)[1].split(":")))] = row["shapes"]
        taus = {}
        correct = {"mean": [], "first": []}
        for number, row in enumerate(pyarrow.parquet.read_table(folder / "lists.parquet").to_pylist()):
            scores = [dict(item["scores"])["pickscore"] for item in row["images"]]
            truth = [checked[number, place] for place in range(len(scores))]
            tau = kendall_tau(scores, truth)
            if tau is not None:
                taus[row["prompt"]] = tau
            correct["mean"].append(sum(value >= 2 for value in truth) / len(truth))
            correct["first"].append(float(truth[int(numpy.argmax(scores))] >= 2))
        (folder / "taus.json").write_text(json.dumps(taus))
        return {"lists": len(correct["first"]), "tau": bootstrap(list(taus.values())),
                "tau_unseen": bootstrap([tau for prompt, tau in taus.items() if prompt in unseen]),
                "correct_mean": bootstrap(correct["mean"]), "correct_first": bootstrap(correct["first"])}

    @staticmethod
    def num_pairs(rows):
        return sum(a["rank"] < b["rank"] for row in rows for a in row["images"] for b in row["images"])

    def filter(self, folder, lists):
        source = lists["folder"] / "lists.parquet"
        self.run("filter", input=source, output=folder / "filtered.parquet", keep=self.options.keep, margin_score="pickscore")
        kept = pyarrow.parquet.read_table(folder / "filtered.parquet").to_pylist()
        taus = json.loads((lists["folder"] / "taus.json").read_text())
        return {"lists": len(kept), "pairs": self.num_pairs(kept),
                "pairs_before": self.num_pairs(pyarrow.parquet.read_table(source).to_pylist()),
                "tau": bootstrap([taus[row["prompt"]] for row in kept if row["prompt"] in taus])}

    def align(self, folder, data, seed):
        self.run("align", "--no-hflip", model=MODEL, data=data, objective="rankdpo", kappa=self.options.kappa, adapter="full",
                 ema=0.9, lr=self.options.lr, lr_schedule="cosine", warmup=5, steps=self.options.steps,
                 batch_size=LISTS_A_STEP, empty_prompt_rate=0.1, reference="cached", cache=folder / "cache", save_every=0,
                 eval_every=max(1, self.options.steps // 2), seed=seed, resume="auto", output=folder / "run")
        shutil.rmtree(folder / "cache")
        return {}

    def evaluate(self, folder, runs, seed):
        """Both models of a seed against the start, whose pictures are drawn once."""
        models = []
        for name, run in runs.items():  # evaluate names models after their folders
            if not (folder / name).exists():
                (folder / name).symlink_to(run["folder"] / "run")
            models.append(folder / name)
        shutil.rmtree(folder / "comparison", ignore_errors=True)
        self.run("evaluate", model=models, baseline=MODEL, held_out=self.options.captions, reward="shapes", batch_size=32,
                 seed=seed, output=folder / "comparison", **SAMPLING)
        result = {}
        for name in runs:
            summary = json.loads((folder / "comparison" / name / "summary.json").read_text())
            axes = {axis["name"]: axis for axis in summary["axes"]}
            result[name] = {"pairs": summary["num_pairs"], "wins": summary["win_rate"]["value"] * summary["num_pairs"],
                            "before": axes["correct"]["baseline"]["value"], "after": axes["correct"]["model"]["value"]}
        return result

    def run_all(self):
        options = self.options
        pairs = self.stage("pairs", {"judged": options.judged}, self.pairs)
        reward = self.stage("reward", {"steps": options.reward_steps}, lambda f: self.reward(f, pairs), [pairs])
        lists = self.stage("lists", {"prompts": options.prompts}, lambda f: self.lists(f, pairs, reward), [reward])
        filtered = self.stage("filter", {"keep": options.keep}, lambda f: self.filter(f, lists), [lists])
        settings = {"steps": options.steps, "lr": options.lr, "kappa": options.kappa}
        stages = [pairs, reward, lists, filtered]
        comparisons = []
        for seed in range(options.seeds):
            runs = {name: self.stage(f"align-{name}", {**settings, "seed": seed},
                                     lambda f: self.align(f, stage["folder"] / f"{source}.parquet", seed), [stage])
                    for name, source, stage in (("all", "lists", lists), ("filtered", "filtered", filtered))}
            comparisons.append(self.stage("evaluate", {"captions": options.captions, "seed": seed},
                                          lambda f: self.evaluate(f, runs, seed), list(runs.values())))
            stages += [*runs.values(), comparisons[-1]]
        return table(reward, lists, filtered, comparisons, sum(stage["seconds"] for stage in stages))


def shown(interval, scale=100.0, unit=" %", digits=1):
    value, low, high = (scale * interval[key] for key in ("value", "low", "high"))
    return f"{value:.{digits}f}{unit} [{low:.{digits}f}, {high:.{digits}f}]"


def aligned_row(name, comparisons):
    results = [comparison[name] for comparison in comparisons]
    wins = wilson(sum(result["wins"] for result in results), sum(result["pairs"] for result in results))
    by_seed = ", ".join(f"{100 * result['before']:.1f} -> {100 * result['after']:.1f} %" for result in results)
    return f"| RankDPO on {name} lists | win rate {shown(wins)}; correct, by seed: {by_seed} |"


def table(reward, lists, filtered, comparisons, seconds):
    tau = dict(scale=1.0, unit="", digits=2)
    rows = ["| stage | effect (95 % intervals) |", "|---|---|",
            f"| reward | accuracy on unseen captions {shown(reward['before'])} -> {shown(reward['after'])} |",
            f"| lists | Kendall's tau to the judge {shown(lists['tau'], **tau)}, on unseen captions "
            f"{shown(lists['tau_unseen'], **tau)}; correct: all pictures {shown(lists['correct_mean'])}, first of each list "
            f"{shown(lists['correct_first'])} |",
            f"| filter | {filtered['lists']} of {lists['lists']} lists, {filtered['pairs']} of {filtered['pairs_before']} pairs; "
            f"tau {shown(filtered['tau'], **tau)} |",
            aligned_row("all", comparisons), aligned_row("filtered", comparisons)]
    return "\n".join(rows) + f"\n\n{seconds / 60:.1f} minutes of work in all stages"


print(Chain(parse_arguments()).run_all())
