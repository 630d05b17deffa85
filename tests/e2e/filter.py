"""`prefusion filter`: rules, selection, conversions, and the formats it reads, against what Python makes of the same files.

filter.py BINARY WORLD CASE, with WORLD from make_sd_world.py.
"""

import csv
import hashlib
import html
import io
import itertools
import json
import subprocess

from support import check, check_near, main

import numpy
import pyarrow
import pyarrow.parquet
from PIL import Image


def table(path):
    return pyarrow.parquet.read_table(path).to_pylist()


def write(rows, path):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def run(prefusion, scratch, source, name="out.parquet", **options):
    """The rows that are written, and the report."""
    output = scratch / name
    prefusion.run("filter", input=source, output=output, quiet=True, **options)
    report = json.loads((scratch / f"{name}.report.json").read_text())
    page = html.unescape((scratch / f"{name}.report.html").read_text())
    check(all(rule["keeps"] in page for rule in report["rules"]), "every rule is on the page")
    rows = table(output) if name.endswith(".parquet") else [json.loads(line) for line in output.read_text().splitlines()]
    check(report["kept"] == len(rows), f"the report counts {report['kept']} groups, the file has {len(rows)}")
    return rows, report


def captions(rows):
    return [row["caption"] for row in rows]


def dropped(report):
    return {rule["name"]: rule["dropped"] for rule in report["rules"]}


def with_scores(world, count=24):
    """Pairs without ties with two scores, a quality and users; their margins by the label are known."""
    rows = [row for row in table(world / "pairs.parquet") if row["label_0"] != 0.5][:count]
    random = numpy.random.default_rng(1)
    for i, row in enumerate(rows):
        row.update(pick_0=random.normal(), pick_1=random.normal(), aes_0=random.normal(), aes_1=random.normal())
        row.update(quality=int(i % 7), user_id=100 + i % 3, weight=0.5 + i, seed_0=2**60 + i, seed_1=i)
    return rows


def margin_of(row, name):
    return (row[f"{name}_0"] - row[f"{name}_1"]) * (1 if row["label_0"] == 1 else -1)


# Selection


def selection(prefusion, world, scratch):
    rows = with_scores(world)
    source = write(rows, scratch / "in.parquet")
    kept, report = run(prefusion, scratch, source, keep="25%", margin_score="pick", quality_weight=0,
                       diversity_weight=0)
    best = sorted(rows, key=lambda row: -margin_of(row, "pick"))[:round(len(rows) / 4)]
    expected = [row for row in rows if row in best]
    check(captions(kept) == captions(expected), "the groups of the largest margins, in their order")
    for found, row in zip(kept, expected):
        for key in ("jpg_0", "jpg_1", "label_0", "label_1", "pick_0", "aes_1", "user_id", "weight", "seed_0", "seed_1"):
            check(found[key] == row[key], f"{key} is {found[key]}, was {row[key]}")
        check(found["num_example_per_prompt"] == 1 and found["has_label"], "further columns")
    check_near(report["margin"]["after"]["mean"], numpy.mean([margin_of(row, "pick") for row in expected]), 1e-6, "mean")
    check(sum(report["margin"]["histogram"]["before"]) == len(rows), "histogram before")
    again, _ = run(prefusion, scratch, source, name="again.parquet", keep="25%", margin_score="pick", quality_weight=0,
                   diversity_weight=0)
    check((scratch / "again.parquet").read_bytes() == (scratch / "out.parquet").read_bytes(), "the same file again")

    # All three terms, by hand: z-scores of margin, quality and the distances of hashed n-grams are summed; the order by a
    # column of quality alone is checkable without the embedding.
    kept, report = run(prefusion, scratch, source, keep=4, quality_column="quality", margin_weight=0, diversity_weight=0)
    expected = [row for row in rows if row["quality"] == 6] + [row for row in rows if row["quality"] == 5]
    check(sorted(captions(kept)) == sorted(captions(expected[:4])), "the best by a column, of equals the first")

    _, first = run(prefusion, scratch, source, keep=8, select="random", seed=3)
    chance, _ = run(prefusion, scratch, source, name="two.parquet", keep=8, select="random", seed=3)
    other, _ = run(prefusion, scratch, source, name="three.parquet", keep=8, select="random", seed=4)
    check(captions(chance) == captions(table(scratch / "out.parquet")), "one seed, one subset")
    check(captions(chance) != captions(other), "another seed, another subset")

    for select in ("top", "greedy"):
        kept, report = run(prefusion, scratch, source, keep=6, select=select, margin_score="pick", neighbours=2,
                           diversity_weight=100)
        check(report["diversity"]["after"] > report["diversity"]["before"], f"diversity with {select}")
    kept, report = run(prefusion, scratch, source, keep=6, margin_score="pick", text_encoder=world / "models" / "epsilon")
    check("epsilon" in report["diversity"]["embedding"], "the text encoder of a model")
    run_align(prefusion, world, scratch, scratch / "out.parquet", "diffusion-dpo")


