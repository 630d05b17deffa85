"""`prefusion train-reward`: steps recomputed with transformers and autograd, outputs that load there, resuming, refusals.

train_reward.py BINARY WORLD CASE, with WORLD from make_sd_world.py.
"""

import io
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "reference"))

from support import check, check_near, main, read_metrics, snapshot

import numpy
import pyarrow
import pyarrow.parquet
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

torch.set_num_threads(1)

COMMON = dict(batch_size=12, eval_every=3, log_every=1, seed=3, workers=2, lr_schedule="constant", max_grad_norm=0)
COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 70, 220), "yellow": (230, 210, 40)}


def make_clip(world, folder):
    """A small random CLIP with the world's tokenizer."""
    tokenizer = world / "models" / "epsilon" / "tokenizer"
    shutil.copytree(tokenizer, folder)
    loaded = CLIPTokenizer.from_pretrained(folder)
    text = dict(vocab_size=len(loaded), hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
                max_position_embeddings=loaded.model_max_length, bos_token_id=loaded.bos_token_id,
                eos_token_id=loaded.eos_token_id, pad_token_id=loaded.pad_token_id)
    vision = dict(hidden_size=36, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3, image_size=24, patch_size=8)
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=20))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.copy_(torch.randn_like(weight) / weight[0].numel() ** 0.5)
    model.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}).save_pretrained(folder)
    return folder


def picture(random, colour):
    pixels = numpy.clip(numpy.array(COLOURS[colour]) + random.normal(0, 25, (40, 32, 3)), 0, 255).astype(numpy.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def write_pairs(path, count, first=0, ties=True, users=None):
    """Pairs of which the picture in the prompt's colour is the better one; with `users`, or the worse one to some."""
    random = numpy.random.default_rng(first)
    names = list(COLOURS)
    records = []
    for i in range(first, first + count):
        right, wrong = random.permutation(len(names))[:2]
        is_tie = ties and i % 5 == 4
        prompt = f"{names[right]} thing number {i // 2}"
        for user, taste in (users or {None: 1}).items():
            label = 0.5 if is_tie else float((i % 2 == 0) == (taste > 0))
            pair = [picture(random, names[right]), picture(random, names[right if is_tie else wrong])]
            if i % 2:
                pair.reverse()
            records.append({"caption": prompt, "jpg_0": pair[0], "jpg_1": pair[1], "label_0": label, "label_1": 1 - label,
                            "user_id": user or "all"})
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path, row_group_size=5)
    return path


class Trainer:
    """CLIP of transformers with PickScore's loss on all pairs of a file, as its training code computes it."""

    def __init__(self, folder, data):
        self.model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
        processor = CLIPImageProcessorPil.from_pretrained(folder)
        tokenizer = CLIPTokenizer.from_pretrained(folder)
        records = pyarrow.parquet.read_table(data).to_pylist()
        open_picture = lambda record, side: Image.open(io.BytesIO(record[f"jpg_{side}"]))
        pictures = [open_picture(record, side) for record in records for side in (0, 1)]
        self.pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
        self.tokens = tokenizer([record["caption"] for record in records], padding=True, truncation=True, return_tensors="pt")
        self.labels = torch.tensor([[record["label_0"], record["label_1"]] for record in records])
        prompts = [record["caption"] for record in records]
        self.weights = torch.tensor([1 / prompts.count(prompt) for prompt in prompts])

    def scores(self):
        pictures = self.model.get_image_features(pixel_values=self.pixels).pooler_output
        prompts = self.model.get_text_features(**self.tokens).pooler_output
        cosines = (F.normalize(pictures, dim=-1).view(-1, 2, pictures.shape[-1]) * F.normalize(prompts, dim=-1)[:, None]).sum(-1)
        return self.model.logit_scale.exp() * cosines

    def loss(self):
        loss = -(self.labels * F.log_softmax(self.scores(), dim=-1)).sum(-1)
        loss = loss + (self.labels[:, 0] == 0.5) * torch.tensor(0.5).log()
        return (loss * self.weights / self.weights.sum()).sum()

    def train(self, parameters, steps, lr, weight_decay):
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_(True)
        optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)
        losses = []
        for _ in range(steps):
            optimizer.zero_grad()
            loss = self.loss()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses


