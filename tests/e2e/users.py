"""Personal preferences (objective ppd): training, few-shot users, generation for a user, files that do not fit.

users.py BINARY WORLD CASE, with WORLD from make_sd_world.py.
"""

import io
import json
import pathlib
import re

from support import check, check_near, check_same_runs, main, read_metrics

import numpy
import pyarrow
import pyarrow.parquet
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from diffusers.utils import logging
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

logging.set_verbosity_error()
torch.set_num_threads(1)

SHAPES = pathlib.Path(__file__).resolve().parents[2] / "assets" / "shapes"
STEPS = 3
COMMON = dict(objective="ppd", steps=STEPS, batch_size=3, accumulate=2, lr=1e-2, weight_decay=0.1, max_grad_norm=0.5,
              beta=400, eval_every=0, log_every=1, empty_prompt_rate=0.3, seed=5)
SAMPLING = dict(prompt="a red circle near the river", steps=4, guidance_scale=4.0, scheduler="ddim")


def write_pairs(world, path, users, count=None):
    """The world's pairs, judged in turn by `users`."""
    records = pyarrow.parquet.read_table(world / "pairs.parquet").to_pylist()
    records = [record for record in records if record["label_0"] != 0.5][:count]
    for i, record in enumerate(records):
        record["user_id"] = users[i % len(users)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)
    return path


def png(array):
    data = io.BytesIO()
    Image.fromarray(array).save(data, "PNG")
    return data.getvalue()


def write_tastes(path, users, prompts=24):
    """Pairs of a light and a dark picture, of which a user likes the light (+1) or the dark one (-1)."""
    random = numpy.random.default_rng(0)
    records = []
    for i in range(prompts):
        light = numpy.uint8(random.integers(190, 256, (3, 3, 3)))
        dark = numpy.uint8(random.integers(0, 66, (3, 3, 3)))
        light, dark = (numpy.asarray(Image.fromarray(x).resize((64, 64), Image.BICUBIC)) for x in (light, dark))
        for name, taste in users.items():
            label = float((taste > 0) == (i % 2 == 0))
            first, second = (light, dark) if i % 2 == 0 else (dark, light)
            records.append({"caption": f"a horse {i}", "jpg_0": png(first), "jpg_1": png(second), "label_0": label,
                            "label_1": 1 - label, "user_id": name})
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)
    return path


class Policy:
    """The UNet with IP-Adapter processors that hold an adapter's tensors."""

    def __init__(self, model, adapter):
        self.unet = UNet2DConditionModel.from_pretrained(f"{model}/unet").eval().requires_grad_(False)
        self.tensors = {name: value.clone().requires_grad_() for name, value in load_file(adapter).items()}
        width = self.tensors["users."].shape[1]
        processors = self.unet.attn_processors
        for name in processors:
            path = name.removesuffix(".processor")
            if not path.endswith("attn2"):
                continue
            inner = self.unet.get_submodule(path).to_q.out_features
            processor = IPAdapterAttnProcessor2_0(inner, width, num_tokens=(self.tensors["users."].shape[0],))
            for part in ("k", "v"):
                weight = torch.nn.Parameter(self.tensors[f"{path}.to_{part}_user.weight"].detach())
                getattr(processor, f"to_{part}_ip")[0].weight = weight
                self.tensors[f"{path}.to_{part}_user.weight"] = weight
            processors[name] = processor
        self.with_users, self.without = processors, UNet2DConditionModel.from_pretrained(f"{model}/unet").attn_processors
        self.plain = UNet2DConditionModel.from_pretrained(f"{model}/unet").eval()
        self.unet.set_attn_processor(processors)

    def names_of(self, states):
        """Whose states each group was predicted for; they are in the table to the bit, or nearly so."""
        names = []
        for state in states:
            distances = {name: (value - state).abs().max().item() for name, value in self.tensors.items()
                         if name.startswith("users.")}
            nearest = min(distances, key=distances.get)
            check(distances[nearest] < 1e-5, f"states of nobody: {distances}")
            names.append(nearest)
        return names

    def errors(self, trace, part, names):
        noisy, timesteps, text, target = (trace[key][part] for key in
                                          ("noisy_latents", "timesteps", "encoder_hidden_states", "target"))
        text = text.repeat_interleave(2, 0)
        users = torch.stack([self.tensors[name] for name in names]).repeat_interleave(2, 0)
        inputs = noisy.flatten(0, 1), timesteps.flatten()
        error = lambda prediction: (prediction.view_as(target) - target).pow(2).mean(dim=(2, 3, 4))
        with torch.no_grad():
            error_ref = error(self.plain(*inputs, text).sample)
        return error(self.unet(*inputs, (text, [users])).sample), error_ref