def run_align(prefusion, world, scratch, data, objective):
    prefusion.run("align", model=world / "models" / "epsilon", data=data, objective=objective, steps=1, batch_size=2,
                  eval_every=0, output=scratch / f"run-{objective}-{data.stem}")


# Rules


def rules(prefusion, world, scratch):
    rows = with_scores(world)
    rows[3]["quality"] = None
    source = write(rows, scratch / "in.parquet")

    def expect(condition, **options):
        kept, report = run(prefusion, scratch, source, **options)
        expected = [row["caption"] for row in rows if condition(row)]
        check(captions(kept) == expected, f"{options}: kept {len(kept)}, expected {len(expected)}")
        check(0 < len(kept) < len(rows), f"{options} keeps all or nothing: the case shows nothing")
        return report

    expect(lambda row: margin_of(row, "pick") >= 0.3, min_margin="pick=0.3")
    expect(lambda row: margin_of(row, "aes") <= -0.1, max_margin="aes=-0.1")
    expect(lambda row: margin_of(row, "pick") > 0 and margin_of(row, "aes") > 0, agree="pick,aes")
    expect(lambda row: (row["quality"] or -1) >= 4, require="quality>=4")
    expect(lambda row: max(row["aes_0"], row["aes_1"]) < 1, require="aes<1")
    expect(lambda row: "red" in row["caption"], include=r"\bred\b")
    report = expect(lambda row: "red" not in row["caption"] and margin_of(row, "pick") > 0, exclude="red",
                    min_margin="pick=0")
    first, second = report["rules"]
    check([first["name"], second["name"]] == ["exclude", "min-margin"], "rules in their order")
    check(first["after"] == second["before"] and second["after"] == report["kept"], "counts follow each other")
    check(first["examples"][0]["prompt"] in [row["caption"] for row in rows if "red" in row["caption"]], "an example")

    scale = numpy.sqrt(numpy.mean([margin_of(row, "pick") ** 2 for row in rows]))
    expect(lambda row: margin_of(row, "pick") >= -0.5 * scale, flips="drop", flip_scores="pick", flip_strength=0.5)
    kept, report = run(prefusion, scratch, source, flips="relabel", flip_scores="pick", flip_strength=0.5)
    flipped = 0
    for found, row in zip(kept, rows, strict=True):
        is_flipped = margin_of(row, "pick") < -0.5 * scale
        flipped += is_flipped
        check(found["label_0"] == (1 - row["label_0"] if is_flipped else row["label_0"]), "labels that are relabelled")
        check(found["jpg_0"] == row["jpg_0"], "pictures stay where they are")
    check(report["relabelled"] == flipped > 0, "relabelled pairs are counted")