def steps_equal_torch(prefusion, world, scratch, train, choose, **options):
    clip = make_clip(world, scratch / "clip")
    data = write_pairs(scratch / "train.parquet", 12)
    held_out = write_pairs(scratch / "eval.parquet", 6, first=100)
    steps, lr, decay = 3, 2e-3, 0.1
    prefusion.run("train-reward", model=clip, data=data, eval_data=held_out, test_fraction=0, train=train, steps=steps, lr=lr,
                  weight_decay=decay, output=scratch / "out", **{**COMMON, **options})
    expected = Trainer(clip, data)
    before = {name: value.clone() for name, value in expected.model.state_dict().items()}
    chosen = {name: p for name, p in expected.model.named_parameters() if choose(name)}
    losses = expected.train(list(chosen.values()), steps, lr, decay)
    rows = [row for row in read_metrics(scratch / "out") if row["step"] > 0]
    check_near([row["loss"] for row in rows], losses, 2e-5, "losses")
    found = load_file(scratch / "out" / "model.safetensors")
    moved = difference = 0.0
    for name, value in expected.model.state_dict().items():
        if name not in chosen:
            check(torch.equal(found[name], before[name]), f"{name} has moved")
            continue
        if name.endswith("k_proj.bias"):  # softmax does not see it: its gradient is rounding, which AdamW makes a step of
            continue
        moved += (value - before[name]).double().pow(2).sum().item()
        difference += (found[name] - value).double().pow(2).sum().item()
    share = (difference / moved) ** 0.5
    print(f"  updates of {len(chosen)} tensors: relative error {share:.1e}")
    check(share < 5e-3, f"updates differ by a share of {share}")
    loaded, trained = Trainer(scratch / "out", data), expected
    with torch.no_grad():
        check_near(loaded.scores(), trained.scores(), 1e-4, "scores of the written folder in transformers")


def cosine_steps(prefusion, world, scratch):
    heads = ("visual_projection.weight", "text_projection.weight", "logit_scale")
    steps_equal_torch(prefusion, world, scratch, "head", lambda name: name in heads)


def full_steps(prefusion, world, scratch):
    steps_equal_torch(prefusion, world, scratch, "full", lambda name: True)


def checkpointed_steps(prefusion, world, scratch):
    steps_equal_torch(prefusion, world, scratch, "full", lambda name: True, gradient_checkpointing=True)


def last_layer_steps(prefusion, world, scratch):
    parts = ("layers.1.", "post_layernorm", "final_layer_norm", "projection", "logit_scale")
    steps_equal_torch(prefusion, world, scratch, "last:1", lambda name: any(part in name for part in parts))


def learns(prefusion, world, scratch):
    """Accuracy on prompts never seen rises, with each head; the folder says what was measured."""
    clip = make_clip(world, scratch / "clip")
    data = write_pairs(scratch / "train.parquet", 160)
    options = dict(model=clip, data=data, steps=120, lr=5e-3, eval_every=40, batch_size=64, seed=1, eval_fraction=0.15,
                   test_fraction=0.25, cache=scratch / "cache")
    for head, loss in (("cosine", "pickscore"), ("mlp", "bradley-terry"), ("cosine", "ranklist")):
        output = scratch / f"{head}-{loss}"
        prefusion.run("train-reward", **options, head=head, loss=loss, output=output)
        report = json.loads((output / "report.json").read_text())
        accuracy = report["test"]["overall"]["accuracy"]
        print(f"  {head}, {loss}: {report['test_before']['accuracy']['value']:.3f} -> {accuracy['value']:.3f}")
        check(accuracy["value"] > 0.8, f"{head} with {loss} did not learn: {accuracy}")
        check(accuracy["low"] <= accuracy["value"] <= accuracy["high"], f"no interval: {accuracy}")
        check(report["order_dependence"] == 0, "scores depend on the order of pictures")
        reward = json.loads((output / "reward.json").read_text())
        check(reward["temperature"] > 0 and reward["head"]["kind"] == head and reward["loss"] == loss, f"reward.json: {reward}")
        parts = [reward["data"][part] for part in ("train", "validation", "test")]
        captions = set(pyarrow.parquet.read_table(data, columns=["caption"])["caption"].to_pylist())
        check(sum(part["prompts"] for part in parts) == len(captions), f"a prompt is in two parts: {parts}")
        check(sum(part["ties"] for part in parts) == 32, f"ties: {parts}")
        check(("log_tie" in reward) == (loss == "bradley-terry"), "log_tie")