def steps_equal_pytorch(prefusion, world, scratch):
    """Predictions, errors, gradients and updates, of projections and of the users asked for alone."""
    model = world / "models" / "epsilon"
    fixed = {**COMMON, "model": model, "data": write_pairs(world, scratch / "pairs.parquet", [7, 8, 9, 10]),
             "objective_args": "user_tokens=3,user_width=5,user_dropout=0.3"}
    prefusion.run("align", **fixed, output=scratch / "out", trace=scratch / "trace", trace_steps=STEPS)
    prefusion.run("align", **{**fixed, "lr": 0, "steps": 1}, output=scratch / "initial")
    policy = Policy(model, scratch / "initial" / "user_adapter.safetensors")
    check(sum(name.startswith("users.") for name in policy.tensors) == 5, f"users: {sorted(policy.tensors)}")
    initial = {name: value.detach().clone() for name, value in policy.tensors.items()}
    optimizer = torch.optim.AdamW(policy.tensors.values(), lr=COMMON["lr"], weight_decay=COMMON["weight_decay"])
    seen = set()
    for step in range(1, STEPS + 1):
        trace = load_file(scratch / "trace" / f"step-{step:06}.safetensors")
        for begin in (0, 3):
            part = slice(begin, begin + 3)
            names = policy.names_of(trace["user_states"][part])
            seen.update(names)
            error, error_ref = policy.errors(trace, part, names)
            check_near(trace["error"][part], error.detach(), 3e-6, f"step {step} error")
            check_near(trace["error_ref"][part], error_ref, 3e-6, f"step {step} error_ref")
            improvement = error_ref - error
            loss = -F.logsigmoid(200 * (improvement[:, 0] - improvement[:, 1])).mean() / 2
            loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(policy.tensors.values(), COMMON["max_grad_norm"])
        check_near(trace["grad_norm"], norm, 1e-4, f"step {step} gradient norm")
        optimizer.step()
        optimizer.zero_grad()
    check("users." in seen and len(seen) > 2, f"only {sorted(seen)} were trained")
    found = load_file(scratch / "out" / "user_adapter.safetensors")
    check(found.keys() == policy.tensors.keys(), "other tensors are in the file")
    moved = difference = 0.0
    for name, value in policy.tensors.items():
        moved += (value - initial[name]).detach().double().pow(2).sum().item()
        difference += (found[name] - value).detach().double().pow(2).sum().item()
    share = (difference / moved) ** 0.5
    print(f"  updates: relative error {share:.1e}")
    check(share < 1e-3, f"updates differ by a share of {share}")
    rows = read_metrics(scratch / "out")
    check(abs(rows[0]["loss"] - 0.6931472) < 1e-5, f"the first loss is {rows[0]['loss']}, not log 2")


def tastes_are_told_apart(prefusion, world, scratch):
    """Two users who judge every pair against each other are both served; somebody new is, from six pairs."""
    data = write_tastes(scratch / "tastes.parquet", {"light": 1, "dark": -1})
    options = dict(model=SHAPES, data=data, steps=20, batch_size=8, lr=1e-3, kappa=300, eval_every=20, no_hflip=True,
                   eval_fraction=0.25, spike_factor=0, seed=1, log_every=20, objective="ppd")
    prefusion.run("align", **options, objective_args="user_dropout=0", output=scratch / "ppd", timeout=300)
    row = read_metrics(scratch / "ppd")[-1]
    print(f"  {row['eval/user_accuracy/light']} and {row['eval/user_accuracy/dark']}")
    check(row["eval/user_accuracy_least"] > 0.85, f"a user is not served: {row}")
    mean = (row["eval/user_accuracy/light"] + row["eval/user_accuracy/dark"]) / 2
    check(abs(row["eval/user_accuracy"] - mean) < 1e-9, "eval/user_accuracy is not the mean over users")
    check(abs(row["eval/accuracy"] - mean) < 1e-6, "users with as many pairs each do not make up eval/accuracy")

    few = write_tastes(scratch / "few.parquet", {"newcomer": -1}, prompts=6)
    judged = write_tastes(scratch / "judged.parquet", {"newcomer": -1})
    prefusion.run("align", **{**options, "data": few, "eval_data": judged, "lr": 0.05}, objective_args="train=users",
                  init_user_adapter=scratch / "ppd" / "user_adapter.safetensors", output=scratch / "few", timeout=300)
    before, after = (load_file(scratch / name / "user_adapter.safetensors") for name in ("ppd", "few"))
    check(set(after) - set(before) == {"users.newcomer"}, f"new tensors: {sorted(set(after) - set(before))}")
    check(all(torch.equal(after[name], value) for name, value in before.items()), "what was there has moved")
    accuracy = read_metrics(scratch / "few")[-1]["eval/user_accuracy/newcomer"]
    print(f"  newcomer {accuracy}")
    check(accuracy > 0.8, f"the newcomer is not served: {accuracy}")


