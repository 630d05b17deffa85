"""Recomputes the held-out diagnostics of `prefusion align` from the table of --dump-groups with numpy.

diagnostics.py BINARY WORLD CASE, with WORLD from make_sd_world.py.
"""

import re

import numpy
import pyarrow.parquet
from support import check, check_near, main, read_metrics

COMMON = dict(batch_size=4, steps=8, lr=2e-3, eval_every=4, empty_prompt_rate=0, seed=3)


def table_of(path):
    """Columns of the table; lists as arrays, errors by timestep as [N, G, k]."""
    columns = pyarrow.parquet.read_table(path).to_pydict()
    k = len(columns["errors"][0])
    for name in ("errors_by_timestep", "errors_ref_by_timestep"):
        columns[name] = numpy.array(columns[name]).reshape(len(columns["id"]), -1, k)
    for name in ("labels", "scores"):
        columns[name] = None if columns[name][0] is None else numpy.array(columns[name])
    return columns


def sigmoid(x):
    return 1 / (1 + numpy.exp(-x))


def calibration(rewards, truth):
    """Expected calibration error over pairs (i, j) with probability `truth`[n, i, j] of i being better, NaN: not asked."""
    p = sigmoid(rewards[:, :, :, None] - rewards[:, :, None, :])  # [N, G, k, k]
    truth = numpy.broadcast_to(truth[:, None], p.shape)
    p, truth = p[~numpy.isnan(truth)], truth[~numpy.isnan(truth)]
    confidence = numpy.maximum(p, 1 - p)
    correct = numpy.where(p == 0.5, 0.5, numpy.where(p > 0.5, truth, 1 - truth))
    bins = numpy.minimum(((confidence - 0.5) * 20).astype(int), 9)
    return sum(abs(confidence[bins == b].sum() - correct[bins == b].sum()) for b in range(10)) / len(p)


def kendall(errors, labels):
    """Mean sign of error_j - error_i over all items i of higher label than j, all timesteps. errors [N, G, k]"""
    better = labels[:, None, :, None] > labels[:, None, None, :]
    signs = numpy.sign(errors[:, :, None, :] - errors[:, :, :, None])
    better = numpy.broadcast_to(better, signs.shape)
    return signs[better].mean()


def truth_of(table):
    labels = table["labels"]
    n, k = labels.shape
    truth = numpy.full((n, k, k), numpy.nan)
    for i in range(k):
        for j in range(k):
            if k == 2 and (i, j) == (0, 1):
                truth[:, i, j] = labels[:, 0]
            elif k > 2:
                truth[labels[:, i] > labels[:, j], i, j] = 1
    return truth


def check_table(table, metrics, kappa, uses_reference=True):
    error, error_ref = table["errors_by_timestep"], table["errors_ref_by_timestep"]
    reward = error_ref - error if uses_reference else -error
    reward = reward * (kappa or 1)
    margin = reward[:, :, 0] - reward[:, :, -1]
    hardness = (error_ref[:, :, 0] - error_ref[:, :, -1]).mean(1)
    expected = {"margin": margin.mean(), "error_chosen": error[:, :, 0].mean(), "error_rejected": error[:, :, -1].mean(),
                "drift_chosen": error[:, :, 0].mean() / error_ref[:, :, 0].mean() - 1,
                "drift_rejected": error[:, :, -1].mean() / error_ref[:, :, -1].mean() - 1,
                "displaced": (error[:, :, 0].mean(1) > error_ref[:, :, 0].mean(1)).mean()}
    for band in range(error.shape[1]):
        for name, item in (("chosen", 0), ("rejected", -1)):
            expected[f"error_{name}_band{band}"] = error[:, band, item].mean()
            expected[f"drift_{name}_band{band}"] = error[:, band, item].mean() / error_ref[:, band, item].mean() - 1
    if error.shape[2] == 2:
        expected["accuracy"] = ((numpy.sign(margin) + 1) / 2).mean()
        expected["gradient_factor"] = sigmoid(-margin).mean()
    else:
        expected["accuracy"] = (kendall(-reward, table["labels"]) + 1) / 2
        expected["ranking_accuracy"] = kendall(error, table["labels"])
        expected["ranking_accuracy_ref"] = kendall(error_ref, table["labels"])
    if kappa:
        expected["ece"] = calibration(reward, truth_of(table))
    else:
        expected.pop("gradient_factor")
        check("eval/ece" not in metrics, "an objective without a kappa has no probabilities to calibrate")
    for name, value in expected.items():
        check_near(metrics["eval/" + name], value, 1e-4, name)
    check_near(table["margin"], margin.mean(1), 1e-6, "margins of groups")
    check_near(table["hardness"], hardness, 1e-6, "hardness")
    check(table["is_flipped"] == list(margin.mean(1) < 0), "flips")
    check_near(table["errors"], error.mean(1), 1e-6, "mean errors")
    check_near(table["errors_ref"], error_ref.mean(1), 1e-6, "mean errors of the start")


