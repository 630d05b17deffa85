"""Recomputes what `prefusion align` adds to objectives from traced tensors, as objective_traces.py the objectives.

option_traces.py BINARY WORLD CASE. Additions are in loss_additions.py.
"""

import json
import math

import group_formulas  # noqa: F401
import pair_formulas  # noqa: F401
import pyarrow.parquet
import torch
from objective_runs import Runs
from support import check, encoded_captions, main
from trace_checks import MICRO, near

RICH = "rich_pairs.parquet"


def additions(prefusion, world, scratch):
    """The loss, and where the weights are known the gradient: --safe-loser changes nothing else."""
    runs = Runs(prefusion, world, scratch)
    for name, options in [
        ("diffusion-dpo", dict(loser_weight=0.4)),
        ("simpo", dict(loser_weight=0.4)),
        ("rankdpo", dict(loser_weight=0.4)),
        ("linear", dict(loser_weight=0.4)),
        ("diffusion-dpo", dict(safe_loser=0.8)),
        ("nca", dict(safe_loser=0.5)),
        ("masked", dict(data=RICH, safe_loser=0.8)),
        ("masked", dict(data=RICH, safe_loser=0.6, label_smoothing=0.2, logit_weighting="debiased")),
        ("diffusion-dpo", dict(sft_weight=3)),
        ("rankdpo", dict(sft_weight=3)),
        ("kto", dict(sft_weight=3)),
        ("diffusion-dpo", dict(anchor_weight=4)),
        ("simpo", dict(anchor_weight=4)),
        ("kto", dict(anchor_weight=4)),
        ("plackett-luce", dict(anchor_weight=4)),
        ("diffusion-dpo", dict(margin_drop=0.5, sft_weight=2, anchor_weight=3)),
        ("rankdpo", dict(margin_drop=0.5)),
    ]:
        runs.trace(name, **options)
    runs.finish()


def exchanges(prefusion, world, scratch):
    """Options that exchange the roles of a pair."""
    runs = Runs(prefusion, world, scratch)
    for name, options in [
        ("diffusion-dpo", dict(label_smoothing=0.2)),
        ("nca", dict(label_smoothing=0.2)),
        ("diffusion-dpo", dict(soft_labels=True)),
        ("linear", dict(soft_labels=True)),
        ("dspo", dict(soft_labels=True)),
        ("diffusion-dpo", dict(soft_labels=True, label_smoothing=0.1)),
        ("odpo", dict(soft_labels=True)),
        ("snpo", dict(swap_empty_prompts=True)),
        ("simpo", dict(swap_empty_prompts=True, sft_weight=2)),
        ("dspo", dict(swap_empty_prompts=True)),
        ("diffusion-dpo", dict(soft_labels=True, loser_weight=0.5)),
        ("diffusion-dpo", dict(label_smoothing=0.3, safe_loser=0.7)),
        ("sdpo", dict(label_smoothing=0.3)),
        ("diffusion-dpo", dict(swap_empty_prompts=True, loser_weight=0.5, soft_labels=True, sft_weight=2)),
    ]:
        runs.trace(name, RICH, **options)
    runs.finish()


def timestep_weights(prefusion, world, scratch):
    runs = Runs(prefusion, world, scratch)
    names = ["min-snr", "min-snr:0.3", "debiased", "like-epsilon", "sigma-sqrt", "cosmap"]
    for index, name in enumerate(names):
        other = names[index - 1]
        runs.trace("diffusion-dpo", logit_weighting=name, loss_weighting=other)
        runs.trace("simpo", model="v_prediction", logit_weighting=name, loss_weighting=other)
    runs.trace("dspo", logit_weighting="debiased")
    runs.trace("sdpo", logit_weighting="debiased")
    runs.trace("rankdpo", logit_weighting="debiased", anchor_weight=2, sft_weight=3)
    runs.trace("kto", logit_weighting="debiased", loss_weighting="cosmap")
    runs.finish()


def references(prefusion, world, scratch):
    """Errors computed ahead, and a policy that one large step has moved from where the adapter is off."""
    runs = Runs(prefusion, world, scratch)
    runs.trace("diffusion-dpo", reference="cached", reference_model=world / "models" / "epsilon_other")
    for name in ("diffusion-dpo", "dspo", "rankdpo", "kto"):
        for trace in runs.trace(name, reference="adapter-off", adapter="lora", lr=1e-2)[1:]:
            moved = (trace["error_ref"] - trace["error"]).abs().mean()
            runs.expect(name, check, moved > 1e-3, f"the policy moved by {moved} only")
    runs.finish()