def picture(prefusion, scratch, **options):
    prefusion.run("generate", **{**SAMPLING, **options}, output=scratch / "picture.png")
    return numpy.asarray(Image.open(scratch / "picture.png")).astype(int)


def difference(a, b):
    return numpy.abs(a - b).max()


def pictures_are_for_users(prefusion, world, scratch):
    model = world / "models" / "epsilon"
    data = write_pairs(world, scratch / "pairs.parquet", ["anna", "b,c:d"])
    fixed = {**COMMON, "model": model, "data": data, "spike_factor": 0}
    prefusion.run("align", **{**fixed, "lr": 0, "steps": 1}, output=scratch / "start")
    prefusion.run("align", **{**fixed, "steps": 10, "lr": 0.1}, output=scratch / "out", sample_every=10,
                  sample_prompts=world / "prompts.txt", sample_steps=2)
    adapter = scratch / "out" / "user_adapter.safetensors"
    plain = picture(prefusion, scratch, model=model)
    untrained = picture(prefusion, scratch, model=model, user_adapter=scratch / "start" / "user_adapter.safetensors",
                        user="anna")
    check(difference(untrained, plain) == 0, "an untrained adapter changes the picture")
    anna = picture(prefusion, scratch, model=model, user_adapter=adapter, user="anna")
    text = Image.open(scratch / "picture.png").text
    check("User: anna" in text["parameters"] and '"user": "anna"' in text["prefusion"].replace('":"', '": "'), str(text))
    nobody = picture(prefusion, scratch, model=model, user_adapter=adapter)
    half = picture(prefusion, scratch, model=model, user_adapter=f"{adapter}:0.5", user="anna")
    check(min(difference(anna, plain), difference(nobody, anna), difference(half, anna)) > 2, "users change nothing")
    check(difference(picture(prefusion, scratch, model=model, user_adapter=adapter, user="anna:3"), anna) == 0,
          "the weight of a single user matters")
    check(difference(picture(prefusion, scratch, model=model, user_adapter=f"{adapter}:0", user="anna"), plain) == 0,
          "scale 0 is not the model")
    # Pictures do not depend on what else is in the batch.
    prefusion.run("generate", **SAMPLING, model=model, user_adapter=adapter, user="anna", num_images=3,
                  output=scratch / "several")
    first = numpy.asarray(Image.open(scratch / "several" / "00000-000.png")).astype(int)
    check(difference(first, anna) <= 1, "a batch changes the picture")
    for options, mentions in ((dict(user_adapter=adapter, user="carl"), "'carl'"), (dict(user="anna"), "--user-adapter"),
                              (dict(user_adapter=adapter, user="anna:1,anna:-1"), "positive sum")):
        error = prefusion.run("generate", exit_code=2, **SAMPLING, model=model, output=scratch / "x.png", **options)
        check(mentions in error.splitlines()[-1], error)


