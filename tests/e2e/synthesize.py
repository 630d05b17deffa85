"""Ranked lists of `prefusion synthesize`: scores, shares of wins and ranks made again from the stored pictures.

synthesize.py BINARY WORLD CASE, with WORLD from make_sd_world.py and WORLD/rewards from make_clip_rewards.py.
"""

import io
import json
import signal
import subprocess
import time

from support import check, main

import numpy
import pyarrow.parquet
from PIL import Image

SAMPLING = dict(steps=4, guidance_scale=3.0, scheduler="dpm++", seed=7, batch_size=3)
PROMPTS = ["a red circle", "a blue horse near the river", "two green stars", "a red circle", "a white square, black edge"]


def near(found, expected, tolerance, what):
    found, expected = numpy.asarray(found, float), numpy.asarray(expected, float)
    check(found.shape == expected.shape, f"{what}: shape {found.shape}, expected {expected.shape}")
    error = numpy.abs(found - expected).max() / max(numpy.abs(expected).max(), 1e-30)
    check(error <= tolerance, f"{what}: relative error {error:.3e} is above {tolerance:.0e}")


def write_prompts(scratch, prompts=PROMPTS):
    (scratch / "prompts.txt").write_text("".join(f"{prompt}\n" for prompt in prompts))
    return scratch / "prompts.txt"


def two_rewards(world):
    models = world / "rewards" / "models"
    return [f"pickscore={models / 'public_size'}", f"clip/other={models / 'public_size_other'}"]


def repeated(flag, values):
    return [argument for value in values for argument in (flag, str(value))]


def command_of(prefusion, models, rewards, output, **options):
    command = prefusion.command("synthesize", {"output": output, **SAMPLING, **options})
    return command + repeated("--model", models) + repeated("--reward", rewards)


def synthesize(prefusion, models, rewards, output, exit_code=0, **options):
    """Rows of the lists, or the error of a run that fails."""
    errors = prefusion.run_command(command_of(prefusion, models, rewards, output, **options), exit_code)
    return errors if exit_code else read_lists(output)


def read_lists(path):
    rows = pyarrow.parquet.read_table(path).to_pylist()
    for row in rows:
        for item in row["images"]:
            item["scores"] = dict(item["scores"])
    return rows


def picture(item):
    return Image.open(io.BytesIO(item["image"]))


def pixels(item):
    return numpy.asarray(picture(item).convert("RGB"))


def column(row, name):
    return [item["scores"][name] for item in row["images"]]


def win_shares(columns, tie=0.0):
    """Of each item the share of rivals it beats over all columns."""
    count = len(columns[0])
    wins = [sum((c[i] > c[j]) + tie * (c[i] == c[j]) for c in columns for j in range(count) if j != i)
            for i in range(count)]
    return [share / (len(columns) * (count - 1)) for share in wins]


def places(values):
    return [sum(other > value for other in values) for value in values]


def check_ranked(rows, values_of, what):
    for row in rows:
        values = values_of(row)
        check([item["rank"] for item in row["images"]] == places(values),
              f"{what}: ranks {[item['rank'] for item in row['images']]} for values {values}")


