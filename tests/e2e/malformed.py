"""Broken inputs and places that cannot be written: one clear error line, the right exit code, earlier outputs untouched.

malformed.py BINARY WORLD CASE, with WORLD from make_sd_world.py.
"""

import io
import json
import os
import pathlib
import resource
import shutil
import signal
import struct
import subprocess
import zlib

from support import check, check_error_line, main, snapshot

import pyarrow
import pyarrow.parquet

ALIGN = dict(steps=2, batch_size=2, eval_every=0, seed=1)


def align_options(world, scratch, **changes):
    return {**ALIGN, "model": world / "models" / "epsilon", "data": world / "pairs.parquet", "output": scratch / "out",
            **changes}


def copy_model(world, scratch, name="model"):
    shutil.rmtree(scratch / name, ignore_errors=True)
    return pathlib.Path(shutil.copytree(world / "models" / "epsilon", scratch / name))


def expect(prefusion, subcommand, exit_code, mentions, **options):
    text = prefusion.run(subcommand, exit_code=exit_code, **options)
    for part in [mentions] if isinstance(mentions, str) else mentions:
        check(part in text.splitlines()[-1], f"the error does not mention {part!r}: {text}")


def generate_options(model, scratch):
    return dict(model=model, prompt="a star", steps=1, output=scratch / "picture.png", scheduler="ddim")


# Command line


def bad_flags(prefusion, world, scratch):
    good = align_options(world, scratch)
    for options, mentions in (
        ({**good, "no_such_flag": 1}, "--no-such-flag"), ({**good, "steps": "many"}, "--steps"),
        ({**good, "steps": -1}, "--steps"), ({**good, "device": "tpu"}, "tpu"), ({**good, "dtype": "int3"}, "int3"),
        ({**good, "objective": "dpo-typo"}, "dpo-typo"), ({**good, "adapter": "half"}, "half"),
        ({**good, "beta": 1, "kappa": 1}, ("beta", "kappa")), ({**good, "objective_args": "x=1"}, "x"),
        ({**good, "lr_schedule": "steps"}, "steps"), ({**good, "resolution": 63}, "--resolution"),
        ({**good, "output": None, "ema": 2, "rank": 0}, ("--output", "--ema", "--rank")),
        ({**good, "target_modules": "no_such_layer"}, "no_such_layer"), ({**good, "log_level": "loud"}, "loud"),
    ):
        expect(prefusion, "align", 2, mentions, **options)
    for command in ([], ["no-such-command"], ["align", "stray"]):
        prefusion.run_command([prefusion.binary, *command], exit_code=2)
    check(not (scratch / "out").exists(), "a refused command line made the output folder")


def missing_files(prefusion, world, scratch):
    absent = scratch / "absent"
    for change in ({"model": absent}, {"data": absent}, {"eval_data": absent}, {"reference_model": absent},
                   {"sample_every": 1, "sample_prompts": absent}, {"config": absent}):
        expect(prefusion, "align", 3, "absent", **align_options(world, scratch, **change))
    expect(prefusion, "generate", 3, "absent", **generate_options(absent, scratch))
    (scratch / "empty").mkdir()
    expect(prefusion, "align", 3, "empty", **align_options(world, scratch, model=scratch / "empty"))
    expect(prefusion, "align", 3, "empty", **align_options(world, scratch, data=scratch / "empty"))
    for component in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        model = copy_model(world, scratch)
        shutil.rmtree(model / component)
        expect(prefusion, "align", 3, component, **align_options(world, scratch, model=model))


# Model folders