def evaluation_is_for_a_user(prefusion, world, scratch):
    """A personal model's pictures are those of generate for the user, from the seeds of the baseline's."""
    model = world / "models" / "epsilon"
    data = write_pairs(world, scratch / "pairs.parquet", ["anna", "bert"])
    prefusion.run("align", **{**COMMON, "steps": 10, "lr": 0.1, "spike_factor": 0}, model=model, data=data,
                  output=scratch / "out")
    adapter = scratch / "out" / "user_adapter.safetensors"
    prompts = scratch / "prompts.txt"
    prompts.write_text("a red circle\n")
    sampling = {key: value for key, value in SAMPLING.items() if key != "prompt"}
    fixed = dict(model=model, baseline=model, prompts=prompts, num_images=2, seed=7, preference_data=data,
                 preference_pairs=6, preference_timesteps=2, save_pictures=True, **sampling)
    margins = {}
    for name, options in (("anna", dict(user_adapter=adapter, user="anna")), ("nobody", dict(user_adapter=adapter)),
                          ("off", dict(user_adapter=f"{adapter}:0", user="anna"))):
        prefusion.run("evaluate", **fixed, **options, output=scratch / name)
        summary = json.loads((scratch / name / "summary.json").read_text())
        margins[name] = summary["implicit_preference"]["margin"]["value"]
        told = summary["settings"]["user_adapter"]
        check(told["user"] == options.get("user", "") and told["scale"] == (0 if name == "off" else 1), str(told))
        made = scratch / f"{name}-generated"
        prefusion.run("generate", model=model, prompts=prompts, num_images=2, seed=7, output=made, **sampling, **options)
        for i in range(2):
            found = numpy.asarray(Image.open(scratch / name / "pictures" / f"0000{i}-model.png"))
            check((found == numpy.asarray(Image.open(made / f"00000-00{i}.png"))).all(), f"{name}: another picture {i}")
            before = numpy.asarray(Image.open(scratch / name / "pictures" / f"0000{i}-baseline.png"))
            check((found == before).all() == (name == "off"), f"{name}: picture {i} and the baseline's")
    check(margins["off"] == 0 and len(set(margins.values())) == 3, f"implicit rewards {margins}")
    for options, mentions in ((dict(user_adapter=adapter, user="carl"), "'carl'"), (dict(user="anna"), "--user-adapter")):
        error = prefusion.run("evaluate", exit_code=2, **fixed, **options, output=scratch / "refused")
        check(mentions in error.splitlines()[-1], error)


def interpolation_lies_between(prefusion, world, scratch):
    model = world / "models" / "epsilon"
    data = write_pairs(world, scratch / "pairs.parquet", ["anna", "bert"])
    prefusion.run("align", **{**COMMON, "steps": 10, "lr": 0.1, "spike_factor": 0}, model=model, data=data,
                  output=scratch / "out")
    adapter = load_file(scratch / "out" / "user_adapter.safetensors")
    with safe_open(scratch / "out" / "user_adapter.safetensors", "pt") as file:
        metadata = file.metadata()
    adapter["users.between"] = 0.75 * adapter["users.anna"] + 0.25 * adapter["users.bert"]
    save_file(adapter, scratch / "mixed.safetensors", metadata=metadata)
    found = picture(prefusion, scratch, model=model, user_adapter=scratch / "mixed.safetensors", user="anna:3,bert:1")
    expected = picture(prefusion, scratch, model=model, user_adapter=scratch / "mixed.safetensors", user="between")
    anna = picture(prefusion, scratch, model=model, user_adapter=scratch / "mixed.safetensors", user="anna")
    check(difference(found, expected) <= 1, "the mixture is not the mean by weight")
    check(difference(anna, expected) > 2, "the users draw the same")


def given_embeddings_stay(prefusion, world, scratch):
    data = write_pairs(world, scratch / "pairs.parquet", ["anna", "bert"])
    given = {"anna": torch.randn(3, 6), "bert": torch.randn(3, 6), "nobody here": torch.randn(3, 6)}
    save_file(given, scratch / "embeddings.safetensors")
    fixed = {**COMMON, "model": world / "models" / "epsilon", "data": data}
    prefusion.run("align", **fixed, user_embeddings=scratch / "embeddings.safetensors", output=scratch / "out")
    found = load_file(scratch / "out" / "user_adapter.safetensors")
    check(all(torch.equal(found[f"users.{name}"], value) for name, value in given.items()), "embeddings have moved")
    check_near(found["users."], sum(given.values()) / 3, 1e-6, "the empty user")
    check(any(value.abs().max() > 0 for name, value in found.items() if "to_v_user" in name), "nothing was trained")
    del given["bert"]
    save_file(given, scratch / "embeddings.safetensors")
    error = prefusion.run("align", exit_code=3, **fixed, user_embeddings=scratch / "embeddings.safetensors",
                          output=scratch / "other")
    check("'bert'" in error.splitlines()[-1], error)


