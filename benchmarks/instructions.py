"""Counts the instructions of the CPU kernels and of the ATen operations they replace, under valgrind.

    benchmarks/instructions.py [--dtype fp32] [--only TEXT ...]

Unlike seconds, counts are nearly the same whatever else the machine does. valgrind knows no AVX-512, so what is counted are the
AVX2 versions of both; memory and the width of vectors do not show. One thread. Takes about 15 minutes for all.
"""

import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
KERNELS = ["noise and target", "error of an item", "guidance and step", "group norm of a sum", "geglu", "gated residual", "modulated layer norm", "rms norm", "adamw", "linear rows"]
TIMED = ("prefusion::tools::time_runs(std::function<void ()> const&, c10::Device, "
         "prefusion::tools::Repeats const&)")  # a call of it is a row


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(ROOT / "build" / "prefusion"))
    parser.add_argument("--dtype", choices=["fp32", "bf16", "fp16"], default="fp32")
    parser.add_argument("--only", nargs="+", default=KERNELS, help="kernels whose name contains one of these texts")
    return parser.parse_args()


def start(binary, folder, repeats, options):
    only = [argument for text in options.only for argument in ("--only", text)]
    return subprocess.Popen(
        ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder / 'counts'}", f"--zero-before={TIMED}", f"--dump-after={TIMED}",
         binary, "bench", "kernels", "--no-yardsticks", "--threads", "1", "--device", "cpu", "--dtype", options.dtype, "--warmup", "1",
         "--repeats", str(repeats), "--seconds", "0", "--output", folder / "rows.json", *only],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(process, folder):
    """Rows of the report, and instructions of each."""
    _, errors = process.communicate()
    if process.returncode != 0:
        sys.exit("\n".join(errors.splitlines()[-5:]))
    rows = json.loads((folder / "rows.json").read_text())["rows"]
    if not (folder / f"counts.{len(rows)}").exists():
        sys.exit(f"valgrind has not seen {TIMED}; is that still its name in {ROOT / 'tools' / 'bench_clock.h'}?")
    counts = [int(re.search(r"^totals: (\d+)", (folder / f"counts.{i + 1}").read_text(), re.MULTILINE)[1]) for i in range(len(rows))]
    return rows, counts


def main():
    options = parse_arguments()
    if not shutil.which("valgrind"):
        sys.exit("valgrind is not installed: apt-get install valgrind")
    with tempfile.TemporaryDirectory() as scratch:
        # Runs that differ by one repeat: what a first run sets up, and the counting of operations, fall out.
        folders = [pathlib.Path(scratch) / name for name in ("once", "twice")]
        binary = pathlib.Path(scratch) / "prefusion"
        subprocess.run(["strip", "--strip-debug", "-o", binary, options.binary], check=True)  # debug information valgrind may not read
        processes = []
        for repeats, folder in enumerate(folders, 1):
            folder.mkdir()
            processes.append(start(binary, folder, repeats, options))
        (rows, once), (_, twice) = [finish(process, folder) for process, folder in zip(processes, folders)]
        count_of = {row["name"]: after - before for row, before, after in zip(rows, once, twice)}
    print(f"| {options.dtype} | ATen, million instructions | prefusion | ratio |\n|---|---|---|---|")
    for row in rows:
        if "baseline" in row:
            theirs, ours = count_of[row["baseline"]], count_of[row["name"]]
            print(f"| {row['name']} | {theirs / 1e6:.1f} | {ours / 1e6:.1f} | {ours / theirs:.2f} |")


main()
