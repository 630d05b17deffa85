"""Runs of `prefusion align --buckets` on pictures of many shapes, recomputed with Pillow and diffusers.

buckets.py BINARY WORLD CASE, with WORLD from make_sd_world.py and WORLD/families from make_families.py.
"""

import copy
import io
import math

from support import check, check_near, check_same_runs, encoded_captions, main, read_metrics

import numpy
import pyarrow
import pyarrow.parquet
import torch
from PIL import Image
from safetensors.torch import load_file

STEP, RESOLUTION = 16, 64
KAPPA, LR = 20, 1e-4  # small: a loss near zero shows the last digits of its errors
# Height and width of both pictures of a pair; not all pairs are of one shape. The last is turned by its EXIF tag.
SHAPES = [((96, 64), (96, 64)), ((64, 96), (60, 90)), ((70, 70), (70, 70)), ((120, 50), (48, 60)), ((40, 130), (40, 130)),
          ((64, 100), (64, 100)), ((90, 60), (100, 60)), ((64, 64), (80, 64)), ((48, 90), (48, 90))]
ROUNDS = 3


def encode(pixels, turned):
    data = io.BytesIO()
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    if turned:
        image = image.transpose(Image.ROTATE_90)  # stored so; orientation 6 turns it back
        exif[0x0112] = 6
    image.save(data, format="PNG", exif=exif)
    return data.getvalue()


def make_records():
    random = numpy.random.default_rng(1)
    records = []
    for i in range(ROUNDS * len(SHAPES)):
        pictures = []
        for height, width in SHAPES[i % len(SHAPES)]:
            corners = random.integers(0, 256, (3, 3, 3), dtype=numpy.uint8)
            smooth = numpy.asarray(Image.fromarray(corners).resize((width, height), Image.BICUBIC))
            pictures.append(encode(smooth, turned=i % len(SHAPES) == len(SHAPES) - 1))
        label = float(i % 2)
        records.append({"caption": f"a red circle {i}", "jpg_0": pictures[0], "jpg_1": pictures[1], "label_0": label,
                        "label_1": 1.0 - label})
    return records


def write_data(scratch):
    records = make_records()
    path = scratch / "shapes.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)
    return records, path