def header_of(data):
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def with_header(header, body):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def broken_safetensors(data):
    """(name, bytes) of files that violate the format or do not fit the model."""
    header, body = header_of(data)
    tensors = [name for name in header if name != "__metadata__"]
    first, second = tensors[0], tensors[1]

    def changed(name, **fields):
        return with_header({**header, name: {**header[name], **fields}}, body)

    begin, end = header[first]["data_offsets"]
    yield "empty", b""
    yield "seven bytes", data[:7]
    yield "header beyond the end", struct.pack("<Q", 1 << 40) + data[8:]
    yield "header length overflows", b"\xff" * 8 + data[8:]
    yield "truncated header", data[:100]
    yield "truncated data", data[:-1]
    yield "stray bytes", data + b"\0"
    yield "no JSON", struct.pack("<Q", 8) + b"{nonsens" + body
    yield "a list", struct.pack("<Q", 2) + b"[]" + body
    yield "deep nesting", struct.pack("<Q", 200000) + b"[" * 200000 + body
    yield "invalid UTF-8", struct.pack("<Q", 8) + b'{"\xff\xfe":1' + body
    yield "overlap", changed(second, data_offsets=header[first]["data_offsets"], shape=header[first]["shape"])
    yield "backwards", changed(first, data_offsets=[end, begin])
    yield "negative", changed(first, data_offsets=[-4, end])
    yield "beyond the file", changed(first, data_offsets=[begin, 1 << 50])
    yield "shape of another size", changed(first, shape=[*header[first]["shape"], 2])
    yield "shape overflows", changed(first, shape=[1 << 62, 1 << 62])
    yield "negative shape", changed(first, shape=[-1])
    yield "unknown dtype", changed(first, dtype="F13")
    yield "dtype of another size", changed(first, dtype="F64")
    yield "missing key", with_header({key: value for key, value in header.items() if key != tensors[-1]}, body)
    yield "unknown key", with_header({(key + "x" if key == first else key): v for key, v in header.items()}, body)
    turned = next(name for name in tensors if len(set(header[name]["shape"])) > 1)
    yield "wrong shape", changed(turned, shape=header[turned]["shape"][::-1])


def corrupt_weights(prefusion, world, scratch, component, stem):
    model = copy_model(world, scratch)
    path = model / component / f"{stem}.safetensors"
    for name, data in broken_safetensors(path.read_bytes()):
        print(f"  {component}: {name}")
        path.write_bytes(data)
        expect(prefusion, "align", 3, component, **align_options(world, scratch, model=model))
        check(not list(scratch.glob("out/*.safetensors")), "a failed run wrote weights")


def corrupt_lora(prefusion, world, scratch):
    model = world / "models" / "epsilon"
    prefusion.run("align", **align_options(world, scratch))
    path = scratch / "out" / "pytorch_lora_weights.safetensors"
    picture = generate_options(model, scratch)
    prefusion.run("generate", **picture, lora=path)
    before = (scratch / "picture.png").read_bytes()
    tolerated = ("missing key", "unknown key")  # other LoRAs are partial, too
    for name, data in broken_safetensors(path.read_bytes()):
        if name in tolerated:
            continue
        print(f"  {name}")
        (scratch / "broken.safetensors").write_bytes(data)
        expect(prefusion, "generate", 3, "broken.safetensors", **picture, lora=scratch / "broken.safetensors")
        check((scratch / "picture.png").read_bytes() == before, "a failed run changed the earlier picture")


def corrupt_configs(prefusion, world, scratch):
    for component, number in (("unet/config.json", "layers_per_block"), ("vae/config.json", "latent_channels"),
                              ("text_encoder/config.json", "num_hidden_layers"),
                              ("scheduler/scheduler_config.json", "num_train_timesteps")):
        model = copy_model(world, scratch)
        path = model / component
        good = json.loads(path.read_text())
        contents = [b"", b"{", b"[]", b"3", b"\xff\xfe{}", b"[" * 100000,
                    json.dumps({**good, "a_setting_of_tomorrow": 1}).encode(),
                    json.dumps({**good, number: "many"}).encode(),
                    json.dumps({**good, number: -(1 << 40)}).encode(),
                    json.dumps({**good, number: [[1]]}).encode()]
        for value in ([{}], [], "wide", [0, -8]) if "block_out_channels" in good else ():
            contents.append(json.dumps({**good, "block_out_channels": value}).encode())
        for content in contents:
            print(f"  {component}: {content[:40]}")
            path.write_bytes(content)
            expect(prefusion, "align", 3, component.split("/")[0], **align_options(world, scratch, model=model))


