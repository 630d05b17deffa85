"""What preference data carries besides pictures and labels, from the file to the trace of `prefusion align`.

preference_data.py BINARY WORLD CASE, with WORLD from make_sd_world.py.
"""

import io
import json

from support import check, check_near, encoded_captions, main

import numpy
import pyarrow
import pyarrow.parquet
import torch
from PIL import Image
from safetensors.torch import load_file

COMMON = dict(batch_size=4, eval_every=0, empty_prompt_rate=0, no_hflip=True, seed=2)


def records_of(world):
    """The records that are no ties, each with two scores of which no two gaps are the same."""
    records = pyarrow.parquet.read_table(world / "pairs.parquet").to_pylist()
    records = [record for record in records if record["label_0"] != 0.5]
    for i, record in enumerate(records):
        gap = ((7 * i) % len(records)) / 10 + 0.1
        sign = 1 if record["label_0"] == 1 else -1
        record.update(aes_0=sign * gap, aes_1=0.0, weight=i / 8)
    return records


def write(records, path):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)


def traced_groups(prefusion, world, scratch, records, steps, **options):
    """(index of the record, trace of its step, place in the batch) of each group, in the order of training."""
    write(records, scratch / "pairs.parquet")
    prefusion.run("align", model=world / "models" / "epsilon", data=scratch / "pairs.parquet", steps=steps,
                  output=scratch / "out", trace=scratch / "trace", trace_steps=steps, **{**COMMON, **options})
    states = encoded_captions(world / "models" / "epsilon", [record["caption"] for record in records])
    groups = []
    for step in range(1, steps + 1):
        trace = load_file(scratch / "trace" / f"step-{step:06}.safetensors")
        for i, state in enumerate(trace["encoder_hidden_states"]):
            distances = (states - state).abs().amax(dim=(1, 2))
            check(distances.min() < 1e-4, "text states of no record")
            groups.append((distances.argmin().item(), trace, i))
    return groups


def scores_and_weights(prefusion, world, scratch):
    records = records_of(world)
    for index, trace, i in traced_groups(prefusion, world, scratch, records, 3, objective="odpo", score_name="aes"):
        record = records[index]
        expected = [record["aes_0"], record["aes_1"]]
        if record["label_0"] == 0:
            expected.reverse()
        check_near(trace["scores"][i], torch.tensor(expected), 1e-6, f"scores of record {index}")
        check(trace["weights"][i].item() == record["weight"], f"the weight of record {index} is {trace['weights'][i]}")


def unscored_rows_are_dropped(prefusion, world, scratch):
    records = records_of(world)
    for record in records[:5]:
        record["aes_0"] = None
    groups = traced_groups(prefusion, world, scratch, records, 5, objective="odpo", score_name="aes")
    check(all(index >= 5 for index, _, _ in groups), "a record without the score was trained on")
    text = prefusion.run("align", exit_code=3, model=world / "models" / "epsilon", data=scratch / "pairs.parquet",
                         steps=1, output=scratch / "other", score_name="taste", **COMMON)
    check("without the score 'taste'" in text.splitlines()[-1], text)


def curriculum(prefusion, world, scratch):
    """Three stages of 24 groups draw from the 8, 16 and 24 of largest margin."""
    records = records_of(world)[:24]
    groups = traced_groups(prefusion, world, scratch, records, 18, score_name="aes", curriculum="margin:3")
    order = sorted(range(24), key=lambda i: -abs(records[i]["aes_0"]))
    for stage in range(3):
        seen = [index for index, _, _ in groups[24 * stage : 24 * stage + 24]]
        allowed = sorted(order[: 8 * (stage + 1)])
        check(set(seen) <= set(allowed), f"stage {stage} trains on {sorted(set(seen) - set(allowed))}")
        first_pass = sorted(seen[: len(allowed)])
        check(first_pass == allowed, f"a pass of stage {stage} is {first_pass}, expected {allowed}")


