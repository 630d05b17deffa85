"""Traced runs of `prefusion align` at strengths where every objective's formula shows (objective_traces.py)."""

import re
import shutil
import subprocess

from support import Failure, check
from trace_checks import check_traces

DATA = {"single": "pairs.parquet", "pair": "pairs.parquet", "unpaired": "unpaired.jsonl", "list": "lists.parquet"}

# Defaults as published: beta, and the factor that makes it kappa.
BETA = {"linear": (100, 0.2), "dspo": (0.001, 0.5), "dcpo": (500, 0.5), "kto": (1000, 1), "kto-threshold": (1000, 1),
        "bco-unpaired": (1000, 1), "dgpo": (100, 1)}
USUAL_BETA = (5000, 0.5)

# In these runs errors differ by about 0.003 within a group, and by 0.1 from the reference's: logits of about 1.
KAPPA_OF_DIFFERENCES = 200
KAPPA_OF_ITEMS = 12
KAPPA = dict.fromkeys(["nca", "bco", "apo-zero", "apo-down", "sppo", "dpo-f", "rpo-cross", "kto", "kto-threshold",
                       "bco-unpaired"], KAPPA_OF_ITEMS) | {"dspo": 0.3, "smpo": 20, "ddim-inpo": 20, "masked": 20}


def listed(prefusion):
    """The rows of --list-objectives by name."""
    command = prefusion.command("align", {"list_objectives": True})
    header, *lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    rows = [re.split(r"\s{2,}", line) for line in lines]
    return {row[0]: dict(zip(re.split(r"\s{2,}", header), row, strict=True)) for row in rows}


class Runs:
    """The runs of one case, which share a cache. Failures are collected, so that none hides another."""

    def __init__(self, prefusion, world, scratch):
        self.prefusion, self.world, self.scratch = prefusion, world, scratch
        self.rows = listed(prefusion)
        self.failures = []

    def trace(self, name, data=None, model="epsilon", **options):
        """Runs and checks two steps; returns their traces, none where a check failed."""
        label = " ".join([name, data or "", *(f"{key}={value}" for key, value in options.items())])
        print(label)
        models, row = self.world / "models", self.rows[name]
        given = {} if "prompts" in options else {"data": self.world / (data or DATA[row["data"]])}
        options = {"model": models / model} | given | options
        if row["needs"] in ("users", "experts"):  # these train adapters of their own
            options.setdefault("adapter", "lora")
        if (row["reference"] != "no" or "anchor_weight" in options) and "reference" not in options:
            options |= {"reference": "frozen", "reference_model": models / f"{model}_other"}
        if "kappa" in row["parameters"]:
            options.setdefault("beta", KAPPA.get(name, KAPPA_OF_DIFFERENCES) / BETA.get(name, USUAL_BETA)[1])
        if row["needs"] == "experts":
            options.setdefault("experts", self.experts(options["model"]))
        for folder in ("out", "trace"):
            shutil.rmtree(self.scratch / folder, ignore_errors=True)
        return self.expect(label, check_traces, self.prefusion, self.scratch, name, options) or []

    def experts(self, model):
        """Two LoRAs that a gate can fuse."""
        folders = [self.scratch / f"expert-{seed}" for seed in (1, 2)]
        for seed, folder in enumerate(folders):
            if not folder.exists():
                self.prefusion.run("align", model=model, data=self.world / DATA["pair"], steps=3, lr=1e-2, eval_every=0,
                                   seed=seed, output=folder)
        return ",".join(map(str, folders))

    def expect(self, label, function, *arguments):
        try:
            return function(*arguments)
        except Failure as failure:
            print(f"  {failure}")
            self.failures.append(f"{label}: {failure}")

    def finish(self):
        check(not self.failures, "\n".join(self.failures))