def corrupt_tokenizers(prefusion, world, scratch):
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        for content in (b"", b"{", b"[1, 2]", b"\xff\xfe\xfd", b'{"a": -1}', b'{"a": "b"}', b'{"a": 1e300}'):
            model = copy_model(world, scratch)
            if not (model / "tokenizer" / name).exists():
                continue
            (model / "tokenizer" / "tokenizer.json").unlink(missing_ok=True)
            (model / "tokenizer" / name).write_bytes(content)
            print(f"  {name}: {content[:40]}")
            text = run_any(prefusion, "align", (0, 3), **align_options(world, scratch, model=model))
            if "error:" in text:
                check("tokenizer" in text.splitlines()[-1], text)
    model = copy_model(world, scratch)
    for name in ("vocab.json", "merges.txt"):
        (model / "tokenizer" / name).unlink(missing_ok=True)
    whole = (model / "tokenizer" / "tokenizer.json").read_text()
    for content in ("", "{", "[]", "{}", '{"model": 3}', '{"model": {"type": "BPE", "vocab": [], "merges": {}}}',
                    whole[: len(whole) // 2], whole.replace('"BPE"', '"Unigram"')):
        (model / "tokenizer" / "tokenizer.json").write_text(content)
        print(f"  tokenizer.json: {content[:40]!r}")
        expect(prefusion, "align", 3, "tokenizer", **align_options(world, scratch, model=model))


def run_any(prefusion, subcommand, exit_codes, **options):
    """For inputs on which both a result and an error are right, but nothing else."""
    if "output" in options:
        shutil.rmtree(options["output"], ignore_errors=True)
    done = subprocess.run(prefusion.command(subcommand, options), capture_output=True, timeout=300)
    text = done.stderr.decode(errors="replace")
    check(done.returncode in exit_codes, f"exit code {done.returncode}, expected one of {exit_codes}:\n{text}")
    check("Sanitizer" not in text and "runtime error:" not in text, f"a sanitizer reports:\n{text}")
    if done.returncode:
        check_error_line(text)
    return text


# Preference data


def corrupt_parquet(prefusion, world, scratch):
    good = (world / "pairs.parquet").read_bytes()
    middle = len(good) // 2
    contents = {
        "empty": b"", "text": b"no parquet at all", "magic only": b"PAR1PAR1", "truncated": good[:middle],
        "without its end": good[:-4], "lying footer length": good[:-8] + struct.pack("<I", 1 << 31) + b"PAR1",
        "small footer length": good[:-8] + struct.pack("<I", 3) + b"PAR1",
        "damaged footer": good[:-60] + b"\xff" * 40 + good[-20:],
    }
    for name, content in contents.items():
        print(f"  {name}")
        (scratch / "broken.parquet").write_bytes(content)
        expect(prefusion, "align", 3, "broken.parquet",
               **align_options(world, scratch, data=scratch / "broken.parquet"))
    # Damaged pages are found while reading; records are lost or the file is refused, but nothing worse.
    for offset in range(4, len(good) - 4, len(good) // 12):
        (scratch / "broken.parquet").write_bytes(good[:offset] + b"\xff" * 16 + good[offset + 16 :])
        run_any(prefusion, "align", (0, 3), **align_options(world, scratch, data=scratch / "broken.parquet", max_bad=1))


def wrong_columns(prefusion, world, scratch):
    table = pyarrow.parquet.read_table(world / "pairs.parquet")
    count = table.num_rows

    def replaced(name, array):
        return table.set_column(table.column_names.index(name), name, array)

    tables = {
        "no caption": table.drop_columns(["caption"]),
        "no first picture": table.drop_columns(["jpg_0"]),
        "no labels": table.drop_columns(["label_0", "label_1"]),
        "pictures as numbers": replaced("jpg_0", pyarrow.array(range(count))),
        "labels as text": replaced("label_0", pyarrow.array(["x"] * count)),
        "captions as numbers": replaced("caption", pyarrow.array(range(count))),
        "no rows": table.slice(0, 0),
    }
    for name, content in tables.items():
        print(f"  {name}")
        pyarrow.parquet.write_table(content, scratch / "broken.parquet")
        expect(prefusion, "align", 3, "broken.parquet",
               **align_options(world, scratch, data=scratch / "broken.parquet"))


def png_of_size(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def jpeg_of_size(good, width, height):
    """A JPEG whose frame header claims another size."""
    for marker in (b"\xff\xc0", b"\xff\xc2"):
        at = good.find(marker)
        if at >= 0:
            return good[: at + 5] + struct.pack(">HH", height, width) + good[at + 9 :]
    raise ValueError("no frame header")


def bad_pictures(world):
    rows = pyarrow.parquet.read_table(world / "pairs.parquet").to_pylist()
    jpeg = next(row["jpg_0"] for row in rows if row["jpg_0"][:2] == b"\xff\xd8")
    png = next(row["jpg_0"] for row in rows if row["jpg_0"][:4] == b"\x89PNG")
    return {
        "empty": b"", "text": b"no picture", "jpeg magic": b"\xff\xd8\xff", "cut off jpeg": jpeg[: len(jpeg) // 2],
        "cut off png": png[: len(png) // 2], "jpeg bomb": jpeg_of_size(jpeg, 65000, 65000),
        "png bomb": png_of_size(60000, 60000), "png without pixels": png_of_size(0, 0), "wide png": png_of_size(1 << 30, 1),
        "webp": b"RIFF\xff\xff\xff\xffWEBPVP8 \x00\x00\x00\x00", "null": None,
    }


def bad_records(prefusion, world, scratch):
    """Unreadable pictures are skipped up to --max-bad, and named."""
    rows = pyarrow.parquet.read_table(world / "pairs.parquet").to_pylist()
    bad = bad_pictures(world)
    for row, content in zip(rows, bad.values()):
        row["jpg_1"] = content
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), scratch / "bad.parquet")
    for no_cache in (False, True):
        options = align_options(world, scratch, data=scratch / "bad.parquet", no_cache=no_cache, epochs=1, steps=0)
        expect(prefusion, "align", 3, ("bad.parquet", "--max-bad"), **{**options, "max_bad": 0.2})
        text = prefusion.run("align", **{**options, "max_bad": 0.9})
        for index in (1, 4, 5):
            check(f"bad.parquet row {index}" in text or f"bad.parquet:{index}" in text, f"row {index} is not named: {text}")
        shutil.rmtree(scratch / "out")


def one_bad_picture(prefusion, world, scratch):
    """Every kind of broken picture alone: skipped, the run goes on, memory stays small."""
    rows = pyarrow.parquet.read_table(world / "pairs.parquet").to_pylist()
    for name, content in bad_pictures(world).items():
        print(f"  {name}")
        broken = [dict(row) for row in rows]
        broken[0]["jpg_0"] = content
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(broken), scratch / "bad.parquet")
        options = align_options(world, scratch, data=scratch / "bad.parquet", max_bad=0.1, epochs=1, steps=0)
        prefusion.run("align", **options)
        shutil.rmtree(scratch / "out")


def manifests(prefusion, world, scratch):
    rows = pyarrow.parquet.read_table(world / "pairs.parquet").to_pylist()
    for i in range(2):
        (scratch / f"{i}.jpg").write_bytes(rows[1][f"jpg_{i}"])
    good = {"prompt": "a star", "images": ["0.jpg", "1.jpg"], "label": 0}
    lines = {
        "no JSON": "nonsense", "a number": "3", "no prompt": json.dumps({**good, "prompt": None}),
        "one picture": json.dumps({**good, "images": ["0.jpg"]}), "absent picture": json.dumps({**good, "images": ["0.jpg", "9.jpg"]}),
        "number for a picture": json.dumps({**good, "images": [1, 2]}), "no label": json.dumps({"prompt": "x", "images": ["0.jpg", "1.jpg"]}),
        "label beyond the pictures": json.dumps({**good, "label": 7}), "deep": "[" * 100000,
        "scores of another length": json.dumps({**good, "scores": [1]}), "scores of no number": json.dumps({**good, "scores": ["a", "b"]}),
        "infinite scores": json.dumps(good)[:-1] + ', "scores": [1e999, 0]}', "negative weight": json.dumps({**good, "weight": -1}),
        "prompts of another length": json.dumps({**good, "prompts": ["a"]}), "masks of another length": json.dumps({**good, "masks": ["0.jpg"]}),
        "pairs of prompts": json.dumps({"image": "0.jpg", "prompts": ["good", "bad"]}),
        "ranks of another length": json.dumps({"prompt": "x", "images": ["0.jpg", "1.jpg"], "ranks": [1, 2, 3]}),
    }
    path = scratch / "pairs.jsonl"
    for name, line in lines.items():
        print(f"  {name}")
        path.write_text(line + "\n")
        expect(prefusion, "align", 3, "pairs.jsonl", **align_options(world, scratch, data=path))
    path.write_bytes(json.dumps(good).encode() + b'\n{"prompt": "\xff\xfe", "images": ["0.jpg", "1.jpg"], "label": 0}\n')
    run_any(prefusion, "align", (0, 3), **align_options(world, scratch, data=path, max_bad=0.5))


def invalid_utf8(prefusion, world, scratch):
    model = world / "models" / "epsilon"
    for prompt in (b"\xff\xfe\xfd", b"a \xc3 star", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"a\xe2\x82"):
        options = {**generate_options(model, scratch), "prompt": None}
        command = [*map(os.fsencode, prefusion.command("generate", options)), b"--prompt", prompt]
        done = subprocess.run(command, capture_output=True, timeout=300)
        check(done.returncode in (2, 3), f"{prompt}: exit code {done.returncode}: {done.stderr}")
        check_error_line(done.stderr.decode(errors="replace"))
        (scratch / "prompts.txt").write_bytes(b"a star\n" + prompt + b"\n")
        options = {**options, "prompts": scratch / "prompts.txt", "output": scratch / "pictures"}
        expect(prefusion, "generate", 3, "prompts.txt", **options)
    caption = pyarrow.array([b"\xff\xfe star"] + [b"a star"] * 25).cast(pyarrow.binary())
    table = pyarrow.parquet.read_table(world / "pairs.parquet")
    raw = pyarrow.StringArray.from_buffers(26, caption.buffers()[1], caption.buffers()[2])
    table = table.set_column(table.column_names.index("caption"), "caption", raw)
    pyarrow.parquet.write_table(table, scratch / "bad.parquet")
    run_any(prefusion, "align", (0, 3), **align_options(world, scratch, data=scratch / "bad.parquet", max_bad=0.1))


# Places


def unwritable_output(prefusion, world, scratch):
    (scratch / "file").write_text("in the way")
    for output in (scratch / "file", scratch / "file" / "below", pathlib.Path("/proc/prefusion")):
        expect(prefusion, "align", 4, str(output), **align_options(world, scratch, output=output))
        options = {**generate_options(world / "models" / "epsilon", scratch), "output": output / "x.png"}
        prefusion.run("generate", exit_code=4, **options)
    check((scratch / "file").read_text() == "in the way", "the file in the way was changed")


def limited(prefusion, options, max_bytes):
    """Runs align under a limit on the size of files, as a full disk that fails in the middle of a write."""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, max_bytes))

    return prefusion.run_command(prefusion.command("align", options), exit_code=4, preexec_fn=limit,
                                 restore_signals=False)


def full_disk(prefusion, world, scratch):
    """A run that cannot write fails with one line; what an earlier run wrote stays as it is."""
    options = align_options(world, scratch, adapter="full", no_cache=True, cache=None)
    out = scratch / "out"
    prefusion.run("align", **options)
    before = {name: data for name, data in snapshot(out).items() if name.startswith(("unet/", "vae/", "checkpoints/"))}
    for max_bytes in (200, 20000, 400000):
        limited(prefusion, {**options, "steps": 4, "resume": "auto"}, max_bytes)
        after = snapshot(out)
        for name, data in before.items():
            check(after.get(name) == data, f"{name} was changed by a run that failed")
        left = [name for name in after if pathlib.Path(name).name.startswith(".")]
        check(not left, f"unfinished files stay behind: {left}")
    prefusion.run("align", **{**options, "steps": 4, "resume": "auto"})


def full_file_system(prefusion, world, scratch):
    """The same on a small tmpfs; passes without looking where mounting is not permitted."""
    place = scratch / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "none", str(place)], capture_output=True)
    if mounted.returncode != 0:
        print("  mounting is not permitted here")
        return
    try:
        for options in ({"no_cache": True}, {}):
            out = place / "out"
            text = prefusion.run("align", exit_code=4, **align_options(world, scratch, output=out, adapter="full", **options))
            check(str(place) in text.splitlines()[-1], f"the error does not say where: {text}")
            check(not (out / "unet" / "diffusion_pytorch_model.safetensors").exists(), "weights on a full disk")
            shutil.rmtree(out, ignore_errors=True)
    finally:
        subprocess.run(["umount", str(place)], check=True)


