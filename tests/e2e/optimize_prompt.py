"""`prefusion optimize-prompt`: duels under the bundled world's judge and of people, made again from its pictures.

optimize_prompt.py BINARY WORLD CASE
"""

import json
import pathlib
import subprocess

from support import check, check_near, main, snapshot

import numpy
from PIL import Image

MODEL = pathlib.Path(__file__).resolve().parents[2] / "assets" / "shapes"
INTENT = "a red circle left of a blue square"
CANDIDATES = [INTENT, "a red circle", "a blue square right of a red circle", "a green triangle", "a yellow star above a red circle"]
SAMPLING = dict(steps=4, scheduler="dpm++", guidance_scale=3.0)


def write_candidates(scratch, prompts=CANDIDATES):
    (scratch / "candidates.txt").write_text("".join(f"{prompt}\n" for prompt in prompts))
    return scratch / "candidates.txt"


def duels_of(folder):
    return [json.loads(line) for line in (folder / "duels.jsonl").read_text().splitlines()]


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def pixels(path):
    return numpy.asarray(Image.open(path))


def rewarded(prefusion, scratch, output, duels, exit_code=0, **options):
    return prefusion.run("optimize-prompt", exit_code, candidates=write_candidates(scratch), intent=INTENT, model=MODEL, reward="shapes",
                         num_images=2, seed=5, output=output, duels=duels, **SAMPLING, **options)


def share_of(prefusion, scratch, duel, number):
    """How often the first prompt's pictures beat the second's, by generate and score."""
    values = []
    for side in ("a", "b"):
        folder = scratch / f"again-{number}-{side}"
        prefusion.run("generate", model=MODEL, prompt=duel[side], num_images=2, seed=5 + 2 * number, output=folder, **SAMPLING)
        for path in folder.glob("*.png"):
            path.with_suffix(".txt").write_text(INTENT)
        prefusion.run("score", reward="shapes", input=folder, output=folder / "scores.jsonl")
        values.append([json.loads(line)["shapes"] for line in (folder / "scores.jsonl").read_text().splitlines()])
    a, b = map(numpy.array, values)
    return ((a > b) + 0.5 * (a == b)).mean()


def judged(prefusion, world, scratch):
    """Verdicts are those of generate and score; a run in two pieces is the run in one; the intended prompt wins."""
    rewarded(prefusion, scratch, scratch / "whole", 7)
    duels = duels_of(scratch / "whole")
    check(len(duels) == 7, f"{len(duels)} duels")
    for number in (0, 6):
        found = {"a": 1, "b": 0, "tie": 0.5}.get(duels[number]["winner"], duels[number]["winner"])
        check_near(found, share_of(prefusion, scratch, duels[number], number), 1e-9, f"duel {number + 1}")
    rewarded(prefusion, scratch, scratch / "pieces", 3)
    rewarded(prefusion, scratch, scratch / "pieces", 7)
    check(snapshot(scratch / "pieces") == snapshot(scratch / "whole"), "two pieces differ from one run")
    result = result_of(scratch / "whole")
    check(result["duels"] == 7 and result["best"] in (CANDIDATES[0], CANDIDATES[2]), f"the best is {result['best']}")
    means = [row["mean"] for row in result["prompts"]]
    check(means == sorted(means, reverse=True) and abs(sum(means)) < 1e-9, f"means {means}")
    check(sum(row["duels"] for row in result["prompts"]) == 14, "duels of the prompts")
    check_near(sum(row["wins"] for row in result["prompts"]), 7, 1e-9, "wins")
    text = rewarded(prefusion, scratch, scratch / "whole", 9, exit_code=2, height=72)
    check("height" in text, text)