def aspects(prefusion, world, scratch):
    """An aspects head tells two contrary ones apart; overall is judged by the labels."""
    clip = make_clip(world, scratch / "clip")
    records = pyarrow.parquet.read_table(write_pairs(scratch / "train.parquet", 120, ties=False)).to_pylist()
    for record in records:
        record.update(right_0=record["label_0"], right_1=record["label_1"], wrong_0=record["label_1"], wrong_1=record["label_0"])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), scratch / "train.parquet")
    prefusion.run("train-reward", model=clip, data=scratch / "train.parquet", head="aspects", aspects="right,wrong",
                  loss="bradley-terry", steps=120, lr=5e-3, eval_every=60, test_fraction=0.25, output=scratch / "out", seed=1)
    test = json.loads((scratch / "out" / "report.json").read_text())["test"]
    for column in ("overall", "right", "wrong"):
        print(f"  {column}: {test[column]['accuracy']['value']:.3f}")
        check(test[column]["accuracy"]["value"] > 0.8, f"{column} was not learnt: {test[column]['accuracy']}")


def pal(prefusion, world, scratch):
    """Users of contrary tastes are both served; a new one is from few pairs, and the others stay as they were."""
    clip = make_clip(world, scratch / "clip")
    data = write_pairs(scratch / "train.parquet", 100, ties=False, users={"for": 1, "against": -1})
    common = dict(head="pal", eval_every=50, test_fraction=0.2, batch_size=64, seed=2)
    prefusion.run("train-reward", model=clip, data=data, head_args="dropout=0,prototypes=4", steps=300, lr=1e-3, output=scratch / "pal", **common)
    test = json.loads((scratch / "pal" / "report.json").read_text())["test"]["overall"]["accuracy"]
    print(f"  both: {test['value']:.3f}")
    check(test["value"] > 0.8, f"contrary users are not told apart: {test}")
    check(json.loads((scratch / "pal" / "reward.json").read_text())["head"]["users"] == ["against", "for"], "users")

    few = write_pairs(scratch / "few.parquet", 12, first=400, ties=False, users={"new": -1})
    judged = write_pairs(scratch / "judged.parquet", 40, first=500, ties=False, users={"new": -1})
    prefusion.run("train-reward", model=scratch / "pal", data=few, eval_data=judged, test_data=judged, train="users", steps=100,
                  lr=0.05, output=scratch / "new", **{**common, "test_fraction": 0})
    test = json.loads((scratch / "new" / "report.json").read_text())
    print(f"  new: {test['test_before']['accuracy']['value']:.3f} -> {test['test']['overall']['accuracy']['value']:.3f}")
    check(test["test"]["overall"]["accuracy"]["value"] > 0.8, f"the new user is not served: {test['test']}")
    before, after = (load_file(scratch / name / "head.safetensors") for name in ("pal", "new"))
    check(after["user_weights"].shape[0] == 3, "the new user is missing")
    check(torch.equal(after["user_weights"][:2], before["user_weights"]), "users known before have moved")
    check(all(torch.equal(after[name], before[name]) for name in before if name != "user_weights"), "a map has moved")
    prefusion.run("train-reward", model=scratch / "pal", data=data, train="users", output=scratch / "none", exit_code=3, **common)


def killed(prefusion, world, scratch):
    """A run killed with -9 and gone on with ends with the same bytes, towers and dropout included."""
    clip = make_clip(world, scratch / "clip")
    data = write_pairs(scratch / "train.parquet", 60)
    options = dict(model=clip, data=data, head="mlp", head_args="dropout=0.2", train="full", steps=40, lr=1e-3, save_every=5,
                   eval_every=10, batch_size=16, seed=1, log_every=5)
    prefusion.run("train-reward", **options, output=scratch / "whole")
    command = prefusion.command("train-reward", {**options, "output": scratch / "killed"})
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.time() + 60
    while not (scratch / "killed" / "checkpoints").exists() or not list((scratch / "killed" / "checkpoints").glob("step-*")):
        check(time.time() < deadline and process.poll() is None, "no checkpoint to kill after")
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    check(not (scratch / "killed" / "reward.json").exists(), "the run ended before it was killed")
    prefusion.run("train-reward", **options, output=scratch / "killed", exit_code=2)
    prefusion.run("train-reward", **{**options, "lr": 2e-3}, output=scratch / "killed", resume=True, exit_code=2)
    prefusion.run("train-reward", **options, output=scratch / "killed", resume=True)
    whole, resumed = snapshot(scratch / "whole"), snapshot(scratch / "killed")
    for name in ("model.safetensors", "head.safetensors", "reward.json"):
        check(whole[name] == resumed[name], f"{name} differs")
    timings = ("seconds_per_step", "samples_per_second", "loss", "accuracy")  # the latter two are means since a log line
    rows = [[{k: v for k, v in row.items() if k not in timings} for row in read_metrics(scratch / name)]
            for name in ("whole", "killed")]
    for first, second in zip(*rows):
        changed = {key for key in {*first, *second} if first.get(key) != second.get(key)}
        check(not changed, f"metrics of step {first['step']} differ: {changed}")
    check(len(rows[0]) == len(rows[1]), "a step is missing or there twice")