def pictures(prefusion, world, scratch):
    rows = with_scores(world, 8)
    rows[1]["jpg_1"] = rows[1]["jpg_0"]
    small = io.BytesIO()
    Image.new("RGB", (20, 90), "red").save(small, format="PNG")
    rows[2]["jpg_0"] = small.getvalue()
    random = numpy.random.default_rng(6)
    patches = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=numpy.uint8)).resize((80, 80), Image.NEAREST)

    def saved(**options):
        data = io.BytesIO()
        patches.save(data, **options)
        return data.getvalue()

    rows[4]["jpg_0"] = saved(format="PNG")
    rows.append({**rows[4], "jpg_0": rows[4]["jpg_1"], "jpg_1": saved(format="JPEG", quality=90, subsampling=0)})  # and exchanged
    source = write(rows, scratch / "in.parquet")
    _, report = run(prefusion, scratch, source, min_size=48, drop_same_pictures=True, duplicates="group",
                    hash_distance=12)
    check(dropped(report) == {"readable": 0, "min-size": 1, "same-picture": 1, "duplicates": 1}, f"{dropped(report)}")
    check("20x90" in report["rules"][1]["examples"][0]["why"], "the size is named")

    cut, rubbish = rows[5]["jpg_0"][:-100], b"rubbish"
    for broken, options in ((cut, dict(duplicates="picture")), (rubbish, dict(min_size=8)), (rubbish, dict())):
        rows[5]["jpg_0"] = broken
        source = write(rows, scratch / "in.parquet")
        _, report = run(prefusion, scratch, source, max_bad=1, **options)
        check(dropped(report)["readable"] == 1, f"a broken picture, {options}")
        check("in.parquet row 5" in json.dumps(report["rules"]), "the broken picture is named")
        expect_error(prefusion, scratch, 3, "in.parquet row 5", input=source, max_bad=0, **options)


def prompt_cap(prefusion, world, scratch):
    rows = with_scores(world)
    for i, row in enumerate(rows):
        row["caption"] = f"prompt {i % 3}"
    kept, report = run(prefusion, scratch, write(rows, scratch / "in.parquet"), max_per_prompt=2, margin_score="pick",
                       quality_weight=0, diversity_weight=0)
    for prompt in ("prompt 0", "prompt 1", "prompt 2"):
        margins = sorted((margin_of(row, "pick") for row in rows if row["caption"] == prompt), reverse=True)[:2]
        found = sorted((margin_of(row, "pick") for row in kept if row["caption"] == prompt), reverse=True)
        check(found == margins, f"the best two of {prompt}")
    check(all(row["num_example_per_prompt"] == 2 for row in kept), "groups of a prompt are counted")
    check(report["prompts"]["largest"][0] == {"prompt": "prompt 0", "before": 8, "after": 2}, "prompts in the report")


