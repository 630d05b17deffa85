"""prefusion score: inputs, outputs, resuming, shards, bad pictures.

score.py BINARY WORLD CASE
"""

import csv
import io
import json
import pathlib
import random
import re
import signal
import subprocess
import sys
import tarfile
import time

import numpy
import pyarrow
import pyarrow.parquet
from score_support import PROMPTS, png
from support import check, check_near, main


def make_folder(folder, count, texts=True):
    """Pictures with prompts beside them; returns [(name, bytes, prompt)]."""
    folder.mkdir(parents=True)
    items = []
    for i in range(count):
        name, prompt = f"{i:05}.png", PROMPTS[i * 7 % len(PROMPTS)]
        items.append((name, png(i // 2), prompt))  # every picture occurs twice
        (folder / name).write_bytes(items[-1][1])
        if texts:
            (folder / name).with_suffix(".txt").write_text(prompt + "\n")
    return items


def read_rows(path):
    path = pathlib.Path(path)
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if path.suffix == ".csv":
        with open(path, newline="") as file:
            return list(csv.DictReader(file))
    return pyarrow.parquet.read_table(path).to_pylist()


def column(rows, name):
    return [None if row.get(name) in (None, "") else float(numpy.float32(row[name])) for row in rows]


def reference_models(scratch):
    script = pathlib.Path(__file__).parent.parent / "reference" / "make_clip_rewards.py"
    subprocess.run([sys.executable, script, scratch / "clip"], check=True, capture_output=True)
    return scratch / "clip"


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def add_member(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def write_inputs(scratch, items):
    """The same pictures in the same order as every kind of input; returns {name: arguments}."""
    folder = scratch / "pictures"
    listed = scratch / "listed"
    listed.mkdir()
    names, pictures, prompts = zip(*items)
    for name, data in zip(names, pictures):
        (listed / name).write_bytes(data)
    write_jsonl(listed / "metadata.jsonl", [{"file_name": n, "text": p} for n, p in zip(names, prompts)])
    write_jsonl(scratch / "rows.jsonl", [{"image": f"pictures/{n}", "prompt": p} for n, p in zip(names, prompts)])
    write_jsonl(scratch / "groups.jsonl", [{"images": [f"pictures/{names[i]}", str(folder / names[i + 1])], "prompts": [prompts[i], prompts[i + 1]]}
                                           for i in range(0, len(names), 2)])
    with open(scratch / "rows.csv", "w", newline="") as file:
        csv.writer(file).writerows([("prompt", "other", "file_name"), *((p, 'a "b",\nc', f"pictures/{n}") for n, p in zip(names, prompts))])
    pyarrow.parquet.write_table(pyarrow.table({"image": pyarrow.array([{"bytes": d, "path": n} for n, d in zip(names, pictures)]), "text": prompts}),
                                scratch / "column.parquet", row_group_size=3)
    pyarrow.parquet.write_table(pyarrow.table({"jpg_0": pictures[::2], "jpg_1": pictures[1::2], "caption_0": prompts[::2], "caption_1": prompts[1::2],
                                               "label_0": [1.0] * (len(items) // 2)}), scratch / "pairs.parquet", row_group_size=2)
    for shard, part in enumerate((items[:3], items[3:])):
        with tarfile.open(scratch / f"shard-{shard}.tar", "w", format=tarfile.GNU_FORMAT if shard else tarfile.PAX_FORMAT) as tar:
            for i, (name, data, prompt) in enumerate(part):
                stem = "a_long_folder_name/" * 8 + name.split(".")[0]
                add_member(tar, f"{stem}.PNG", data)
                add_member(tar, f"{stem}.json", json.dumps({"caption": prompt} if i % 2 else {"caption": "x"}).encode())
                if i % 2 == 0:
                    add_member(tar, f"{stem}.txt", prompt.encode())
    return {"folder": [folder], "listed": [listed], "jsonl": [scratch / "rows.jsonl"], "groups": [scratch / "groups.jsonl"], "csv": [scratch / "rows.csv"],
            "column": [scratch / "column.parquet"], "pairs": [scratch / "pairs.parquet"], "tar": [scratch / "shard-0.tar", scratch / "shard-1.tar"]}


def every_input(prefusion, world, scratch):
    """Every kind of input and output gives the scores that transformers gives."""
    from safetensors.numpy import load_file

    clip = reference_models(scratch)
    prompts = json.loads((clip / "prompts.json").read_text())
    (scratch / "pictures").mkdir()
    items = []
    for i, prompt in enumerate(prompts):
        items.append((f"{i}.png", (clip / "pictures" / f"{i}.png").read_bytes(), prompt))
        (scratch / "pictures" / f"{i}.png").write_bytes(items[-1][1])
        (scratch / "pictures" / f"{i}.{'caption' if i % 2 else 'txt'}").write_text(prompt)
    rewards = {"pickscore": "plain", "clip": "odd", "pickscore/b": "shallow"}
    arguments = [argument for name, model in rewards.items() for argument in ("--reward", f"{name}={clip / 'models' / model}")]
    expected = {}
    for name, model in rewards.items():
        values = load_file(clip / "models" / f"{model}.safetensors")
        expected[name] = 100 * numpy.maximum(values["cosines"], 0) if name == "clip" else values["pickscore"]
    for kind, paths in write_inputs(scratch, items).items():
        for extension in ("jsonl", "csv", "parquet") if kind == "listed" else ("jsonl",):
            output = scratch / f"scored-{kind}.{extension}"
            command = [prefusion.binary, "score", *arguments, "--output", output, "--batch-size", "4", "--details"]
            for path in paths:
                command += ["--input", path]
            prefusion.run_command(command)
            rows = read_rows(output)
            check(len(rows) == len(items), f"{kind}: {len(rows)} rows")
            texts = [row["prompt"] or "" for row in rows]
            wanted = [p.rstrip() if kind in ("folder", "tar") else p for p in prompts]
            check(texts == wanted, f"{kind}: prompts {texts}")
            for name in rewards:
                check_near(column(rows, name), expected[name].astype("float64"), 2e-5, f"{kind}.{extension} {name}")
            check(all(not row.get("error") for row in rows), f"{kind}: {rows}")
            truncated = [str(row["pickscore.truncated"]).lower() for row in rows]
            check(truncated == ["false"] * 5 + ["true"], f"{kind}: truncated {truncated}")
    images = [row["image"] for row in read_rows(scratch / "scored-pairs.jsonl")]
    check(images[3] == f"{scratch}/pairs.parquet#1:jpg_1", images[3])
    check(read_rows(scratch / "scored-tar.jsonl")[4]["image"].startswith(f"{scratch}/shard-1.tar#a_long"), "the reference of a tar sample")
    bytes_of = {kind: re.sub(rb'"image": "[^"]*"|"(row|item)": \d+', b"", (scratch / f"scored-{kind}.jsonl").read_bytes()) for kind in ("listed", "jsonl", "csv", "column", "pairs")}
    check(len(set(bytes_of.values())) == 1, "two kinds of input give other bits")
    single = subprocess.run([prefusion.binary, "score", *arguments, "--image", scratch / "pictures/0.png", "--prompt", prompts[0]], capture_output=True, check=True)
    row = json.loads(single.stdout)
    check(list(row) == ["image", "prompt", *rewards], f"fields {list(row)}")
    check_near([row["clip"]], [float(expected["clip"][0])], 2e-5, "a single picture on standard output")


def shapes_command(prefusion, source, output, *more):
    return [prefusion.binary, "score", "--threads", "1", "--reward", "shapes", "--input", source, "--output", output, "--batch-size", "8", *more]


def kill_when_grown(command, path, size, how=signal.SIGKILL):
    """Starts the command, kills it once the file has that size; returns its exit code and standard error."""
    run = subprocess.Popen(command, stderr=subprocess.PIPE)
    deadline = time.time() + 60
    while run.poll() is None and time.time() < deadline and not (path.exists() and path.stat().st_size >= size):
        time.sleep(0.001)
    run.send_signal(how)
    error = run.communicate(timeout=60)[1]
    return run.returncode, error.decode()


def killed(prefusion, world, scratch):
    """Killed at several moments, with torn rows behind, a run ends in the very file of an undisturbed one."""
    make_folder(scratch / "pictures", 300)
    (scratch / "pictures" / "00017.png").write_bytes(b"broken")
    random.seed(1)
    for extension in ("jsonl", "csv", "parquet"):
        whole, output = scratch / f"whole.{extension}", scratch / f"scores.{extension}"
        prefusion.run_command(shapes_command(prefusion, scratch / "pictures", whole))
        journal = scratch / f"scores.{extension}.journal.jsonl" if extension == "parquet" else output
        final = (scratch / "whole.jsonl" if extension == "parquet" else whole).stat().st_size
        num_killed = 0
        for share in (0.05, 0.3, 0.7):
            code, _ = kill_when_grown(shapes_command(prefusion, scratch / "pictures", output, "--resume"), journal, share * final)
            num_killed += code == -signal.SIGKILL
            if journal.exists() and code:
                data = journal.read_bytes()
                journal.write_bytes(data[: max(0, len(data) - random.randrange(1, 400))])  # what a torn write leaves
        check(num_killed > 0, "no run was killed before its end")
        prefusion.run_command(shapes_command(prefusion, scratch / "pictures", output, "--resume"))
        check(output.read_bytes() == whole.read_bytes(), f"{extension}: the resumed file differs")
        check(extension != "parquet" or not journal.exists(), "the journal is left")
        again = prefusion.run_command(shapes_command(prefusion, scratch / "pictures", output, "--resume"))
        check("complete" in again, again)
    stopped, error = kill_when_grown(shapes_command(prefusion, scratch / "pictures", scratch / "stopped.jsonl"), scratch / "stopped.jsonl", 1000, signal.SIGTERM)
    check(stopped == 143 and "saved" in error, f"exit code {stopped} after SIGTERM: {error}")
    prefusion.run_command(shapes_command(prefusion, scratch / "pictures", scratch / "stopped.jsonl", "--resume"))
    check((scratch / "stopped.jsonl").read_bytes() == (scratch / "whole.jsonl").read_bytes(), "the file differs after SIGTERM")


def shards(prefusion, world, scratch):
    """Shards put together are the undivided run; what is missing is named."""
    make_folder(scratch / "pictures", 60)
    whole = scratch / "whole.jsonl"
    prefusion.run_command(shapes_command(prefusion, scratch / "pictures", whole))
    parts = [scratch / f"part{i}.{extension}" for i, extension in enumerate(("jsonl", "csv", "parquet"))]
    for i, part in enumerate(parts):
        prefusion.run_command(shapes_command(prefusion, scratch / "pictures", part, "--shard", f"{i}/3"))
    merge = [prefusion.binary, "score", "--merge"]
    for extension in ("jsonl", "csv", "parquet"):
        merged = scratch / f"merged.{extension}"
        prefusion.run_command([*merge, merged, *parts[::-1]])
        check([(r["image"], r["prompt"]) for r in read_rows(merged)] == [(r["image"], r["prompt"]) for r in read_rows(whole)], "order")
        check(column(read_rows(merged), "shapes") == column(read_rows(whole), "shapes"), "scores")
    check((scratch / "merged.jsonl").read_bytes() == whole.read_bytes(), "the merged file differs")

    def refused(mentions, exit_code, *arguments):
        text = prefusion.run_command([*merge, *arguments], exit_code=exit_code).splitlines()[-1]
        check(mentions in text, f"{mentions!r} is not in: {text}")

    refused("exists", 2, whole, *parts)
    refused("shard 1/3 is missing", 3, scratch / "m.jsonl", parts[0], parts[2])
    refused("both shard 0/3", 3, scratch / "m.jsonl", parts[0], parts[0], parts[1], parts[2])
    prefusion.run_command(shapes_command(prefusion, scratch / "pictures", scratch / "other.csv", "--shard", "1/2"))
    refused("2 shards", 3, scratch / "m.jsonl", parts[0], scratch / "other.csv", parts[2])
    parts[0].write_text("".join(parts[0].read_text().splitlines(keepends=True)[:-1]))
    refused("expected", 3, scratch / "m.jsonl", *parts)
    check(not (scratch / "m.jsonl").exists(), "a refused merge left a file")


def bad_pictures(prefusion, world, scratch):
    """Pictures that cannot be scored become rows with an error, and stop the run where they are too many."""
    folder = scratch / "pictures"
    make_folder(folder, 20)
    (folder / "00003.png").write_bytes(b"")
    (folder / "00007.png").write_bytes((folder / "00007.png").read_bytes()[:200])
    (folder / "00009.txt").write_text("an astronaut")
    (folder / "00011.txt").unlink()
    (folder / "00013.txt").write_bytes(b"a red \xff circle")
    for extension in ("jsonl", "csv", "parquet"):
        output = scratch / f"scores.{extension}"
        text = prefusion.run_command(shapes_command(prefusion, folder, output))
        rows = read_rows(output)
        bad = [i for i, row in enumerate(rows) if row.get("error")]
        check(bad == [3, 7, 9, 11, 13], f"bad rows {bad}")
        check(all((row.get("error") or None) is None or column([row], "shapes") == [None] for row in rows), "a score beside an error")
        check(all(column([rows[i]], "shapes")[0] is not None for i in range(20) if i not in bad), "a score is missing")
        check("00007.png" in text and "5 of 20" in text, text)
    check("astronaut" in rows[9]["error"] and "no prompt" in rows[11]["error"], f"{rows[9]} {rows[11]}")
    text = prefusion.run_command(shapes_command(prefusion, folder, scratch / "few.jsonl", "--max-bad", "2"), exit_code=3)
    check("00003.png" in text.splitlines()[-1] and "--max-bad" in text.splitlines()[-1], text)
    prefusion.run_command(shapes_command(prefusion, folder, scratch / "few.jsonl", "--resume"))
    check((scratch / "few.jsonl").read_bytes() == (scratch / "scores.jsonl").read_bytes(), "the file differs after --max-bad")

    write_jsonl(scratch / "rows.jsonl", [{"image": "pictures/00000.png", "prompt": PROMPTS[0]}, {"prompt": "x"}, {"image": "absent.png", "prompt": PROMPTS[0]}])
    with open(scratch / "rows.jsonl", "a") as file:
        file.write('{"image": \n[1]\n{"image": "pictures/00000.png", "prompt": 3}\n' + "[" * 5000 + "\n")
    prefusion.run_command(shapes_command(prefusion, scratch / "rows.jsonl", scratch / "manifest.jsonl", "--max-bad", "100%"))
    rows = read_rows(scratch / "manifest.jsonl")
    check([bool(row.get("error")) for row in rows] == [False] + [True] * 6, f"{rows}")

    with tarfile.open(scratch / "cut.tar", "w") as tar:
        for i in range(4):
            add_member(tar, f"{i}.txt", PROMPTS[0].encode())
            add_member(tar, f"{i}.png", png(i, (400, 300)))
    data = (scratch / "cut.tar").read_bytes()
    for name, damaged, num_good in (("cut", data[: len(data) // 2], 1), ("flipped", data[:512] + b"x" * 512 + data[1024:1100] + b"x" * 900 + data[2000:], 0)):
        (scratch / f"{name}.tar").write_bytes(damaged)
        prefusion.run_command(shapes_command(prefusion, scratch / f"{name}.tar", scratch / f"{name}.jsonl", "--max-bad", "100%"))
        rows = read_rows(scratch / f"{name}.jsonl")
        check(rows and rows[-1].get("error") and sum(not row.get("error") for row in rows) >= num_good, f"{name}: {rows}")
    table = pyarrow.table({"jpg_0": [png(0), None, b"x"], "jpg_1": [png(1)] * 3, "caption": PROMPTS[:3]})
    pyarrow.parquet.write_table(table, scratch / "pairs.parquet")
    prefusion.run_command(shapes_command(prefusion, scratch / "pairs.parquet", scratch / "pairs.jsonl"))
    check([bool(row.get("error")) for row in read_rows(scratch / "pairs.jsonl")] == [False, False, True, False, True, False], "errors of a table")


def refusals(prefusion, world, scratch):
    """Settings that do not go together, inputs that are not there, outputs of other runs."""
    folder, output = scratch / "pictures", scratch / "scores.jsonl"
    make_folder(folder, 4)

    def refused(exit_code, mentions, *arguments):
        text = prefusion.run_command([prefusion.binary, "score", *map(str, arguments)], exit_code=exit_code).splitlines()[-1]
        check(mentions in text, f"{mentions!r} is not in: {text}")

    shapes = ("--reward", "shapes")
    refused(2, "--reward", "--input", folder)
    refused(2, "nonsense", "--reward", "nonsense=x", "--input", folder)
    refused(2, "--input", *shapes)
    refused(2, "--image", *shapes, "--input", folder, "--image", folder / "00000.png")
    refused(2, "--prompt", *shapes, "--input", folder, "--prompt", "x")
    refused(2, ".txt", *shapes, "--input", folder, "--output", scratch / "scores.txt")
    refused(2, "--shard", *shapes, "--input", folder, "--shard", "3/3")
    refused(2, "--shard", *shapes, "--input", folder, "--shard", "1")
    refused(2, "lots", *shapes, "--input", folder, "--max-bad", "lots")
    refused(2, "--resume", *shapes, "--input", folder, "--resume")
    refused(2, "--serve", *shapes, "--serve", "0", "--input", folder)
    refused(3, "absent", *shapes, "--input", scratch / "absent")
    refused(3, "absent", "--reward", f"clip={scratch / 'absent'}", "--input", folder)
    refused(3, "absent", *shapes, "--image", scratch / "absent.png", "--prompt", PROMPTS[0])
    (scratch / "empty").mkdir()
    refused(3, "empty", *shapes, "--input", scratch / "empty")
    refused(3, "unknown kind", *shapes, "--input", folder / "00000.txt")
    (scratch / "bad.csv").write_text("picture,prompt\n")
    refused(3, "no column 'image'", *shapes, "--input", scratch / "bad.csv")
    for name, content in (("bad.parquet", b"PAR1"), ("empty.parquet", b"")):
        (scratch / name).write_bytes(content)
        refused(3, name, *shapes, "--input", scratch / name)
    pyarrow.parquet.write_table(pyarrow.table({"caption": ["x"]}), scratch / "texts.parquet")
    refused(3, "caption", *shapes, "--input", scratch / "texts.parquet")

    good = (*shapes, "--input", folder, "--output", output)
    prefusion.run_command([prefusion.binary, "score", *map(str, good)])
    before = output.read_bytes()
    refused(2, "--resume", *good)
    refused(2, "--details", *good, "--resume", "--details")
    refused(2, "--batch-size", *good, "--resume", "--batch-size", 3)
    refused(2, "shapes/b", "--reward", "shapes/b", *good[2:], "--resume")
    make_folder(scratch / "others", 4)
    refused(2, "others", *shapes, "--input", scratch / "others", "--output", output, "--resume")
    check(output.read_bytes() == before, "a refused run changed the file")
    state = json.loads((scratch / "scores.jsonl.state.json").read_text())
    (scratch / "scores.jsonl.state.json").write_text(json.dumps({**state, "finished": False}))
    (folder / "00001.txt").write_text("a blue circle")
    refused(3, "a blue circle", *good, "--resume")
    (scratch / "scores.jsonl.state.json").write_text("{")
    refused(3, "state.json", *good, "--resume")
    (scratch / "scores.jsonl.state.json").unlink()
    refused(3, "state.json", *good, "--resume")
    check(output.read_bytes() == before, "a refused run changed the file")
    prefusion.run_command([prefusion.binary, "score", *map(str, good), "--overwrite"])
    listing = subprocess.run([prefusion.binary, "score", "--list-rewards"], capture_output=True, check=True).stdout.decode()
    check("pickscore" in listing and "shapes" in listing, listing)


def bootstrap(differences, prompts):
    """Percentile bootstrap of a mean, whole prompts drawn with replacement."""
    rng = numpy.random.default_rng(0)
    names = sorted(set(prompts))
    sums = numpy.array([sum(d for d, p in zip(differences, prompts) if p == name) for name in names])
    counts = numpy.array([prompts.count(name) for name in names])
    drawn = rng.integers(len(names), size=(20000, len(names)))
    return numpy.quantile(sums[drawn].sum(1) / counts[drawn].sum(1), [0.025, 0.975])


def baseline(prefusion, world, scratch):
    """Win rates and differences against another file are those of NumPy."""
    items = make_folder(scratch / "pictures", 30)
    text = prefusion.run_command(shapes_command(prefusion, scratch / "pictures", scratch / "scores.jsonl"))
    rows = read_rows(scratch / "scores.jsonl")
    values = numpy.array(column(rows, "shapes"))
    number = re.search(r"shapes: n 30, mean (\S+), std (\S+), min (\S+), quartiles (\S+) (\S+) (\S+), max (\S+)", text)
    check(number, text)
    expected = [values.mean(), values.std(ddof=1), values.min(), *numpy.quantile(values, [0.25, 0.5, 0.75]), values.max()]
    check_near([float(x) for x in number.groups()], expected, 1e-3, "the summary")
    check(sum(int(x) for x in re.findall(r"\| (\d+)$", text, re.M)) == 30, f"the histogram: {text}")
    other = [{**row, "image": f"elsewhere/{row['image'].split('/')[-1]}", "shapes": row["shapes"] + [0, 0.5, -0.25][i % 3]} for i, row in enumerate(rows[:-3])]
    differences = -numpy.array([[0, 0.5, -0.25][i % 3] for i in range(27)])
    wins = (differences > 0).sum() + 0.5 * (differences == 0).sum()
    random.seed(2)
    shuffled = random.sample(other, len(other))
    renamed = [{**row, "image": f"x{i}"} for i, row in enumerate(other)]
    for name, listed, how in (("same", shuffled, "file name and prompt"), ("captions", [{**row, "prompt": "y"} for row in shuffled], "file name"), ("order", renamed, "prompt and order")):
        write_jsonl(scratch / f"{name}.jsonl", listed)
        text = prefusion.run_command([*shapes_command(prefusion, scratch / "pictures", scratch / "scores.jsonl", "--resume"), "--baseline", scratch / f"{name}.jsonl"])
        check(f"27 of 30 rows joined by {how}\n" in text, text)
        found = re.search(r"wins (\S+) % \[(\S+), (\S+)\] of 27, mean difference (\S+) \[(\S+), (\S+)\], over prompts \[(\S+), (\S+)\]", text)
        check(found, text)
        reach = 1.959964 * differences.std(ddof=1) / 27**0.5
        rate, z = wins / 27, 1.959964
        centre, width = (rate + z * z / 54) / (1 + z * z / 27), z / (1 + z * z / 27) * (rate * (1 - rate) / 27 + z * z / (4 * 27**2)) ** 0.5
        wanted = [100 * rate, 100 * (centre - width), 100 * (centre + width), differences.mean(), differences.mean() - reach, differences.mean() + reach]
        low, high = bootstrap(differences, [row["prompt"] for row in rows[:-3]])
        for value, want in zip(found.groups()[6:], (low, high)):
            # Two thousand resamples know a bound to about a twentieth of the interval.
            check(abs(float(value) - want) < 0.1 * (high - low), f"{name}: over prompts {found.groups()[6:]}, expected {low}, {high}")
        for value, want in zip(found.groups()[:6], wanted):
            check(abs(float(value) - want) < 0.051 if want > 1 else abs(float(value) - want) < 2e-4, f"{name}: {found.groups()}, expected {wanted}")
    write_jsonl(scratch / "none.jsonl", [{"image": "a", "prompt": "b", "clip": 1}])
    prefusion.run_command([*shapes_command(prefusion, scratch / "pictures", scratch / "scores.jsonl", "--resume"), "--baseline", scratch / "none.jsonl"], exit_code=2)


main({f.__name__: f for f in (every_input, killed, shards, bad_pictures, refusals, baseline)})