def rows_without_a_user_are_dropped(prefusion, world, scratch):
    data = write_pairs(world, scratch / "pairs.parquet", ["anna", None, "bert"])
    log = prefusion.run("align", **COMMON, model=world / "models" / "epsilon", data=data, output=scratch / "out")
    check("without a user dropped" in log and "2 users" in log, log)
    error = prefusion.run("align", exit_code=3, **COMMON, model=world / "models" / "epsilon",
                          data=world / "pairs.parquet", output=scratch / "other")
    check("user_id" in error.splitlines()[-1], error)


def cache_holds_what_runs_need(prefusion, world, scratch):
    """Groups are counted without those of nobody, ahead of training as in it."""
    data = write_pairs(world, scratch / "pairs.parquet", [None, "anna", "bert"])
    options = dict(model=world / "models" / "epsilon", data=data, objective="ppd", seed=3)
    prefusion.run("cache", **options, cache=scratch / "cache", reference_errors=1)
    log = prefusion.run("align", **options, cache=scratch / "cache", steps=3, batch_size=2, reference="cached",
                        reference_draws=1, output=scratch / "out")
    check("encoded 0 pictures, 0 prompts" in log, log)
    check(re.search(r"reference errors: computed 0 groups, the other [1-9]", log), log)


def read_kind(path):
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("prefusion_adapter")
    except Exception:  # no safetensors file at all
        return None


def damaged_adapters(prefusion, world, scratch):
    model = world / "models" / "epsilon"
    data = write_pairs(world, scratch / "pairs.parquet", ["anna", "bert"])
    fixed = {**COMMON, "steps": 1, "model": model, "data": data}
    prefusion.run("align", **fixed, output=scratch / "out")
    path, broken = scratch / "out" / "user_adapter.safetensors", scratch / "broken.safetensors"
    whole, metadata = load_file(path), {"format": "pt", "prefusion_adapter": "user"}
    value = next(name for name in whole if name.endswith("to_v_user.weight"))

    def cases():
        save_file({**whole, value: whole[value][:, :2].contiguous()}, broken, metadata=metadata)
        yield
        save_file({name: tensor for name, tensor in whole.items() if name != value}, broken, metadata=metadata)
        yield
        save_file({**whole, "users.anna": whole["users.anna"] / 0}, broken, metadata=metadata)
        yield
        save_file(whole, broken)
        yield
        for content in (b"", b"\xff" * 64, path.read_bytes()[:-3]):
            broken.write_bytes(content)
            yield

    for _ in cases():
        for command, options in (("generate", dict(SAMPLING, model=model, user_adapter=broken, user="anna")),
                                 ("align", dict(fixed, init_user_adapter=broken))):
            error = prefusion.run(command, exit_code=3, **options, output=scratch / "x.png")
            check("broken.safetensors" in error.splitlines()[-1], error)
        inspect = [prefusion.binary, "inspect", str(broken), "--model", str(model)]
        if read_kind(broken) == "user":
            prefusion.run_command(inspect, 3)
    prefusion.run_command([prefusion.binary, "inspect", str(path), "--model", str(model)])
    prefusion.run("generate", exit_code=3, **SAMPLING, model=model, lora=path, output=scratch / "x.png")
    for changes, mentions in ((dict(adapter="full"), "--adapter"), (dict(reference="ema:0.9"), "ema:0.9"),
                              (dict(rank=2), "--rank"), (dict(objective="diffusion-dpo", user_embeddings=path), "ppd")):
        error = prefusion.run("align", exit_code=2, **{**fixed, **changes}, output=scratch / "refused")
        check(mentions in error.splitlines()[-1], error)


def cached_reference_is_the_live_one(prefusion, world, scratch):
    data = write_pairs(world, scratch / "pairs.parquet", ["anna", "bert"])
    fixed = {**COMMON, "accumulate": 1, "model": world / "models" / "epsilon", "data": data, "cache": scratch / "cache"}
    for reference in ("adapter-off", "cached", "frozen"):
        prefusion.run("align", **fixed, reference=reference, output=scratch / reference)
    check_same_runs(scratch / "adapter-off", [scratch / "cached", scratch / "frozen"])


main({
    "steps": steps_equal_pytorch,
    "tastes": tastes_are_told_apart,
    "pictures": pictures_are_for_users,
    "evaluation": evaluation_is_for_a_user,
    "interpolation": interpolation_lies_between,
    "embeddings": given_embeddings_stay,
    "missing": rows_without_a_user_are_dropped,
    "damaged": damaged_adapters,
    "references": cached_reference_is_the_live_one,
    "cache": cache_holds_what_runs_need,
})