def damaged_cache(prefusion, world, scratch):
    """A damaged cache is made again, and the result is that of a run with a fresh one."""
    options = align_options(world, scratch, cache=scratch / "cache")
    prefusion.run("align", **options)
    weights = (scratch / "out" / "pytorch_lora_weights.safetensors").read_bytes()
    cache = scratch / "cache" / "latents.h5"
    whole = cache.read_bytes()
    size = len(whole)
    repaired = {"empty": b"", "cut off": whole[: size // 2], "damaged start": whole[:64] + b"\xff" * 256 + whole[320:]}
    for name, content in repaired.items():
        print(f"  {name}")
        cache.write_bytes(content)
        shutil.rmtree(scratch / "out")
        prefusion.run("align", **options)
        found = (scratch / "out" / "pytorch_lora_weights.safetensors").read_bytes()
        check(found == weights, "the damaged cache changed the result")
    # Damage inside an entry shows when it is read: it is never used.
    for offset in range(1000, size - 3000, size // 10):
        cache.write_bytes(whole[:offset] + b"\xff" * 2000 + whole[offset + 2000 :])
        text = run_any(prefusion, "align", (0, 3), **options)
        if "error:" in text:
            check("latents.h5" in text.splitlines()[-1], text)
            continue
        found = (scratch / "out" / "pytorch_lora_weights.safetensors").read_bytes()
        check(found == weights, "the damaged cache changed the result")
    cache.write_bytes(b"the notes of somebody")
    text = run_any(prefusion, "align", (2, 3), **options)
    check("latents.h5" in text, text)
    check(cache.read_bytes() == b"the notes of somebody", "a foreign file was changed")


def broken_toml(prefusion, world, scratch):
    path = scratch / "run.toml"
    for content, exit_code in ((b"steps = \n", 3), (b"[[", 3), (b"\xff\xfe", 3), (b"steps = 1\nsteps = 2\n", 3),
                               (b"no_such_key = 1\n", 2), (b"steps = [1, 2]\n", 2), (b"steps = 1979-05-27\n", 2),
                               (b"a = " + b"[" * 100000, 3)):
        path.write_bytes(content)
        expect(prefusion, "align", exit_code, "", **align_options(world, scratch, steps=None, config=path))


main({
    "bad_flags": bad_flags,
    "missing_files": missing_files,
    "unet_weights": lambda *a: corrupt_weights(*a, "unet", "diffusion_pytorch_model"),
    "vae_weights": lambda *a: corrupt_weights(*a, "vae", "diffusion_pytorch_model"),
    "text_encoder_weights": lambda *a: corrupt_weights(*a, "text_encoder", "model"),
    "lora_weights": corrupt_lora,
    "configs": corrupt_configs,
    "tokenizers": corrupt_tokenizers,
    "parquet": corrupt_parquet,
    "columns": wrong_columns,
    "records": bad_records,
    "pictures": one_bad_picture,
    "manifests": manifests,
    "invalid_utf8": invalid_utf8,
    "unwritable": unwritable_output,
    "full_disk": full_disk,
    "full_file_system": full_file_system,
    "cache": damaged_cache,
    "toml": broken_toml,
})
