"""Times transformers' PickScore code and `prefusion score` side by side on the CPU, on a ViT-H/14 with random weights.

    benchmarks/peer/score.py [--rounds 3] [--batch-size 8] [--batches 5] [--threads 2] [--dtype fp32]

Both score the same pictures in the same batches, taking turns: while one scores a batch, the other is stopped, so that
both see the same machine. The first batch of each, with which models are loaded, does not count. Printed are the median
of pictures a second, and of the ratios of neighbouring batches their median, quartiles and number; memory is the largest
resident set of the process. The scores of both are compared too.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

from processes import Stepped, spread

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="Python with torch, transformers and open_clip")
    parser.add_argument("--binary", default=str(ROOT / "build" / "prefusion"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--batches", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--only", nargs="*", help="own, shared, three-rewards")
    parser.add_argument("--small", action="store_true", help="two layers a tower: for trying this script")
    parser.add_argument("--work", help="folder for model and pictures; kept when given")
    options = parser.parse_args()
    if options.batches < 2:
        parser.error("--batches: the first does not count, so there must be two")
    return options


class Bench:
    def __init__(self, options, work):
        self.options, self.work = options, work

    def transformers(self, manifest):
        options = self.options
        return [options.python, HERE / "score_pictures.py", self.work / "model", self.work / f"{manifest}.jsonl",
                self.count(), options.batch_size, options.dtype]

    def prefusion(self, manifest, rewards=("pickscore",)):
        options = self.options
        part = self.work / f"part-{manifest}.jsonl"
        part.write_text("".join((self.work / f"{manifest}.jsonl").read_text().splitlines(keepends=True)[:self.count()]))
        flags = [flag for kind in rewards for flag in ("--reward", f"{kind}={self.work / 'model'}")]
        return [options.binary, "score", *flags, "--input", part, "--batch-size", options.batch_size, "--dtype", options.dtype,
                "--threads", options.threads, "--device", "cpu", "--quiet"]

    def count(self):
        return self.options.batch_size * self.options.batches

    def in_turns(self, *commands):
        """Of each command: seconds of every batch but the first, peak bytes, scores."""
        programs = [Stepped(command, self.options.threads) for command in commands]
        seconds, scores = [[] for _ in programs], [[] for _ in programs]
        for batch in range(self.options.batches):
            for i, program in enumerate(programs):
                took, lines = program.advance(self.options.batch_size)
                seconds[i] += [took] if batch > 0 else []
                scores[i] += [score_of(line) for line in lines]
        return [(seconds[i], program.finish(), scores[i]) for i, program in enumerate(programs)]


def score_of(line):
    value = json.loads(line)
    return value["pickscore"] if isinstance(value, dict) else value


def row_of(title, rounds, batch_size):
    """A line of the table, of rounds of in_turns()."""
    first, second = ([seconds for round_ in rounds for seconds in round_[i][0]] for i in (0, 1))
    ratios = [a / b for a, b in zip(first, second)]
    memory = [max(round_[i][1] for round_ in rounds) / 1e9 for i in (0, 1)]
    difference = max(abs(x - y) for a, b in rounds for x, y in zip(a[2], b[2]))
    return (f"| {title} | {batch_size / statistics.median(first):.3f} | {batch_size / statistics.median(second):.3f} "
            f"| {spread(ratios)} | {memory[0]:.2f} | {memory[1]:.2f} "
            f"| {memory[1] / memory[0]:.2f} | {difference:.4f} |")


def variants(bench):
    yield "own", "one prompt a picture", bench.transformers("own"), bench.prefusion("own")
    yield "shared", "ten pictures a prompt", bench.transformers("shared"), bench.prefusion("shared")
    # The first program of this row is prefusion too: one reward beside three on one tower.
    yield ("three-rewards", "three rewards on one tower", bench.prefusion("own"),
           bench.prefusion("own", rewards=("pickscore", "clip", "clip/b")))


def main():
    options = parse_arguments()
    work = pathlib.Path(options.work or tempfile.mkdtemp(prefix="prefusion-scorer-"))
    bench = Bench(options, work)
    rows = []
    try:
        if not (work / "own.jsonl").exists():
            command = [options.python, HERE / "make_scorer.py", work, "--pictures", options.batch_size * options.batches]
            subprocess.run([str(part) for part in command] + (["--small"] if options.small else []), check=True)
        for name, title, first, second in variants(bench):
            if options.only and name not in options.only:
                continue
            rounds = []
            for round_ in range(options.rounds):
                rounds.append(bench.in_turns(first, second))
                a, b = (statistics.median(seconds) for seconds, _, _ in rounds[-1])
                print(f"round {round_ + 1} {name}: {a:.2f} and {b:.2f} s a batch", file=sys.stderr, flush=True)
            rows.append(row_of(title, rounds, options.batch_size))
        print(f"{options.dtype}, batches of {options.batch_size}, {options.threads} threads; the last row compares prefusion with itself\n")
        print("| case | transformers, pictures/s | prefusion | ratio (quartiles), batches | GB | GB | ratio | largest difference of scores |")
        print("|---|---|---|---|---|---|---|---|")
        print("\n".join(rows))
    finally:
        if not options.work:
            shutil.rmtree(work, ignore_errors=True)


main()