def dumped(prefusion, world, scratch, data, eval_data, **options):
    """Table and last held-out metrics of a run, groups of one batch so that batches' means are those of all groups."""
    path = scratch / "tables" / "groups.parquet"
    prefusion.run("align", model=world / "models" / "epsilon", data=world / data, eval_data=world / eval_data,
                  output=scratch / "out", cache=scratch / "cache", dump_groups=path, **{**COMMON, **options})
    metrics = read_metrics(scratch / "out")[-1]
    for file in sorted((scratch / "out").rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    check("eval/alarm_displacement" in metrics and "eval/alarm" in metrics, "alarms are not logged")
    return table_of(path), metrics


def pairs(prefusion, world, scratch):
    records = pyarrow.parquet.read_table(world / "eval.parquet").to_pylist()
    for options, kappa, uses_reference in ((dict(kappa=300), 300, True),
                                           (dict(kappa=300, reference="ema:0.5"), 300, True),
                                           (dict(objective="simpo", kappa=300), 300, False),
                                           (dict(objective="mapo"), None, False)):
        table, metrics = dumped(prefusion, world, scratch, "pairs.parquet", "eval.parquet", **options)
        check_table(table, metrics, kappa, uses_reference)
        kept = [record["caption"] for record in records if record["label_0"] != 0.5]
        check(table["prompt"] == kept and table["id"][0] == "eval.parquet row 0", "prompts and ids of the records")
        check(table["timesteps"] == [[125, 375, 625, 875]] * len(kept), "timesteps")
        check(table["scores"] is None, "scores that the data does not have")


def soft_pairs(prefusion, world, scratch):
    table, metrics = dumped(prefusion, world, scratch, "pairs.parquet", "rich_pairs.parquet", kappa=300, batch_size=18,
                            soft_labels=True)
    check(set(table["labels"][:, 0].round(6)) == {0.9, 0.7, 1.0, 0.6}, "labels are not the rows'")
    check(table["scores"].shape == table["labels"].shape, "scores are missing")
    check_table(table, metrics, 300)


def lists(prefusion, world, scratch):
    table, metrics = dumped(prefusion, world, scratch, "lists.parquet", "lists.parquet", objective="plackett-luce",
                            kappa=300, batch_size=12)
    check(table["labels"].shape == (12, 4), f"labels {table['labels'].shape}")
    check_table(table, metrics, 300)


def displacement(prefusion, world, scratch):
    """A policy that only gets worse at rejected pictures' errors gets worse at the chosen ones as well."""
    log = prefusion.run("align", model=world / "models" / "epsilon", data=world / "pairs.parquet", kappa=5000,
                        eval_data=world / "pairs.parquet", output=scratch / "out", adapter="full", alarm_drift=100,
                        **{**COMMON, "steps": 30, "eval_every": 10, "lr": 3e-3})
    rows = [row for row in read_metrics(scratch / "out") if "eval/displaced" in row]
    check(rows[0]["eval/displaced"] == 0 and rows[0]["eval/drift_chosen"] == 0, "nothing has moved at the start")
    for row in rows:
        expected = row["eval/displaced_low"] > 0.5 and row["eval/margin"] > 0
        check(row["eval/alarm_displacement"] == expected, f"step {row['step']}: alarm {row['eval/alarm_displacement']}")
    displaced = [int(row["step"]) for row in rows if row["eval/alarm_displacement"]]
    check(displaced, "the test shows no displacement")
    said = re.findall(r"likelihood displacement: at step (\d+) ", log)
    check(said == [str(displaced[0])], f"the log should speak of step {displaced[0]} alone, not {said}")


def refusals(prefusion, world, scratch):
    options = dict(model=world / "models" / "epsilon", data=world / "pairs.parquet", output=scratch / "out", steps=1)
    for changes, words in ((dict(dump_groups=scratch / "g.parquet", eval_every=0), "--dump-groups"),
                           (dict(dump_groups=scratch / "g.csv"), ".parquet"),
                           (dict(dump_groups=scratch / "g.parquet", eval_fraction=0), "nothing is held out")):
        text = prefusion.run("align", exit_code=2, **options, **changes)
        check(words in text.splitlines()[-1], text)


CASES = (pairs, soft_pairs, lists, displacement, refusals)
main({case.__name__: case for case in CASES})
