"""Objectives on pairs, single pictures and lists with each family, recomputed from traces with diffusers' denoisers.

family_objectives.py BINARY WORLD CASE, with WORLD from make_sd_world.py and WORLD/families from make_families.py. A case is a
model there, or dit. Each run is of all weights, two steps against a reference of other weights; predictions, errors, losses and
the first step's gradient are recomputed. What other objectives make of errors does not depend on the family
(objective_traces.py).
"""

import copy
import json

import families
import group_formulas  # noqa: F401
import pair_formulas  # noqa: F401
import pyarrow
import pyarrow.parquet
import torch
from dit import make_model
from families import denoiser, error_of, load, predict
from objective_formulas import FORMULAS, Batch
from online_checks import check_gradient
from safetensors import safe_open
from safetensors.torch import load_file
from support import check, check_near, main
from trace_checks import params_of

MODELS = ("sdxl", "sd3", "flux", "pixart", "dit")
STEPS = 2
# objective, data, items of a group, options
RUNS = (("mapo", "pairs.parquet", 2, dict(reference="none")), ("kto", "unpaired.jsonl", 1, dict(kappa=12)),
        ("rankdpo", "lists.parquet", 4, dict(kappa=50)))


def read_data(path):
    """The captions of a file's groups."""
    if path.suffix == ".jsonl":
        return [json.loads(line)["prompt"] for line in path.read_text().splitlines()]
    table = pyarrow.parquet.read_table(path)
    return table["caption" if "caption" in table.column_names else "prompt"].to_pylist()


def with_classes(path, scratch):
    """A copy of the data whose captions are numbers of classes."""
    captions = list(map(str, range(len(read_data(path)))))
    copied = scratch / path.name
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows = [row | {"prompt": caption, "image": str(path.parent / row["image"])} for row, caption in zip(rows, captions)]
        copied.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return copied
    table = pyarrow.parquet.read_table(path)
    column = "caption" if "caption" in table.column_names else "prompt"
    table = table.set_column(table.schema.get_field_index(column), column, pyarrow.array(captions))
    pyarrow.parquet.write_table(table, copied)
    return copied


def check_step(name, pipeline, network, reference, objective, path, captions, items):
    """`network` has the weights the step began with, where they are known."""
    trace = load_file(path)
    with safe_open(path, "pt") as file:
        params = params_of(file.metadata())
    check(trace["timesteps"].shape[1] == items, f"groups of {trace['timesteps'].shape[1]} items, expected {items}")
    timesteps = families.check_inputs(pipeline, trace)
    families.check_conditioning(name, pipeline, trace, captions)
    error = trace["error"]
    if network is not None:
        prediction = predict(name, network, trace, timesteps)
        check_near(trace["prediction"].flatten(0, 1), prediction.detach(), 5e-5, "prediction")
        error = error_of(prediction, trace)
        check_near(trace["error"], error.detach(), 1e-5, "error")
    check(("error_ref" in trace) == (reference is not None), "error_ref is there only with a reference")
    if reference is not None:
        with torch.no_grad():
            check_near(trace["error_ref"], error_of(predict(name, reference, trace, timesteps), trace), 1e-5, "error_ref")
    known = {key: trace[key].double() for key in ("label", "scores", "error_ref") if key in trace}
    loss = FORMULAS[objective](Batch(error=error.double(), **known), params).mean()
    check_near(trace["loss"], loss.detach(), 1e-4, f"{objective}: loss")
    if network is not None:
        check_gradient(trace, loss, network)


def run_case(name):
    def case(prefusion, world, scratch):
        folder = make_model(scratch / "model", name) if name == "dit" else world / "families" / "models" / name
        pipeline = load(folder)
        other = families.write_near(pipeline, folder, scratch / "reference")
        other_network = denoiser(load(other)).eval()
        for objective, file, items, changes in RUNS:
            print(name, objective)
            data = with_classes(world / file, scratch) if name == "dit" else world / file
            options = dict(model=folder, data=data, objective=objective, adapter="full", steps=STEPS, batch_size=3, lr=1e-3, eval_every=0,
                           seed=5, resolution=64, max_grad_norm=0, spike_factor=0, empty_prompt_rate=0.3, trace_steps=STEPS) | changes
            if "reference" not in options:
                options |= dict(reference="frozen", reference_model=other)
            if name == "flux":
                options |= dict(distilled_guidance=families.GUIDANCE)
            traces = scratch / objective
            prefusion.run("align", **options, output=scratch / f"{objective}-out", trace=traces)
            network = copy.deepcopy(denoiser(pipeline)).eval()
            reference = other_network if options["reference"] == "frozen" else None
            for step in range(1, STEPS + 1):
                check_step(name, pipeline, network if step == 1 else None, reference, objective,
                           traces / f"step-{step:06}.safetensors", read_data(data), items)

    return case


if __name__ == "__main__":
    main({name: run_case(name) for name in MODELS})