def people(prefusion, world, scratch):
    """Answers in the file and on the terminal lead to the same duels, whose pictures are those of generate."""
    candidates = write_candidates(scratch)
    options = dict(candidates=candidates, model=MODEL, num_images=1, **SAMPLING)
    by_file, asked = scratch / "by-file", scratch / "asked"
    for number, winner in enumerate(["a", "tie", "b", 0.8]):
        prefusion.run("optimize-prompt", output=by_file, **options)
        duel = result_of(by_file)["next"]
        check(result_of(by_file)["duels"] == number, "a duel that nobody judged counts")
        with (by_file / "duels.jsonl").open("a") as file:
            file.write(json.dumps({**duel, "winner": winner}) + ("\n" if number < 3 else ""))  # nor does the last newline matter
    prefusion.run("optimize-prompt", output=by_file, **options)
    check(result_of(by_file)["duels"] == 4, "four answers were given")
    prefusion.run("generate", model=MODEL, prompt=duels_of(by_file)[2]["a"], seed=2, output=scratch / "third.png", **SAMPLING)
    check((pixels(scratch / "third.png") == pixels(by_file / "pictures" / "duel-0003-a-0.png")).all(), "the pictures are others")
    command = prefusion.command("optimize-prompt", {**options, "output": asked, "ask": True})
    done = subprocess.run(command, input=b"a\nwhat\n=\nb\nq\na\n", capture_output=True, timeout=120)
    check(done.returncode == 0, done.stderr.decode())
    check(duels_of(asked) == duels_of(by_file)[:3], f"asked {duels_of(asked)}, by file {duels_of(by_file)}")
    check(done.stdout.decode().startswith(f"best after 3 duels: {result_of(asked)['best']}\n"), done.stdout.decode())


def modifiers(prefusion, world, scratch):
    """All choices of up to two modifiers compete, in order."""
    (scratch / "modifiers.txt").write_text("small\ncentered\nblue background\n")
    prefusion.run("optimize-prompt", prompt="a red circle", modifiers=scratch / "modifiers.txt", output=scratch / "out")
    found = sorted(row["prompt"] for row in result_of(scratch / "out")["prompts"])
    base = "a red circle"
    check(found == sorted([base, f"{base}, small", f"{base}, centered", f"{base}, blue background", f"{base}, small, centered",
                           f"{base}, small, blue background", f"{base}, centered, blue background"]), f"prompts {found}")


def refusals(prefusion, world, scratch):
    candidates = write_candidates(scratch)
    out = scratch / "out"

    def refused(exit_code, text, **options):
        error = prefusion.run("optimize-prompt", exit_code, **{"candidates": candidates, "output": out, **options})
        check(text in error, f"expected '{text}' in: {error}")

    refused(2, "--modifiers", candidates=None, prompt="x")
    refused(2, "--candidates", candidates=None)
    refused(2, "--model", reward="shapes", intent=INTENT)
    refused(2, "--intent", reward="shapes", model=MODEL)
    refused(2, "an astronaut", reward="shapes", model=MODEL, intent="an astronaut")
    refused(2, "exclude", reward="shapes", model=MODEL, intent=INTENT, ask=True)
    refused(3, "absent", candidates=scratch / "absent.txt")
    (scratch / "one.txt").write_text("same\nsame\n")
    refused(3, "two different prompts", candidates=scratch / "one.txt")
    (scratch / "many.txt").write_text("".join(f"m{i}\n" for i in range(40)))
    refused(2, "--max-modifiers", candidates=None, prompt="x", modifiers=scratch / "many.txt", max_modifiers=5)
    good = {"a": CANDIDATES[0], "b": CANDIDATES[1], "winner": "a"}
    for row, text in (({**good, "winner": "c"}, "winner"), ({**good, "winner": 2}, "winner"), ({**good, "a": "x"}, "'x' is none"),
                      ({**good, "b": good["a"]}, "same prompt"), ({"a": 1}, "expected"), ([], "expected")):
        (scratch / "duels.jsonl").write_text(json.dumps(good) + "\n\n" + json.dumps(row) + "\n")
        refused(3, "duels.jsonl line 3: ", feedback=scratch / "duels.jsonl")
        refused(3, text, feedback=scratch / "duels.jsonl")
    (scratch / "duels.jsonl").write_text('{"a": ')
    refused(3, "duels.jsonl line 1", feedback=scratch / "duels.jsonl")


main({f.__name__: f for f in (judged, people, modifiers, refusals)})
