"""What the end-to-end tests share: running the binary, and looking at what it wrote."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

os.environ["OMP_NUM_THREADS"] = "1"


class Failure(Exception):
    pass


def check(condition, message):
    if not condition:
        raise Failure(message)


def check_near(found, expected, tolerance, what):
    """Largest difference over the largest expected magnitude; works on tensors and numbers."""
    import torch

    found, expected = torch.as_tensor(found).double(), torch.as_tensor(expected).double()
    check(found.shape == expected.shape, f"{what}: shape {tuple(found.shape)}, expected {tuple(expected.shape)}")
    scale = max(expected.abs().max().item(), 1e-30)
    error = (found - expected).abs().max().item() / scale
    print(f"  {what}: relative error {error:.1e} (at most {tolerance:.0e})")
    check(error <= tolerance, f"{what}: relative error {error:.3e} is above {tolerance:.0e}")


def arguments_of(options):
    """Command line of a dict: lists repeat, True is a flag."""
    arguments = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            arguments.append(flag)
        elif isinstance(value, (list, tuple)):
            arguments += [flag, *map(str, value)]
        elif value is not None and value is not False:
            arguments += [flag, str(value)]
    return arguments


class Prefusion:
    def __init__(self, binary):
        self.binary = binary

    def command(self, subcommand, options):
        return [self.binary, subcommand, "--threads", "1", *arguments_of(options)]

    def run(self, subcommand, exit_code=0, timeout=120, **options):
        """Runs to the end, checks the exit code, and that errors are one clear line; returns stderr."""
        command = self.command(subcommand, options)
        return self.run_command(command, exit_code, timeout)

    def run_command(self, command, exit_code=0, timeout=120, **popen):
        done = subprocess.run(command, capture_output=True, timeout=timeout, **popen)
        text = done.stderr.decode(errors="replace")
        check(done.returncode == exit_code, f"exit code {done.returncode}, expected {exit_code}: {command}\n{text}")
        check("Sanitizer" not in text and "runtime error:" not in text, f"a sanitizer reports:\n{text}")
        if exit_code in (2, 3, 4):
            check_error_line(text)
        return text


def check_error_line(text):
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    check(len(errors) == 1, f"expected one error line, found {len(errors)}:\n{text}")
    check(text.splitlines()[-1] == errors[0], f"the error is not the last line:\n{text}")
    check(re.search(r"0x[0-9a-f]{6,}|frame #|terminate called|std::|c10::", text) is None, f"a trace leaks:\n{text}")
    check(len(errors[0]) < 1200, f"an error of {len(errors[0])} characters")


def encoded_captions(model, captions):
    """Text states of captions as transformers makes them."""
    import torch
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(f"{model}/tokenizer")
    encoder = CLIPTextModel.from_pretrained(f"{model}/text_encoder").eval()
    ids = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        return encoder(ids).last_hidden_state


def encoded_segments(tokenizer, encoder, prompt, hidden=lambda output: output.last_hidden_state):
    """States of a prompt's sentences, each encoded by itself as LongAlign does it, and the pooled ones of the prompt cut off."""
    import torch

    def ids_of(text, **options):
        return tokenizer(text, truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt", **options).input_ids

    with torch.no_grad():
        states = []
        for sentence in [part + "." for part in re.split(r'"!|\.|\?|;"', prompt) if part] or [prompt]:
            ids = ids_of(sentence)
            states.append(hidden(encoder(ids, output_hidden_states=True))[0][ids[0] != tokenizer.eos_token_id])
        empty = hidden(encoder(ids_of("", padding="max_length"), output_hidden_states=True))[0][-60:].mean(0, keepdim=True)
        pooled = encoder(ids_of(prompt, padding="max_length"))[0]
    return torch.cat([*states, empty.expand(240, -1)])[None, :240], pooled


def read_metrics(folder):
    return [json.loads(line) for line in (pathlib.Path(folder) / "metrics.jsonl").read_text().splitlines()]


def check_same_runs(folder, others, tolerance=1e-9):
    """Every logged step of the runs in `others` has the loss and errors of that in `folder`."""
    for other in others:
        for row, same in zip(read_metrics(folder), read_metrics(other), strict=True):
            for key in ("loss", "error_chosen", "error_chosen_ref"):
                check_near(row[key], same[key], tolerance, f"{other.name}, step {row['step']} {key}")


def snapshot(folder):
    """Bytes of every file below a folder."""
    folder = pathlib.Path(folder)
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def main(cases):
    """test.py BINARY WORLD CASE runs cases[CASE](prefusion, world, scratch folder)."""
    binary, world, case = sys.argv[1:4]
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="prefusion-e2e-"))
    try:
        cases[case](Prefusion(binary), pathlib.Path(world), scratch)
    except (Failure, subprocess.TimeoutExpired) as failure:
        print(f"FAILED {case}: {failure}")
        sys.exit(1)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"passed {case}")
