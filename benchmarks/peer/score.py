"""Times transformers' PickScore code and `prefusion score` side by side on the CPU, on a ViT-H/14 with random weights.

    benchmarks/peer/score.py [--rounds 3] [--batch-size 8] [--batches 4] [--threads 2] [--dtype fp32]

Both score the same pictures in the same batches. Runs alternate. Pictures a second are those of all batches but the
first, over the difference in time to a run of the first batch alone, so that loading does not count; memory is the
largest resident set of the process. The scores of both are compared too.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

from processes import execute

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="Python with torch, transformers and open_clip")
    parser.add_argument("--binary", default=str(ROOT / "build" / "prefusion"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--only", nargs="*", help="own, shared, three-rewards")
    parser.add_argument("--small", action="store_true", help="two layers a tower: for trying this script")
    parser.add_argument("--work", help="folder for model and pictures; kept when given")
    return parser.parse_args()


class Bench:
    def __init__(self, options, work):
        self.options, self.work = options, work

    def logged(self, command, log):
        """Seconds and peak bytes."""
        with open(log, "wb") as output:
            return execute(command, output, self.options.threads)

    def transformers(self, manifest, count, log):
        options = self.options
        return self.logged([options.python, HERE / "score_pictures.py", self.work / "model", self.work / f"{manifest}.jsonl",
                            count, options.batch_size, options.dtype], log)

    def prefusion(self, manifest, count, log, rewards=("pickscore",)):
        options = self.options
        part = self.work / "part.jsonl"
        part.write_text("".join((self.work / f"{manifest}.jsonl").read_text().splitlines(keepends=True)[:count]))
        flags = [flag for kind in rewards for flag in ("--reward", f"{kind}={self.work / 'model'}")]
        return self.logged([options.binary, "score", *flags, "--input", part, "--batch-size", options.batch_size, "--dtype",
                            options.dtype, "--threads", options.threads, "--device", "cpu", "--quiet"], log)

    def rate(self, program, manifest, **arguments):
        """Pictures a second, peak bytes, scores."""
        size, count = self.options.batch_size, self.options.batch_size * self.options.batches
        log = self.work / "scores.txt"
        first, _ = program(manifest, size, log, **arguments)
        whole, memory = program(manifest, count, log, **arguments)
        lines = log.read_text().splitlines()
        scores = [json.loads(line) for line in lines]
        scores = [score["pickscore"] if isinstance(score, dict) else score for score in scores]
        return (count - size) / (whole - first), memory, scores


def variants(bench):
    yield "own", "one prompt a picture", "own", bench.transformers, bench.prefusion, {}
    yield "shared", "ten pictures a prompt", "shared", bench.transformers, bench.prefusion, {}
    # The second program of this row is prefusion too: three rewards on one tower beside one.
    yield "three-rewards", "three rewards on one tower", "own", bench.prefusion, bench.prefusion, {"rewards": ("pickscore", "clip", "clip/b")}


def main():
    options = parse_arguments()
    work = pathlib.Path(options.work or tempfile.mkdtemp(prefix="prefusion-scorer-"))
    bench = Bench(options, work)
    rows = []
    try:
        if not (work / "own.jsonl").exists():
            command = [options.python, HERE / "make_scorer.py", work, "--pictures", options.batch_size * options.batches]
            subprocess.run([str(part) for part in command] + (["--small"] if options.small else []), check=True)
        for name, title, manifest, first, second, arguments in variants(bench):
            if options.only and name not in options.only:
                continue
            rounds = []
            for round_ in range(options.rounds):
                rounds.append((bench.rate(first, manifest), bench.rate(second, manifest, **arguments)))
                (a, b) = rounds[-1]
                print(f"round {round_ + 1} {name}: {a[0]:.3f} and {b[0]:.3f} pictures/s", file=sys.stderr, flush=True)
            ratios = [b[0] / a[0] for a, b in rounds]
            difference = max(abs(x - y) for a, b in rounds for x, y in zip(a[2], b[2]))
            rows.append(f"| {title} | {statistics.median(a[0] for a, _ in rounds):.3f} | {statistics.median(b[0] for _, b in rounds):.3f} "
                        f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} .. {max(ratios):.2f}) "
                        f"| {max(a[1] for a, _ in rounds) / 1e9:.2f} | {max(b[1] for _, b in rounds) / 1e9:.2f} "
                        f"| {max(b[1] for _, b in rounds) / max(a[1] for a, _ in rounds):.2f} | {difference:.4f} |")
        print(f"{options.dtype}, batches of {options.batch_size}, {options.threads} threads; the last row compares prefusion with itself\n")
        print("| case | transformers, pictures/s | prefusion | ratio (range) | GB | GB | ratio | largest difference of scores |")
        print("|---|---|---|---|---|---|---|---|")
        print("\n".join(rows))
    finally:
        if not options.work:
            shutil.rmtree(work, ignore_errors=True)


main()
