"""Runs prefusion on models of the public sizes with random weights, on the CPU: does it all run, and in the memory it says?

    .venv/bin/python benchmarks/full_size/run.py [--only sdxl] [--dtype fp32] [--train-px 256] [--picture-px 512] [--threads 2]

One model at a time is made from the configs in benchmarks/geometries (SDXL base, Stable Diffusion 3.5 Medium without T5,
FLUX.1 dev at 3 + 6 of 19 + 38 blocks and 2 of 24 layers of T5; all of their public width), then taken through `inspect`,
`generate` of a picture in one step, and `align` of a LoRA for one step on one pair, as a dry run and in earnest, with weights
as they are and in bytes. Needs 14 GB of disk (fp32) in the temporary folder, or in --work, where the models stay. Prints two tables:
what the first two take, and what `align --dry-run` says beside what `align` takes (VmHWM of the process).
"""

import argparse
import io
import json
import math
import os
import pathlib
import sys
import tempfile

import numpy
import pyarrow
import pyarrow.parquet
import torch
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from make_model import make_model
from peak_memory import peak_of, said_peaks

PROMPT = "an astronaut riding a horse on the moon, oil painting"
# geometry -> (title, changes of its components' configs)
MODELS = {
    "sdxl": ("SDXL base", {}),
    "sd35_medium": ("SD 3.5 Medium", {}),
    "flux_dev": ("FLUX.1 dev, 3 + 6 blocks", {"transformer": dict(num_layers=3, num_single_layers=6),
                                              "text_encoder_2": dict(num_layers=2)}),
}
BASES = {"as the model's": [], "int8": ["--base-dtype", "int8"]}
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def picture_bytes(random, side):
    coarse = Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=numpy.uint8))
    data = io.BytesIO()
    coarse.resize((side, side), Image.BICUBIC).save(data, format="PNG")
    return data.getvalue()


def write_pair(path, side):
    random = numpy.random.default_rng(0)
    row = {"caption": PROMPT, "jpg_0": picture_bytes(random, side), "jpg_1": picture_bytes(random, side), "label_0": 1.0,
           "label_1": 0.0}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), path)


class Model:
    """A model's folder with what all commands are told."""

    def __init__(self, name, folder, options):
        self.title, changes = MODELS[name]
        self.folder, self.scratch, self.options = folder / "model", folder, options
        self.common = ["--threads", options.threads, "--quiet"]
        if self.folder.exists():
            self.parameters = json.loads((folder / "parameters.json").read_text())
            return
        self.parameters = make_model(name, self.folder, changes, DTYPES[options.dtype])
        (folder / "parameters.json").write_text(json.dumps(self.parameters))

    def command(self, name, *arguments):
        return [self.options.prefusion, name, *arguments, *self.common]

    def inspect(self):
        peak, seconds, text = peak_of(self.command("inspect", self.folder))
        assert "not checked" not in text, text
        return f"{peak / 1e9:.2f} GB, {seconds:.0f} s"

    def generate(self, side):
        output = self.scratch / f"picture-{side}.png"
        output.unlink(missing_ok=True)
        peak, seconds, _ = peak_of(self.command("generate", "--model", self.folder, "--prompt", PROMPT, "--steps", 1, "--height", side,
                                                "--width", side, "--output", output, "--dtype", self.options.dtype))
        assert numpy.asarray(Image.open(output)).shape == (side, side, 3)
        return f"{peak / 1e9:.2f} GB, {seconds:.0f} s"

    def align(self, base, pair):
        """What is said before the steps and of them, what is taken, and the seconds of a step and of the run."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as output:
            arguments = ["--model", self.folder, "--data", pair, "--output", pathlib.Path(output) / "run", "--resolution",
                         self.options.train_px, *BASES[base], "--gradient-checkpointing", "--batch-size", 1, "--steps", 1,
                         "--eval-groups", 0, "--no-hflip", "--dtype", self.options.dtype]
            said = said_peaks(peak_of(self.command("align", *arguments, "--dry-run"))[2])
            peak, seconds, _ = peak_of(self.command("align", *arguments))
            metrics = json.loads((pathlib.Path(output) / "run" / "metrics.jsonl").read_text().splitlines()[0])
        assert abs(metrics["loss"] - math.log(2)) < 1e-3, f"the first loss is {metrics['loss']}, not log 2"
        return *said, peak / 1e9, metrics["seconds_per_step"], seconds


def measure(name, folder, options):
    """Rows of both tables."""
    model = Model(name, folder, options)
    billions = [model.parameters.get("unet", model.parameters.get("transformer")) / 1e9, sum(model.parameters.values()) / 1e9]
    stored = sum(path.stat().st_size for path in model.folder.rglob("*.safetensors")) / 1e9
    pictures = [model.generate(side) for side in options.picture_px]
    first = f"| {model.title} | {billions[0]:.2f} | {billions[1]:.2f} | {stored:.1f} | {model.inspect()} | {' | '.join(pictures)} |"
    print(first, flush=True)
    second = []
    pair = folder / "pair.parquet"
    write_pair(pair, options.train_px)
    for base in options.bases:
        encoding, steps, taken, step, whole = model.align(base, pair)
        second.append(f"| {model.title} | {base} | {encoding:.2f} | {steps:.2f} | {taken:.2f} | {max(encoding, steps) / taken:.2f} | "
                      f"{step:.0f} | {whole:.0f} |")
        print(second[-1], flush=True)
    return first, second


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prefusion", default=ROOT / "build" / "prefusion", type=pathlib.Path)
    parser.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS), help="models to measure")
    parser.add_argument("--bases", nargs="+", choices=BASES, default=list(BASES), help="frozen weights beside the LoRA")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32", help="of the files, and of the work")
    parser.add_argument("--train-px", type=int, default=256, help="resolution of the training step")
    parser.add_argument("--picture-px", type=int, nargs="*", default=[512], help="sides of the pictures")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=pathlib.Path, help="folder that keeps the models; by default a temporary one for each")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    rows = []
    for name in options.only:
        with tempfile.TemporaryDirectory() as temporary:
            folder = options.work / name if options.work else pathlib.Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            rows.append(measure(name, folder, options))
    pictures = " | ".join(f"`generate`, {side} px" for side in options.picture_px)
    print(f"\n| model | denoiser, 1e9 weights | all, 1e9 | files, GB | `inspect` | {pictures} |")
    print("|---|---|---|---|---|" + "---|" * len(options.picture_px))
    print(*(first for first, _ in rows), sep="\n")
    print("\n| model | frozen weights | said of encoding, GB | said of the step, GB | taken, GB | larger / taken | step, s | whole run, s |")
    print("|---|---|---|---|---|---|---|---|")
    print(*(row for _, second in rows for row in second), sep="\n")


if __name__ == "__main__":
    main()