def hardness(prefusion, world, scratch):
    """Three stages draw from the 8, 16 and 24 groups that are least hard by the table of the very same records."""
    records = records_of(world)[:24]
    groups = traced_groups(prefusion, world, scratch, records, 18, curriculum="hardness:3", eval_every=18,
                           eval_data=scratch / "pairs.parquet", dump_groups=scratch / "groups.parquet")
    table = pyarrow.parquet.read_table(scratch / "groups.parquet").to_pydict()
    captions = [record["caption"] for record in records]
    hardness_of = dict(zip((captions.index(prompt) for prompt in table["prompt"]), table["hardness"]))
    order = sorted(range(24), key=lambda i: hardness_of[i])
    check(hardness_of[order[0]] < 0 < hardness_of[order[-1]], "the test tells nothing: all groups are easy or hard")
    for stage in range(3):
        seen = [index for index, _, _ in groups[24 * stage : 24 * stage + 24]]
        allowed = sorted(order[: 8 * (stage + 1)])
        check(sorted(seen[: len(allowed)]) == allowed, f"a pass of stage {stage} is {sorted(seen)}, expected {allowed}")


def small_margins_are_left_out(prefusion, world, scratch):
    records = records_of(world)
    groups = traced_groups(prefusion, world, scratch, records, 6, score_name="aes", curriculum="margin:2:1.0")
    check(all(abs(records[index]["aes_0"]) > 1.0 for index, _, _ in groups), "a small margin was trained on")


def png(array):
    data = io.BytesIO()
    Image.fromarray(array).save(data, "PNG")
    return data.getvalue()


def manifest_of(world, scratch, rows):
    """A manifest of pairs 0-0.png, 0-1.png, ... under `rows`, with masks left.png and top.png."""
    rng = numpy.random.default_rng(0)
    for row in range(rows):
        for item in range(2):
            (scratch / f"{row}-{item}.png").write_bytes(png(rng.integers(0, 256, (64, 64, 3), dtype=numpy.uint8)))
    left = numpy.zeros((64, 64), numpy.uint8)
    left[:, :32] = 255
    (scratch / "left.png").write_bytes(png(left))
    (scratch / "top.png").write_bytes(png(left.T.copy()))
    lines = [{"images": [f"{row}-0.png", f"{row}-1.png"], "label": 0, "prompts": [f"a star {row}", f"a horse {row}"],
              "masks": ["left.png", "top.png"]} for row in range(rows)]
    (scratch / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return scratch / "rows.jsonl"


def masks_and_item_prompts(prefusion, world, scratch):
    data = manifest_of(world, scratch, 8)
    for objective in ("masked", "dcpo"):
        for no_cache in (False, True):
            output = scratch / f"{objective}-{no_cache}"
            prefusion.run("align", model=world / "models" / "epsilon", data=data, objective=objective, steps=2,
                          no_cache=no_cache, output=output, trace=output / "trace", trace_steps=2, **COMMON)
            if objective == "masked":
                trace = load_file(output / "trace" / "step-000001.safetensors")
                expected = torch.zeros(2, 1, 8, 8)
                expected[0, 0, :4] = 1  # the second picture is chosen, its mask is the upper half
                expected[1, 0, :, :4] = 1
                check(torch.equal(trace["masks"], expected.expand(4, -1, -1, -1, -1)), "masks are not the files'")
    rows = [{"image": f"{row}-0.png", "prompts": [f"a star {row}", f"a horse {row}"]} for row in range(8)]
    (scratch / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prefusion.run("align", model=world / "models" / "epsilon", data=scratch / "texts.jsonl", objective="tdpo", steps=2,
                  output=scratch / "tdpo", **COMMON)
    for objective, field in (("smpo", "'score_0'"), ("masked", "'mask'"), ("dcpo", "'prompts'")):
        text = prefusion.run("align", exit_code=3, model=world / "models" / "epsilon", data=world / "pairs.parquet",
                             objective=objective, steps=1, output=scratch / "other", **COMMON)
        check(field in text.splitlines()[-1], text)


main({
    "scores": scores_and_weights,
    "unscored": unscored_rows_are_dropped,
    "curriculum": curriculum,
    "hardness": hardness,
    "min_gap": small_margins_are_left_out,
    "masks_and_item_prompts": masks_and_item_prompts,
})