def score_file(prefusion, world, scratch):
    rows = [row for row in table(world / "pairs.parquet") if row["label_0"] != 0.5]
    source = write(rows, scratch / "in.parquet")
    random = numpy.random.default_rng(2)
    scored = [{"image": f"in.parquet row {i} item {item}", "prompt": row["caption"], "pick": random.normal()}
              for i, row in enumerate(rows) for item in (0, 1)]
    del scored[5]["pick"]
    scored[5]["error"] = "cannot be decoded"
    scored[8]["prompt"] = "another prompt"
    (scratch / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in scored))
    with open(scratch / "scores.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "prompt", "pick", "error"])
        writer.writeheader()
        writer.writerows(scored)
    for i, row in enumerate(rows):
        row.update(pick_0=scored[2 * i].get("pick"), pick_1=scored[2 * i + 1].get("pick"))
    known = [row for i, row in enumerate(rows) if i not in (2, 4)]
    for name in ("scores.jsonl", "scores.csv"):
        kept, report = run(prefusion, scratch, source, scores=scratch / name, min_margin="pick=0.2")
        check(captions(kept) == [row["caption"] for row in known if margin_of(row, "pick") >= 0.2], f"margins by {name}")
        found = report["scores"]
        check((found["rows"], found["failed"], found["matched"]) == (len(scored), 1, len(scored) - 2), f"{found}")
        check(kept[0]["pick_0"] == next(row["pick_0"] for row in rows if row["caption"] == kept[0]["caption"]), "written")

    single = [json.loads(line) for line in (world / "unpaired.jsonl").read_text().splitlines()]
    (scratch / "scores.jsonl").write_text("".join(
        json.dumps({"image": str(world / row["image"]), "aes": float(i)}) + "\n" for i, row in enumerate(single)))
    kept, _ = run(prefusion, scratch, world / "unpaired.jsonl", name="out.jsonl", scores=scratch / "scores.jsonl",
                  require="aes>=20")
    check([row["scores"]["aes"] for row in kept] == [[float(i)] for i in range(20, len(single))], "joined by path")
    for text, mention in (('{"image": "x.png", "aes": 1}\n', "no row"), ('{"aes": 1}\n', "'image'"), ("", "scores"),
                          ('{"image": "in.parquet row 0 item 0", "error": "broken"}\n', "scores"), ("{", "scores.jsonl")):
        (scratch / "scores.jsonl").write_text(text)
        expect_error(prefusion, scratch, 3, mention.replace("no row", "none of its"), input=source,
                     scores=scratch / "scores.jsonl")


# Conversions


def digest(data):
    return hashlib.sha256(data).hexdigest()


def conversions(prefusion, world, scratch):
    lists = table(world / "lists.parquet")
    pairs, report = run(prefusion, scratch, world / "lists.parquet", name="pairs.parquet", to="pairs", ties="keep")
    expected = sum(len(list(itertools.combinations(row["images"], 2))) for row in lists)
    check(len(pairs) == expected, "every two pictures of every list")
    for pair in pairs:
        row = next(row for row in lists if row["prompt"] == pair["caption"])
        by_bytes = {item["image"]: item for item in row["images"]}
        first, second = by_bytes[pair["jpg_0"]], by_bytes[pair["jpg_1"]]
        label = 0.5 if first["rank"] == second["rank"] else float(first["rank"] < second["rank"])
        check(pair["label_0"] == label, "the label of a pair of a list")
        check(pair["taste_0"] == dict(first["scores"])["taste"] and pair["model_1"] == second["model"], "what it carries")
        check(pair["seed_0"] == first["seed"], "seeds")

    again, _ = run(prefusion, scratch, scratch / "pairs.parquet", name="lists.parquet", to="lists", ties="keep")
    check(len(again) == len(lists), "as many lists as before")
    for found, row in zip(again, lists):
        check(found["prompt"] == row["prompt"], "lists in their order")
        ranks = {digest(item["image"]): item["rank"] for item in row["images"]}
        order = sorted(ranks.values())
        for item in found["images"]:
            places = [i for i, rank in enumerate(order) if rank == ranks[digest(item["image"])]]
            check(item["rank"] == numpy.mean(places), "ranks come back, ties at the mean of their places")
        source = {digest(item["image"]): item for item in row["images"]}
        for item in found["images"]:
            was = source[digest(item["image"])]
            check((item["model"], item["seed"], item["scores"]) == (was["model"], was["seed"], was["scores"]), "carried")
    run_align(prefusion, world, scratch, scratch / "lists.parquet", "rankdpo")
    run_align(prefusion, world, scratch, scratch / "pairs.parquet", "mapo")

    best, _ = run(prefusion, scratch, world / "lists.parquet", name="best.parquet", to="pairs", list_pairs="best-worst")
    adjacent, report = run(prefusion, scratch, world / "lists.parquet", name="adjacent.parquet", to="pairs",
                           list_pairs="adjacent")
    check(len(best) == len(lists), "one pair a list")
    check(len(adjacent) + report["conversion"]["ties_dropped"] == 3 * len(lists), "three neighbours a list")

    rows = with_scores(world)
    singles, report = run(prefusion, scratch, write(rows, scratch / "in.parquet"), name="singles.jsonl", to="unpaired")
    check(len(singles) == 2 * len(rows), "both pictures of every pair")
    for i, single in enumerate(singles):
        row, side = rows[i // 2], i % 2
        check((scratch / single["image"]).read_bytes() == row[f"jpg_{side}"], "pictures are written as they are")
        check(single["label"] == row[f"label_{side}"] and single["prompt"] == row["caption"], "chosen 1, rejected 0")
        check(single["user"] == str(row["user_id"]) and single["weight"] == row["weight"], "user and weight")
        check(single["scores"]["pick"] == [row[f"pick_{side}"]] and single["seed"] == row[f"seed_{side}"], "scores, seed")
    run_align(prefusion, world, scratch, scratch / "singles.jsonl", "kto")
    above, _ = run(prefusion, scratch, scratch / "in.parquet", name="above.jsonl", to="unpaired",
                   unpaired_threshold="aes=0.5")
    check([single["label"] for single in above] == [float(single["scores"]["aes"][0] >= 0.5) for single in above],
          "by a threshold")
    fewer, _ = run(prefusion, scratch, scratch / "singles.jsonl", name="fewer.jsonl", keep=5, margin_weight=0)
    check(len(fewer) == 5 and "seed" in fewer[0] and "scores" in fewer[0], "unpaired data is filtered as well")

    rich, _ = run(prefusion, scratch, world / "rich_pairs.parquet", name="rich.parquet", keep="50%")
    was = {row["caption"]: row for row in table(world / "rich_pairs.parquet")}
    for row in rich:
        for key in ("caption_0", "caption_1", "mask_0", "mask_1", "label_0", "score_0", "score_1", "weight", "user_id"):
            check(row[key] == was[row["caption"]][key], f"{key} survives")


# Formats


def save_pictures(folder, count):
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for i in range(count):
        name = f"{i}.webp"
        Image.new("RGB", (40 + i, 40), (20 * i, 255 - 20 * i, 90)).save(folder / name)
        names.append(name)
    return names


def image_reward(prefusion, world, scratch):
    names = save_pictures(scratch / "images" / "train", 7)
    ranks = [2, 1, 3, 1, 2, 2, 1]
    rows = [{"image_path": f"images/train/{name}", "prompt_id": f"00-{int(i >= 3)}", "prompt": f"prompt {int(i >= 3)}",
             "classification": "People", "image_amount_in_total": 9, "rank": ranks[i], "overall_rating": 7 - ranks[i],
             "image_text_alignment_rating": i, "fidelity_rating": 6 - i} for i, name in enumerate(names)]
    rows = [rows[0], rows[3], *rows[1:3], *rows[4:]]  # the rows of a prompt need not be neighbours
    write(rows, scratch / "metadata-train.parquet")
    (scratch / "metadata.json").write_text(json.dumps(rows))
    (scratch / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for source in ("metadata-train.parquet", "metadata.json", "metadata.jsonl"):
        lists, report = run(prefusion, scratch, scratch / source)
        check([row["prompt"] for row in lists] == ["prompt 0", "prompt 1"], f"{source}: a list a prompt_id")
        check([item["rank"] for item in lists[0]["images"]] == [1, 0, 2], f"{source}: ranks")
        check([item["rank"] for item in lists[1]["images"]] == [0.5, 2.5, 2.5, 0.5], f"{source}: ties")
        scores = dict(lists[0]["images"][2]["scores"])
        check(scores == {"overall_rating": 4, "image_text_alignment_rating": 2, "fidelity_rating": 4}, f"{scores}")
        check(lists[0]["images"][1]["image"] == (scratch / "images" / "train" / "1.webp").read_bytes(), "pictures")
    run(prefusion, scratch, scratch / "metadata.json", to="pairs", score_name="fidelity_rating")
    check([row["label_0"] for row in table(scratch / "out.parquet")][:3] == [1, 1, 1], "ordered by a rating")

    embedded = [{**row, "image": {"bytes": (scratch / row["image_path"]).read_bytes(), "path": None}} for row in rows]
    for row in embedded:
        del row["image_path"]
    lists, _ = run(prefusion, scratch, write(embedded, scratch / "embedded.parquet"))
    check(lists[0]["images"][2]["image"] == (scratch / "images" / "train" / "2.webp").read_bytes(), "pictures inside")

    test = [{"id": "1", "prompt": "a test", "generations": [f"images/train/{name}" for name in names[:4]],
             "ranking": [2, 1, 4, 2]}]
    (scratch / "test.json").write_text(json.dumps(test))
    lists, _ = run(prefusion, scratch, scratch / "test.json")
    check([item["rank"] for item in lists[0]["images"]] == [1.5, 0, 3, 1.5], "the repository's test.json")

    rows[2]["image_path"] = None
    broken = "".join(json.dumps(row) + "\n" for row in rows) + '{"prompt_id": "x", "image_path": 3}\n{"prompt_id"\n'
    (scratch / "broken.jsonl").write_text(broken)
    expect_error(prefusion, scratch, 3, "broken.jsonl", input=scratch / "broken.jsonl")
    lists, report = run(prefusion, scratch, scratch / "broken.jsonl", max_bad=3)
    check(report["read"]["malformed"] == 3 and len(lists[0]["images"]) == 2, f"broken rows: {report['read']}")
    data = (scratch / "metadata-train.parquet").read_bytes()
    (scratch / "cut.parquet").write_bytes(data[: len(data) // 2])
    expect_error(prefusion, scratch, 3, "cut.parquet", input=scratch / "cut.parquet")
    (scratch / "images" / "train" / "0.webp").unlink()
    expect_error(prefusion, scratch, 3, "0.webp", input=scratch / "metadata-train.parquet")


def hpd_and_ratings(prefusion, world, scratch):
    names = save_pictures(scratch / "test", 4)
    for key in ("human_preference", "pap_pref"):
        pairs = [{"prompt": "p", "file_path": names[:2], key: [0, 1], "user_hash": "abc"},
                 {"prompt": "q", "image_path": names[2:], key: [1, 0]}]
        (scratch / "test.json").write_text(json.dumps(pairs))
        rows, _ = run(prefusion, scratch, scratch / "test.json")
        check([row["label_0"] for row in rows] == [0, 1], f"{key}")
        check([row["user_id"] for row in rows] == ["abc", None], "user hashes are kept")
    ranked = [{"prompt": "p", "image_path": names, "rank": [3, 1, 2, 4],
               "raw_annotations": [{"rank": [2, 1, 3, 4], "user_hash": "u"}, {"rank": [4, 1, 2, 3], "user_hash": "v"}]}]
    (scratch / "test.json").write_text(json.dumps(ranked))
    lists, _ = run(prefusion, scratch, scratch / "test.json")
    check([item["rank"] for item in lists[0]["images"]] == [2, 0, 1, 3], "averaged ranks")

    rated = [{"prompt": "p", "images": [f"test/{name}" for name in names], "models": ["a", "b", "c", "d"],
              "ratings": {"aesthetics": [5, 3, "4", 1], "fidelity": [1, 3, 5, {"Rating": "2"}]}},
             {"prompt": "q", "images": [f"test/{name}" for name in names[:2]],
              "ratings": [{"aesthetics": 2, "fidelity": "N/A"}, {"aesthetics": 4, "fidelity": 3}]}]
    (scratch / "rated.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rated))
    lists, _ = run(prefusion, scratch, scratch / "rated.jsonl")
    check([item["rank"] for item in lists[0]["images"]] == [1.5, 1.5, 0, 3], "ordered by the mean of the aspects")
    check(dict(lists[0]["images"][3]["scores"]) == {"aesthetics": 1, "fidelity": 2}, "aspects are scores")
    check([item["model"] for item in lists[0]["images"]] == ["a", "b", "c", "d"], "generators")
    check(dict(lists[1]["images"][0]["scores"]) == {"aesthetics": 2}, "an aspect without a rating")
    by_name, report = run(prefusion, scratch, scratch / "rated.jsonl", score_name="fidelity")
    check([item["rank"] for item in by_name[0]["images"]] == [3, 1, 0, 2], "ordered by one aspect")
    check(report["read"]["without_score"] == 1, "rows without it are counted")

    # Separate captions for both pictures of a pair.
    rows = [{**row, "caption_0": f"{row['caption']}, sharp", "caption_1": f"{row['caption']}, dull"}
            for row in with_scores(world, 6)]
    kept, _ = run(prefusion, scratch, write(rows, scratch / "in.parquet"), keep=3, margin_score="pick")
    check(all(row["caption_1"] == f"{row['caption']}, dull" for row in kept), "captions of both pictures")
    run_align(prefusion, world, scratch, scratch / "out.parquet", "dcpo")
    singles, _ = run(prefusion, scratch, scratch / "out.parquet", name="singles.jsonl", to="unpaired")
    check(singles[0]["prompt"].endswith(", sharp") and singles[1]["prompt"].endswith(", dull"), "each its own prompt")


# Refusals


def expect_error(prefusion, scratch, exit_code, mention, **options):
    options = {"output": scratch / "refused.parquet", **options}
    text = prefusion.run("filter", exit_code=exit_code, **options)
    check(mention in text.splitlines()[-1], f"the error does not mention {mention!r}: {text}")
    check(not (scratch / "refused.parquet").exists(), "a refused run left a file")


def refusals(prefusion, world, scratch):
    source = write(with_scores(world), scratch / "in.parquet")
    for options, mention in (
        (dict(output=None), "--output"), (dict(keep="lots"), "lots"), (dict(min_margin="pick=x"), "pick=x"),
        (dict(include="(a"), "(a"), (dict(require="quality=3"), "quality=3"), (dict(to="triples"), "triples"),
        (dict(flips="drop"), "--flip-scores"), (dict(flip_scores="pick"), "--flips"), (dict(select="greedy",
         diversity_weight=0), "greedy"), (dict(select="random"), "--keep"), (dict(to="unpaired"), ".jsonl"),
        (dict(output=scratch / "refused.jsonl"), ".parquet"), (dict(unpaired_threshold="1"), "--to unpaired"),
        (dict(output=source), "is the input"), (dict(keep="lots", include="(a"), "(a"),
    ):
        expect_error(prefusion, scratch, 2, mention, input=source, **options)
    for options, mention in (
        (dict(input=scratch / "absent"), "absent"), (dict(min_margin="clip=1"), "found: aes, pick"),
        (dict(require="nsfw<1"), "nsfw"), (dict(agree="pick,clip"), "clip"), (dict(min_margin="pick=99"), "min-margin"),
        (dict(text_encoder=scratch, keep=3), "no text encoder"), (dict(score_name="clip"), "clip"),
    ):
        expect_error(prefusion, scratch, 3, mention, **{"input": source, **options})
    rows = [{**row, "jpg_1": b"rubbish"} for row in with_scores(world)]
    expect_error(prefusion, scratch, 3, "row 0", input=write(rows, scratch / "rubbish.parquet"), to="lists")
    done = subprocess.run(prefusion.command("filter", dict(input=source, min_margin="pick=0", dry_run=True, quiet=True)),
                          capture_output=True, text=True)
    check(done.returncode == 0 and "min-margin: 24 -> " in done.stdout and "kept " in done.stdout, done.stdout)
    check({path.name for path in scratch.iterdir()} == {"in.parquet", "rubbish.parquet"}, "a dry run writes nothing")


if __name__ == "__main__":
    main({case.__name__: case for case in (selection, rules, pictures, prompt_cap, score_file, conversions, image_reward,
                                           hpd_and_ratings, refusals)})