def bucket_sizes():
    """Every side from half to twice the resolution, and the largest other side that the area leaves."""
    sides = range(RESOLUTION // 2, 2 * RESOLUTION + 1, STEP)
    sizes = {(RESOLUTION, RESOLUTION)}
    for side in sides:
        other = RESOLUTION**2 // side // STEP * STEP
        if other in sides:
            sizes |= {(side, other), (other, side)}
    return sizes


def size_of(index):
    return SHAPES[index % len(SHAPES)]


def bucket_of(index):
    middle = sum(math.log(height / width) for height, width in size_of(index)) / 2
    return min(bucket_sizes(), key=lambda size: (round(abs(math.log(size[0] / size[1]) - middle), 9), -size[0] * size[1]))


def placed(index, item):
    """Size of the resized picture, and where the crop begins."""
    (height, width), (bucket_height, bucket_width) = size_of(index)[item], bucket_of(index)
    if width * bucket_height > height * bucket_width:
        resized = (bucket_height, bucket_height * width // height)
    else:
        resized = (bucket_width * height // width, bucket_width)
    return resized, [round((have - want) / 2) for have, want in zip(resized, bucket_of(index))]


def cut(record, index, item):
    """float [3, H, W] in [-1, 1]"""
    from PIL import ImageOps

    (height, width), (top, left) = placed(index, item)
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(record[f"jpg_{item}"])).convert("RGB"))
    pixels = numpy.asarray(image.resize((width, height), Image.BILINEAR))
    bucket_height, bucket_width = bucket_of(index)
    pixels = pixels[top : top + bucket_height, left : left + bucket_width]
    return torch.tensor(pixels).permute(2, 0, 1) / 127.5 - 1


def chosen_first(record):
    return (0, 1) if record["label_0"] == 1.0 else (1, 0)


def options_of(data, **changes):
    return {**dict(data=data, buckets=True, bucket_reso_steps=STEP, resolution=RESOLUTION, batch_size=2, eval_every=0,
                   log_every=1, lr=1e-3, seed=3), **changes}


def record_of(captions, states, found):
    distances = (states - found).abs().flatten(1).amax(dim=1)
    index = distances.argmin().item()
    check(distances[index] < 1e-4, f"text states of no record: {distances[index]}")
    return index


def steps_of(prefusion, world, scratch, name):
    """Each step is of one bucket, and diffusers predicts the same at its size."""
    import families

    folder = world / "families" / "models" / name
    records, data = write_data(scratch)
    captions = [record["caption"] for record in records]
    count = 6
    more = dict(distilled_guidance=families.GUIDANCE) if name == "flux" else {}
    log = prefusion.run("align", **options_of(data, model=folder, steps=count, kappa=KAPPA, lr=LR, adapter="full", weight_decay=0.1,
                                              max_grad_norm=0.5, empty_prompt_rate=0, trace=scratch / "trace",
                                              trace_steps=count, output=scratch / "out", **more))
    check("buckets (width x height: groups): " in log, f"no statistics:\n{log}")
    pipeline = families.load(folder)
    network = copy.deepcopy(families.denoiser(pipeline)).eval()
    reference = copy.deepcopy(network)
    parameters = list(network.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=LR, weight_decay=0.1)
    states = families.prompt_states(name, pipeline, captions)[0]
    shapes = set()
    for step in range(1, count + 1):
        trace = load_file(scratch / "trace" / f"step-{step:06}.safetensors")
        found = [record_of(captions, states, row) for row in trace["encoder_hidden_states"]]
        buckets = {bucket_of(index) for index in found}
        shape = tuple(8 * side for side in trace["latents"].shape[-2:])
        check(buckets == {shape}, f"step {step}: latents of {shape}, the groups belong to {buckets}")
        shapes.add(shape)
        if name == "sdxl":
            check_sdxl_ids(trace, found, records)
        if name == "pixart":
            expected = torch.tensor([*shape, shape[0] / shape[1]]).expand_as(trace["time_ids"])
            check(torch.equal(trace["time_ids"], expected), f"time ids {trace['time_ids']}, expected {expected}")
        timesteps = families.check_inputs(pipeline, trace)
        families.recompute(name, pipeline, network, reference, trace, timesteps, KAPPA).backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 0.5)
        check_near(trace["grad_norm"], norm, 2e-4, f"step {step}: gradient norm")
        optimizer.step()
        optimizer.zero_grad()
    check(len(shapes) > 2, f"only the shapes {shapes} occur")


def steps(prefusion, world, scratch):
    for name in ("sdxl", "sd3", "flux", "pixart"):
        folder = scratch / name
        folder.mkdir()
        steps_of(prefusion, world, folder, name)


def check_sdxl_ids(trace, found, records):
    for row, index in enumerate(found):
        for item, picture in enumerate(chosen_first(records[index])):
            (_, width), (top, left) = placed(index, picture)
            bucket = bucket_of(index)
            expected = [[*size_of(index)[picture], top, place, *bucket] for place in (left, width - bucket[1] - left)]
            ids = trace["time_ids"][row, item].tolist()
            check(ids in expected, f"record {index}: time ids {ids}, expected one of {expected}")