def scratch_clip(prefusion, world, scratch):
    """A CLIP from a config learns, and transformers loads it."""
    clip = make_clip(world, scratch / "clip")
    (clip / "model.safetensors").unlink()
    data = write_pairs(scratch / "train.parquet", 120, ties=False)
    prefusion.run("train-reward", from_config=clip, data=data, train="full", steps=80, lr=3e-3, in_batch_negatives=0.2, warmup=5,
                  eval_every=40, batch_size=32, test_fraction=0.25, seed=1, output=scratch / "out")
    report = json.loads((scratch / "out" / "report.json").read_text())
    print(f"  {report['test']['overall']['accuracy']}")
    check(report["test"]["overall"]["accuracy"]["value"] > 0.8, "the new CLIP did not learn")
    trainer = Trainer(scratch / "out", data)
    with torch.no_grad():
        scores = trainer.scores()
    right = ((scores[:, 0] > scores[:, 1]) == (trainer.labels[:, 0] == 1)).float().mean().item()
    check(right > 0.8, f"transformers finds an accuracy of {right}")


def features_are_reused(prefusion, world, scratch):
    clip = make_clip(world, scratch / "clip")
    data = write_pairs(scratch / "train.parquet", 20)
    options = dict(model=clip, data=data, steps=2, cache=scratch / "cache", batch_size=4, seed=1)
    first = prefusion.run("train-reward", **options, output=scratch / "first")
    second = prefusion.run("train-reward", **options, output=scratch / "second", head="mlp")
    check("(0 encoded now)" not in first, first)
    check(second.count("(0 encoded now)") == 2, f"features were encoded anew:\n{second}")


def refusals(prefusion, world, scratch):
    clip = make_clip(world, scratch / "clip")
    data = write_pairs(scratch / "train.parquet", 20)
    good = dict(model=clip, data=data, output=scratch / "out", steps=1)
    refuse = lambda code, **changes: prefusion.run("train-reward", exit_code=code, **{**good, **changes})
    check("elo" in refuse(2, loss="elo"), "the loss is not named")
    check("pickscore" in refuse(2, loss="elo"), "the losses there are are not named")
    refuse(2, head="forest")
    refuse(2, head_args="hidden=3")
    refuse(2, loss_args="margin=1")
    refuse(2, loss="hps", loss_args="margin=wide")
    refuse(2, from_config=clip)
    refuse(2, model=None)
    refuse(2, model=None, from_config=clip)
    refuse(2, train="last:0")
    refuse(2, train="users")
    refuse(2, head="aspects")
    refuse(2, head="mlp", in_batch_negatives=1)
    refuse(2, dtype="fp16", train="full")
    refuse(3, model=scratch / "nowhere")
    refuse(3, data=scratch / "nowhere.parquet")
    one = write_pairs(scratch / "one.parquet", 2)
    check("prompt" in refuse(3, data=one), "one prompt cannot be split")
    refuse(2, head="mlp", head_args="hidden=0")
    truncated = scratch / "truncated"
    shutil.copytree(clip, truncated)
    (truncated / "model.safetensors").write_bytes((clip / "model.safetensors").read_bytes()[:5000])
    refuse(3, model=truncated)
    (truncated / "config.json").write_text("{")
    refuse(3, model=truncated)
    bad = pyarrow.parquet.read_table(data).to_pylist()
    for record in bad[::2]:
        record["jpg_0"] = record["jpg_0"][:100]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(bad), scratch / "bad.parquet")
    check("row" in refuse(3, data=scratch / "bad.parquet"), "the row is not named")
    prefusion.run("train-reward", **{**good, "data": scratch / "bad.parquet", "max_bad": 0.6})


main({"cosine": cosine_steps, "full": full_steps, "checkpointed": checkpointed_steps, "last": last_layer_steps, "learns": learns,
      "aspects": aspects, "pal": pal, "killed": killed, "scratch": scratch_clip, "features": features_are_reused,
      "refusals": refusals})