class ClipReward:
    """A folder of make_clip_rewards.py under transformers."""

    def __init__(self, folder):
        from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

        self.model = CLIPModel.from_pretrained(folder).eval()
        self.tokenizer = CLIPTokenizer.from_pretrained(folder)
        self.processor = CLIPImageProcessorPil.from_pretrained(folder)

    def cosines(self, pictures, prompts):
        import torch

        length = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(prompts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        with torch.no_grad():
            seen = self.model.get_image_features(**self.processor(images=pictures, return_tensors="pt")).pooler_output
            read = self.model.get_text_features(**tokens).pooler_output
        return torch.nn.functional.cosine_similarity(seen, read)

    def pickscores(self, pictures, prompts):
        return self.model.logit_scale.exp().detach() * self.cosines(pictures, prompts)


def check_scores(world, rows):
    items = [(item, row["prompt"]) for row in rows for item in row["images"]]
    pictures, prompts = [picture(item).convert("RGB") for item, _ in items], [prompt for _, prompt in items]
    pickscore = ClipReward(world / "rewards/models/public_size").pickscores(pictures, prompts)
    near([item["scores"]["pickscore"] for item, _ in items], pickscore, 2e-4, "pickscore of the stored pictures")
    clip = 100 * ClipReward(world / "rewards/models/public_size_other").cosines(pictures, prompts).clamp_min(0)
    near([item["scores"]["clip/other"] for item, _ in items], clip, 2e-4, "clip of the stored pictures")


def check_generated(prefusion, scratch, row, item, **options):
    sampling = {key: value for key, value in SAMPLING.items() if key not in ("seed", "batch_size")}
    prefusion.run("generate", prompt=row["prompt"], seed=item["seed"], output=scratch / "one.png", **sampling, **options)
    found = numpy.asarray(Image.open(scratch / "one.png")).astype(float)
    error = numpy.abs(found - pixels(item)).mean()
    check(error < 0.05, f"prefusion generate makes another picture of seed {item['seed']} (mean difference {error})")


def make_lora(prefusion, world, scratch):
    prefusion.run("align", model=world / "models/epsilon", data=world / "pairs.parquet", steps=3, lr=2e-2, eval_every=0,
                  spike_factor=0, output=scratch / "lora")
    return scratch / "lora"


def lists(prefusion, world, scratch):
    base, other = world / "models/epsilon", world / "models/v_prediction"
    lora = make_lora(prefusion, world, scratch)
    models = [base, f"{base}+{lora}:0.8", other]
    prompts = write_prompts(scratch)
    options = dict(prompts=prompts, per_model=2, keep_journal=True, summary=scratch / "summary.json")
    rows = synthesize(prefusion, models, two_rewards(world), scratch / "lists.parquet", **options)

    check([row["prompt"] for row in rows] == PROMPTS, "a list is not that of its prompt")
    check(all([item["model"] for item in row["images"]] == ["epsilon", "epsilon", "lora", "lora", "v_prediction", "v_prediction"]
              for row in rows), f"models {[item['model'] for item in rows[0]['images']]}")
    seeds = [item["seed"] for row in rows for item in row["images"]]
    check(len(set(seeds)) == len(seeds), "two pictures share a seed")
    check(all(pixels(item).shape == (64, 64, 3) and picture(item).format == "PNG" for row in rows for item in row["images"]),
          "a picture has another size or format")
    check_scores(world, rows)
    for row in rows:
        near(column(row, "phi"), win_shares([column(row, "pickscore"), column(row, "clip/other")]), 1e-12, "phi")
    check_ranked(rows, lambda row: column(row, "phi"), "wins")
    check_generated(prefusion, scratch, rows[1], rows[1]["images"][1], model=base)
    check_generated(prefusion, scratch, rows[3], rows[3]["images"][2], model=base, lora=f"{lora}:0.8")
    check_generated(prefusion, scratch, rows[4], rows[4]["images"][5], model=other)
    check_summary(rows, json.loads((scratch / "summary.json").read_text()))
    check_other_aggregates(prefusion, models, world, scratch, options, rows)
    check_trains(prefusion, base, scratch, rows)


def check_summary(rows, summary):
    for model in summary["models"]:
        items = [item for row in rows for item in row["images"] if item["model"] == model["name"]]
        for name in ("pickscore", "clip/other"):
            near(model["scores"][name], numpy.mean([item["scores"][name] for item in items]), 1e-9, f"mean {name}")
        near(model["phi"], numpy.mean([item["scores"]["phi"] for item in items]), 1e-9, "mean phi")
    near(sum(model["first_share"] for model in summary["models"]), 1.0, 1e-9, "shares of the best pictures")
    pairs = [(i, j) for i in range(6) for j in range(i)]
    ties = numpy.mean([row["images"][i]["rank"] == row["images"][j]["rank"] for row in rows for i, j in pairs])
    near(summary["tie_share"], ties, 1e-9, "share of ties")
    products = numpy.array([(column(row, "pickscore")[i] - column(row, "pickscore")[j])
                            * (column(row, "clip/other")[i] - column(row, "clip/other")[j]) for row in rows for i, j in pairs])
    opposite = (products < 0).sum() / (products != 0).sum()
    near(summary["discordant_share"], opposite, 1e-9, "share of discordant pairs")


def check_other_aggregates(prefusion, models, world, scratch, options, rows):
    """The journal that was kept is ranked in every other way, without making a picture."""
    names = ("pickscore", "clip/other")
    everything = {name: [value for row in rows for value in column(row, name)] for name in names}
    z = {name: (numpy.mean(values), numpy.std(values)) for name, values in everything.items()}
    z_scores = lambda row: [[(v - z[name][0]) / z[name][1] for v in column(row, name)] for name in names]
    expected = {
        "mean": lambda row: numpy.mean([column(row, name) for name in names], 0),
        "rank": lambda row: win_shares([column(row, name) for name in names], tie=0.5),
        "zscore": lambda row: numpy.mean(z_scores(row), 0),
        "worst": lambda row: numpy.min(z_scores(row), 0),
        "worst-rank": lambda row: numpy.min([win_shares([column(row, name)], tie=0.5) for name in names], 0),
    }
    began = time.monotonic()
    for name, values_of in expected.items():
        again = synthesize(prefusion, models, two_rewards(world), scratch / f"{name}.parquet", **options, resume=True,
                           aggregate=name, journal=scratch / "lists.parquet.journal")
        stored = "phi" if name in ("rank", "worst-rank") else name
        for row, same in zip(again, rows, strict=True):
            check([i["image"] for i in row["images"]] == [i["image"] for i in same["images"]], f"{name}: other pictures")
            near(column(row, stored), values_of(row), 1e-9, f"{name} of a list")
            near(column(row, "phi"), win_shares([column(row, stored)]) if stored == name else values_of(row), 1e-9, "phi")
        check_ranked(again, lambda row: column(row, stored), name)
    weighted = synthesize(prefusion, models, two_rewards(world), scratch / "weighted.parquet", **options, resume=True,
                          reward_weights="pickscore=3", journal=scratch / "lists.parquet.journal")
    for row in weighted:
        shares = [win_shares([column(row, name)]) for name in names]
        near(column(row, "phi"), 0.75 * numpy.array(shares[0]) + 0.25 * numpy.array(shares[1]), 1e-9, "weighted phi")
    print(f"  ranked again {len(expected) + 1} times in {time.monotonic() - began:.1f} s")
    synthesize(prefusion, models, two_rewards(world), scratch / "given.parquet", **options, resume=True, aggregate="zscore",
               score_statistics=scratch / "summary.json", journal=scratch / "lists.parquet.journal")
    check(column(read_lists(scratch / "given.parquet")[2], "zscore")
          == column(read_lists(scratch / "zscore.parquet")[2], "zscore"), "given statistics are not those of the summary")


def check_trains(prefusion, model, scratch, rows):
    """Labels that align takes from the lists are phi, in the order of the ranks; inspect and plackett-luce read them."""
    from safetensors.numpy import load_file

    data = scratch / "lists.parquet"
    prefusion.run("align", model=model, data=data, objective="rankdpo", steps=2, batch_size=2, eval_every=0, lr=1e-4,
                  spike_factor=0, output=scratch / "rankdpo", trace=scratch / "trace", trace_steps=2)
    labels = numpy.concatenate([load_file(path)["label"] for path in sorted((scratch / "trace").glob("*.safetensors"))])
    expected = sorted(tuple(sorted((round(v, 5) for v in column(row, "phi")), reverse=True)) for row in rows)
    for group in labels.tolist():
        check(tuple(round(v, 5) for v in group) in expected, f"the labels {group} are those of no list")
    prefusion.run("align", model=model, data=data, objective="plackett-luce", steps=1, batch_size=1, eval_every=0,
                  lr=1e-4, spike_factor=0, output=scratch / "plackett")
    prefusion.run_command([prefusion.binary, "inspect", str(data)])


def resumed(prefusion, world, scratch):
    models = [world / "models/epsilon", world / "models/v_prediction"]
    prompts = write_prompts(scratch, [f"{prompt} {i}" for i in range(3) for prompt in PROMPTS])
    options = dict(prompts=prompts, per_model=2, block_size=2, image_format="jpeg", steps=6)
    rewards = two_rewards(world)
    rows = synthesize(prefusion, models, rewards, scratch / "whole.parquet", **options)
    check(not (scratch / "whole.parquet.journal").exists(), "the journal is left behind")
    check(picture(rows[0]["images"][0]).format == "JPEG", "not the format that was asked for")
    check_scores(world, rows)

    output = scratch / "killed.parquet"
    for name in ("model-000.blocks", "model-001.blocks"):  # killed within the first model, then within the second
        process = subprocess.Popen(command_of(prefusion, models, rewards, output, **options, resume=True),
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        file = scratch / "killed.parquet.journal" / name
        while process.poll() is None and (not file.exists() or file.stat().st_size < 5_000):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        check(process.wait() == -signal.SIGKILL, "the run ended before it could be killed")
        check(not output.exists(), "half a file is there")
        with open(file, "ab") as torn:  # as if the next block had been cut off
            torn.write(b"\x40" * 100)
    synthesize(prefusion, models, rewards, output, exit_code=2, **options)
    changed = synthesize(prefusion, models, rewards, output, exit_code=2, resume=True, **{**options, "steps": 7})
    check("its steps was 6, this run's is 7" in changed, changed)
    errors = prefusion.run_command(command_of(prefusion, models, rewards, output, **options, resume=True))
    check("resuming: " in errors, errors)
    for row, same in zip(read_lists(output), rows, strict=True):
        check(row == same, f"after a resumed run the list of '{row['prompt']}' is another")
    check(output.read_bytes() == (scratch / "whole.parquet").read_bytes(), "the resumed file is another")
    errors = prefusion.run_command(command_of(prefusion, models, rewards, output, **options, resume=True))
    check("there already" in errors, errors)
    synthesize(prefusion, models, rewards, output, exit_code=2, resume=True, aggregate="rank", **options)

    parts = [synthesize(prefusion, models, rewards, scratch / f"part{i}.parquet", shard=f"{i}/2", **options)
             for i in range(2)]
    check([len(part) for part in parts] == [7, 8], f"shards of {[len(part) for part in parts]} rows")
    for row, same in zip([row for part in parts for row in part], rows, strict=True):
        check(row["prompt"] == same["prompt"], "shards are not in order")
        check([i["seed"] for i in row["images"]] == [i["seed"] for i in same["images"]], "a shard has other seeds")
        difference = max(numpy.abs(pixels(a).astype(int) - pixels(b)).mean() for a, b in zip(row["images"], same["images"]))
        check(difference < 0.1, f"a shard has other pictures ({difference})")


def pruned(prefusion, world, scratch):
    """Pruning changes no picture that it keeps; what it says of its costs and of the winners is so."""
    model, rewards = world / "models/epsilon", two_rewards(world)
    prompts = write_prompts(scratch)
    options = dict(prompts=prompts, steps=6, scheduler="unipc", batch_size=5)
    every = synthesize(prefusion, [model], rewards, scratch / "every.parquet", per_model=8, **options)
    best = synthesize(prefusion, [model], rewards, scratch / "best.parquet", per_model=2, candidates=8, **options)
    for row, full in zip(best, every, strict=True):
        phi = column(full, "phi")
        chosen = sorted(sorted(range(8), key=lambda i: -phi[i])[:2])
        check([i["image"] for i in row["images"]] == [full["images"][i]["image"] for i in chosen], "not the best of eight")

    rules = ["--prune-at", "2:0.5", "--prune-at", "4:0.25"]
    runs = {}
    for name, extra in (("pruned", []), ("checked", ["--prune-check"])):
        command = command_of(prefusion, [model], rewards, scratch / f"{name}.parquet", keep_best=2, candidates=8,
                             summary=scratch / f"{name}.json", **options)
        prefusion.run_command(command + rules + extra)
        runs[name] = json.loads((scratch / f"{name}.json").read_text())["pruning"]
    rows = read_lists(scratch / "pruned.parquet")
    same = 0
    for row, checked, full in zip(rows, read_lists(scratch / "checked.parquet"), every, strict=True):
        by_seed = {item["seed"]: item for item in full["images"]}
        for item in row["images"]:
            difference = numpy.abs(pixels(item).astype(int) - pixels(by_seed[item["seed"]]))
            check(difference.max() <= 1, f"pruning changes a picture that it keeps (by {difference.max()})")
        check([i["seed"] for i in row["images"]] == [i["seed"] for i in checked["images"]], "the check keeps others")
        winner = full["images"][max(range(8), key=lambda i: (column(full, "phi")[i], -i))]["seed"]
        same += winner in [item["seed"] for item in row["images"]]
    # 8 candidates for 2 calls, 4 for 2, 3 for the last 2.
    for counts in runs.values():
        check(counts["evaluations"] == 5 * (16 + 8 + 6) and counts["full_evaluations"] == 5 * 48, f"counts {counts}")
        check(counts["previews"] == 5 * (8 + 4), f"previews {counts['previews']}")
    check(runs["checked"]["checked_groups"] == 5 and runs["checked"]["same_winner"] <= same, f"{runs['checked']}, {same}")
    print(f"  the same winner in {runs['checked']['same_winner']} of 5 groups")


def judged(prefusion, world, scratch):
    model, rewards = world / "models/epsilon", two_rewards(world)
    prompts = write_prompts(scratch)
    options = dict(prompts=prompts, per_model=3, keep_journal=True)
    rows = synthesize(prefusion, [model], rewards, scratch / "lists.parquet", **options)
    name = lambda row, i: {"model": "epsilon", "seed": rows[row]["images"][i]["seed"]}
    vote = lambda first, second, winner: {"order": [first, second], "winner": winner}
    lines = [
        # 0 beats 1 in both orders, 1 and 2 go with the order, 0 and 2 were shown once.
        {"prompt": PROMPTS[1], "images": [0, 1, 2], "critique": "the second has no river",
         "votes": [vote(0, 1, "first"), vote(1, 0, "second"), vote(1, 2, "first"), vote(2, 1, "first"), vote(2, 0, "first")]},
        {"prompt": PROMPTS[2], "images": [name(2, 2), name(2, 0), name(2, 1)], "aspects": {"look": [1, 5, 3]}},
        {"prompt": PROMPTS[4], "images": [0, 1], "votes": [vote(0, 1, "tie")]},  # the third was left out
        {"prompt": "another", "images": [0, 1], "votes": [vote(0, 1, "tie")]},
    ]
    (scratch / "judgements.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    judged = synthesize(prefusion, [model], rewards, scratch / "lists.parquet", **options, resume=True,
                        judgements=scratch / "judgements.jsonl", summary=scratch / "summary.json")
    expected = {1: [0.5, 0.25, 0.75], 2: [5, 3, 1]}
    for i, row in enumerate(judged):
        names = ["pickscore", "clip/other"]
        if i in expected:
            check(column(row, "judgement") == expected[i], f"judgements {column(row, 'judgement')} of list {i}")
            names.append("judgement")
        else:
            check("judgement" not in row["images"][0]["scores"], f"list {i} was not judged")
        near(column(row, "phi"), win_shares([column(row, n) for n in names]), 1e-12, "phi with judgements")
    check(column(judged[2], "judgement/look") == [5, 3, 1], "an aspect is not stored")
    check_ranked(judged, lambda row: column(row, "phi"), "judged")
    found = json.loads((scratch / "summary.json").read_text())["judgements"]
    check(found == {"lines": 4, "used": 3, "lists": 2}, f"{found}")


def refusals(prefusion, world, scratch):
    model, rewards = world / "models/epsilon", two_rewards(world)
    prompts = write_prompts(scratch)
    out = scratch / "out.parquet"

    def refuses(exit_code, part, models=(model,), rewards=rewards, output=out, **options):
        options = {"prompts": prompts, "per_model": 2, **options}
        errors = synthesize(prefusion, models, rewards, output, exit_code=exit_code, **options)
        check(part in errors, f"'{part}' is not in: {errors}")
        check([path.name for path in scratch.iterdir() if path.name != "prompts.txt" and not path.name.startswith("in-")] == [],
              f"something is left behind: {list(scratch.iterdir())}")

    refuses(2, "cannot judge the prompt 'a blue horse near the river'", rewards=["shapes"])
    refuses(2, "ranks nothing", per_model=1)
    refuses(2, "--candidates 1", candidates=1)
    refuses(2, "--prune-at", prune_at="2")
    refuses(2, "--prune-at 4", candidates=4, prune_at="4")
    refuses(2, "--prune-at 1:1.5", candidates=4, prune_at="1:1.5")
    refuses(2, "--shard 3/3", shard="3/3")
    refuses(2, "--aggregate zscore", shard="0/2", aggregate="zscore")
    refuses(2, "--aggregate best", aggregate="best")
    refuses(2, "worst-rank", aggregate="worst-rank", reward_weights="pickscore=2")
    refuses(2, "aesthetics", reward_weights="aesthetics=2")
    refuses(2, ".parquet", output=scratch / "out.csv")
    refuses(2, "there is no folder", output=scratch / "absent" / "out.parquet")
    refuses(3, "model_index.json", models=[model, scratch / "absent"])
    refuses(3, "absent", rewards=[f"pickscore={scratch / 'absent'}"])
    refuses(3, "absent.txt", prompts=scratch / "absent.txt")
    (scratch / "in-broken.jsonl").write_text('{"prompt": "p", "images": [0], "votes": [{"order": [0, 1], "winner": "x"}]}\n')
    refuses(3, "in-broken.jsonl line 1", judgements=scratch / "in-broken.jsonl")
    (scratch / "in-statistics.json").write_text('{"statistics": {"pickscore": {"mean": 0, "std": 1}}}')
    refuses(3, "no statistics of clip/other", aggregate="zscore", score_statistics=scratch / "in-statistics.json")


main({"lists": lists, "resumed": resumed, "pruned": pruned, "judged": judged, "refusals": refusals})