def data(prefusion, world, scratch):
    """Latents are draws of the posterior of the pictures cut to their buckets, from the cache and without one."""
    from diffusers import AutoencoderKL

    model = world / "models" / "epsilon"
    records, path = write_data(scratch)
    states = encoded_captions(model, [record["caption"] for record in records])
    vae = AutoencoderKL.from_pretrained(f"{model}/vae").eval()
    count = 2 * len(records) // 2  # steps of two passes
    for no_cache in (False, True):
        output = scratch / f"out-{no_cache}"
        prefusion.run("align", **options_of(path, model=model, steps=count, no_hflip=True, empty_prompt_rate=0, lr=1e-5,
                                            no_cache=no_cache, output=output, trace=output / "trace", trace_steps=count))
        seen, spreads = [], []
        for step in range(1, count + 1):
            trace = load_file(output / "trace" / f"step-{step:06}.safetensors")
            for i, row in enumerate(trace["encoder_hidden_states"]):
                index = record_of(None, states, row)
                seen.append(index)
                for item, picture in enumerate(chosen_first(records[index])):
                    with torch.no_grad():
                        posterior = vae.encode(cut(records[index], index, picture)[None]).latent_dist
                    latents = trace["latents"][i, item] / vae.config.scaling_factor
                    check(latents.shape == posterior.mean[0].shape, f"record {index}: latents of {latents.shape}")
                    spreads.append(((latents - posterior.mean[0]) / posterior.std[0]).std().item())
        check(0.7 < min(spreads) and max(spreads) < 1.3, f"latents are no draws: {min(spreads)} .. {max(spreads)}")
        times = [seen.count(index) for index in range(len(records))]
        check(set(times) <= {1, 2, 3} and sum(times) == len(seen), f"groups come {times} times in two passes")
    check_same_runs(scratch / "out-False", [scratch / "out-True"], 1e-4)


def resumed(prefusion, world, scratch):
    """A run that stops and goes on takes the very batches, with and without a cache, held-out groups measured too."""
    _, path = write_data(scratch)
    for no_cache in (False, True):
        options = options_of(path, model=world / "models" / "epsilon", no_cache=no_cache, eval_every=3, eval_fraction=0.3,
                             workers=2)
        whole, parts = scratch / f"whole-{no_cache}", scratch / f"parts-{no_cache}"
        prefusion.run("align", **options, steps=11, output=whole)
        prefusion.run("align", **options, steps=4, output=parts)
        prefusion.run("align", **options, steps=11, output=parts, resume="auto")
        weights = [(folder / "pytorch_lora_weights.safetensors").read_bytes() for folder in (whole, parts)]
        check(weights[0] == weights[1], f"no_cache={no_cache}: weights differ")
        measured = [row for row in read_metrics(whole) if "eval/accuracy" in row]
        check([row["step"] for row in measured] == [0, 3, 6, 9, 11], f"held-out groups are measured at {measured}")
        text = prefusion.run("align", exit_code=2, **{**options, "bucket_reso_steps": 8}, steps=11, output=parts, resume="auto")
        check("buckets" in text.splitlines()[-1], text)


def references(prefusion, world, scratch):
    _, path = write_data(scratch)
    options = options_of(path, model=world / "models" / "epsilon", steps=9, adapter="full", cache=scratch / "cache")
    prefusion.run("align", **options, output=scratch / "live")
    log = prefusion.run("align", **options, reference="cached", output=scratch / "cached")
    check("encoded 0 pictures" in log, f"pictures are encoded anew:\n{log}")
    check_same_runs(scratch / "live", [scratch / "cached"], 1e-6)


def refusals(prefusion, world, scratch):
    _, path = write_data(scratch)
    flux = world / "families" / "models" / "flux"
    for changes, words in ((dict(buckets=None), "need --buckets"), (dict(min_bucket_reso=80), "--min-bucket-reso"),
                           (dict(max_bucket_reso=48), "--max-bucket-reso"), (dict(bucket_reso_steps=12), "multiple of 8"),
                           (dict(bucket_reso_steps=72), "--bucket-reso-steps 72"),
                           (dict(model=flux, bucket_reso_steps=8), "multiple of 16"),
                           (dict(model=flux, buckets=None, bucket_reso_steps=None, resolution=72), "multiple of 16")):
        options = options_of(path, **{"model": world / "models" / "epsilon", **changes})
        text = prefusion.run("align", exit_code=2, **options, steps=1, output=scratch / "out")
        check(words in text.splitlines()[-1], f"{changes}: {text}")


main({"steps": steps, "data": data, "resumed": resumed, "references": references, "refusals": refusals})