def check_kappas(traces, target, start):
    """SimpleTuner's automatic beta: the mean |D|, averaged over micro-steps, decides the following one's."""
    mean, expected = None, [start]
    for trace in traces:
        s = (trace["error_ref"] - trace["error"]).double()
        for part in s.split(MICRO):
            gap = (part[:, 0] - part[:, -1]).abs().mean().item()
            mean = gap if mean is None else 0.99 * mean + 0.01 * gap
            kappa = -math.log(target / (1 - target)) / mean
            expected.append(min(max(kappa, start / 100), start * 100))
    near(torch.cat([trace["kappa"] for trace in traces]), torch.tensor(expected[:-1]), "kappa")


def auto_kappa(prefusion, world, scratch):
    runs = Runs(prefusion, world, scratch)
    for name, target, start in [("diffusion-dpo", 0.2, 2500), ("dpo-ipo", 0.35, 40), ("diffusion-dpo", 0.1, 1e-3)]:
        traces = runs.trace(name, auto_kappa=target, beta=2 * start)
        runs.expect(name, check_kappas, traces, target, start)
    runs.finish()


def timesteps(prefusion, world, scratch):
    """Where timesteps may lie; five deviations to either side hold all normal numbers that are drawn here."""
    runs = Runs(prefusion, world, scratch)
    for options, allowed in [
        (dict(timestep_range="200:230"), range(200, 230)),
        (dict(timestep_sampling="list:10,500,900"), (10, 500, 900)),
        (dict(timestep_sampling="logit-normal:-3,0.1"), range(29, 76)),  # 1000 sigmoid(-3.5) .. 1000 sigmoid(-2.5)
        (dict(timestep_sampling="logit-normal:2,0.1", timestep_range="100:200"), range(181, 193)),
        (dict(timestep_sampling="mode:0.5", timestep_range="990:1000"), range(990, 1000)),
    ]:
        found = {t for trace in runs.trace("sft", **options) for t in trace["timesteps"].flatten().tolist()}
        is_varied = 1 < len(found) <= len(allowed)
        runs.expect(options, check, is_varied and found <= set(allowed), f"timesteps {sorted(found)}")
    runs.finish()


def check_facts(trace, rows):
    """Scores tell the row; labels, order, weight and the items' prompts are the row's."""
    for i, scores in enumerate(trace["scores"].tolist()):
        row = next((row for row in rows if max(abs(a - b) for a, b in zip(row["scores"], scores)) < 1e-5), None)
        check(row is not None, f"no row has the scores {scores}")
        near(trace["label"][i], torch.tensor(row["label"]), f"label of {row}")
        if "weight" in row:
            near(trace["weights"][i], torch.tensor(row["weight"]), f"weight of {row}")
        if trace["encoder_hidden_states"].dim() == 4:
            near(trace["encoder_hidden_states"][i], row["states"], f"text states of {row['scores']}", 1e-4, 1e-4)


def better_first(row, states):
    """A row of rich_pairs.parquet, with the text states of its two captions, as the objective should see it."""
    order = [0, 1] if row["label_0"] >= 0.5 else [1, 0]
    label, scores = ([row[f"{name}_{item}"] for item in order] for name in ("label", "score"))
    return {"label": label, "scores": scores, "weight": row["weight"], "states": states[order]}


def facts(prefusion, world, scratch):
    """Labels, scores and weights are those of the data's rows."""
    runs = Runs(prefusion, world, scratch)
    rich = pyarrow.parquet.read_table(world / RICH).to_pylist()
    captions = [row[f"caption_{item}"] for row in rich for item in range(2)]
    states = encoded_captions(world / "models" / "epsilon", captions).unflatten(0, (-1, 2))
    pairs = [better_first(row, own) for row, own in zip(rich, states)]
    singles = [json.loads(line) for line in (world / "unpaired.jsonl").read_text().splitlines()]
    singles = [{"label": [row["label"]], "scores": [row["score"]]} for row in singles]
    for name, data, rows in [("dcpo", RICH, pairs), ("kto", "unpaired.jsonl", singles)]:
        for trace in runs.trace(name, data, empty_prompt_rate=0):
            runs.expect(name, check_facts, trace, rows)
    runs.finish()


CASES = (additions, exchanges, timestep_weights, references, auto_kappa, timesteps, facts)
main({case.__name__: case for case in CASES})
