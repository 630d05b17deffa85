"""Recomputes the loss of every objective of `prefusion align` on given data from traced tensors.

objective_traces.py BINARY WORLD CASE, with WORLD from make_sd_world.py. Each run is of two steps of two micro-steps
against a reference of other weights; trace_checks.py says what is recomputed, pair_formulas.py and group_formulas.py
hold the formulas. An objective in --list-objectives without a formula, a parameter that is never varied, or a need for
which there is no data here, fails by name.
"""

import functools
import re

import group_formulas  # noqa: F401
import pair_formulas  # noqa: F401
from objective_formulas import FORMULAS
from objective_runs import BETA, DATA, USUAL_BETA, Runs
from support import check, main

# What an objective may need besides errors, and data that has it where not all data has.
NEEDS = {"-": None, "drift": None, "residual products": None, "prompt distances": None, "DDIM inversion": None,
         "ReNoise inversion": None, "scores": "rich_pairs.parquet", "item prompts": "rich_pairs.parquet",
         "masks": "rich_pairs.parquet", "users": "rich_pairs.parquet", "experts": None}
OWN_DATA = {"tdpo": "prompt_pairs.jsonl"}

# Defaults as published, of parameters that are.
PUBLISHED = {
    "exo": {"label_smoothing": 0.01}, "discopop": {"tau": 0.05}, "dpo-f": {"alpha": 0.5}, "poly-dpo": {"alpha": 8},
    "linear": {"eta": 0.001}, "snpo": {"lambda": 0.9}, "simpo": {"gamma": 0.5}, "cpo": {"alpha": 1},
    "orpo": {"weight": 0.1}, "mapo": {"T": 1000, "snr": 0.5, "weight": 0.1}, "sdpo": {"mu": 0.9},
    "smpo": {"gamma": 10, "inversion_steps": 5, "score_range": 0.282016 - 0.115435},
    "ddim-inpo": {"inversion_eta": 0.1, "inversion_steps": 10},
}

# Other parameters than the defaults, a further run for each.
VARIANTS = {
    "dpo-smooth": ["label_smoothing=0.3"], "dpo-robust": ["label_smoothing=0.25"], "exo": ["label_smoothing=0.2"],
    "dpo-f": ["divergence=forward-kl,scale=2", "divergence=jensen-shannon", "divergence=alpha,alpha=0.3,scale=3"],
    "bco": ["delta=0.5"], "aot": ["pairing=unpaired,label_smoothing=0.1"], "discopop": ["tau=0.7"],
    "odpo": ["alpha=0.4"], "poly-dpo": ["alpha=-0.5"], "linear": ["eta=0.3"], "snpo": ["lambda=0.4"],
    "simpo": ["gamma=1.5"], "cpo": ["alpha=3"], "orpo": ["K=300,weight=0.5"], "mapo": ["T=500,snr=2,weight=0.7"],
    "sdpo": ["mu=0.2"], "smpo": ["gamma=4,score_range=1.5,inversion_steps=3"],
    "ddim-inpo": ["inversion_steps=4,inversion_eta=0"],
    "tlpo": ["gate_width=7"], "ppd": ["user_tokens=2,user_width=16,user_dropout=0.5,train=all"], "rpo-cross": ["tau=0.5"],
    "kto-threshold": ["threshold=20"], "bco-unpaired": ["delta=-0.4"], "list-net": ["temperature=0.3"],
    "ranklist": ["strides=1", "strides=3"], "capo": ["scale=0.3"],
}
# Parameters whose effect is tested elsewhere: what spin is trained on, in self_play.py.
TESTED_ELSEWHERE = {"spin": {"rejected"}}


def check_defaults(row):
    """What the list says of an objective's defaults against what is published."""
    name, text = row["name"], row["parameters"]
    beta, factor = BETA.get(name, USUAL_BETA)
    if "kappa" in text:
        found = [float(number) for number in re.match(r"kappa (\S+) \(beta (\S+)\)", text).groups()]
        check(found == [beta * factor, beta], f"{name}: {text}, published is beta {beta}, kappa {beta * factor}")
    for parameter, value in PUBLISHED.get(name, {}).items():
        found = float(re.search(rf"\b{parameter} ([-.\de]+)", text)[1])
        check(abs(found - value) <= 1e-5 * value, f"{name}: {text}, published is {parameter} {value}")


def check_known(row):
    """That this test covers the objective and all its parameters."""
    name, unknown = row["name"], [need for need in row["needs"].split(", ") if need not in NEEDS]
    check(name in FORMULAS, f"{name} has no formula here: add one")
    check(row["data"] in DATA and not unknown, f"{name}: no data here for {row['data']} items with {unknown}")
    parameters = {part.split(" ")[0] for part in row["parameters"].split(", ")} - {"kappa", "no"}
    parameters -= TESTED_ELSEWHERE.get(name, set())
    varied = {part.split("=")[0] for args in VARIANTS.get(name, []) for part in args.split(",")}
    check(parameters == varied, f"{name}: its parameters are {sorted(parameters)}, varied here are {sorted(varied)}")
    return True


def case_of(row):
    """The case an objective belongs to; one of another data kind than these belongs to all, which refuse it."""
    if row["needs"] != "-":
        return "conditional"
    return {"single": "unpaired"}.get(row["data"], row["data"])


def run_listed(prefusion, world, scratch, case):
    runs = Runs(prefusion, world, scratch)
    for name, row in runs.rows.items():
        is_other = case_of(row) != case and case_of(row) in CASES
        if row["data"] == "online" or is_other or not runs.expect(name, check_known, row):
            continue
        runs.expect(name, check_defaults, row)
        data = OWN_DATA.get(name) or next((NEEDS[need] for need in row["needs"].split(", ") if NEEDS[need]), None)
        runs.trace(name, data)
        for args in VARIANTS.get(name, []):  # on data with weights and scores
            runs.trace(name, "rich_pairs.parquet" if row["data"] == "pair" else data, objective_args=args)
    runs.finish()


CASES = ["pair", "list", "unpaired", "conditional"]
main({case: functools.partial(run_listed, case=case) for case in CASES})
