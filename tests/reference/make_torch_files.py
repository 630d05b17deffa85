"""Files of torch.save for tests/core/torch_file_test.cpp: make_torch_files.py OUTPUT_FOLDER

OUTPUT/good/NAME.pt holds the tensors of OUTPUT/good/NAME.safetensors under the same names (dots join nested keys);
OUTPUT/bad/NAME.pt must be refused; OUTPUT/bad.json says which words the message needs.
"""

import collections
import io
import json
import pickle
import struct
import sys
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file

torch.manual_seed(0)
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def good_files():
    """name -> (value, expected names, how to save)."""
    base = torch.arange(60.0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2, bias=False))
    every = {str(d).removeprefix("torch."): (torch.randn(3, 5) * 50).abs().to(d) for d in DTYPES}
    every["flag"] = torch.tensor([True, False, True])
    every["f8"] = torch.randn(6).to(torch.float8_e4m3fn)
    every["u16"] = torch.tensor([1, 60000], dtype=torch.uint16)
    every["scalar"] = torch.tensor(4.6)
    every["empty"] = torch.zeros(0, 7)
    views = {"rows": base.view(6, 10)[1:4], "columns": base.view(6, 10)[:, 2:5], "turned": base.view(5, 12).t(), "whole": base, "spread": base[7:8].expand(3, 4)}
    training = {
        "epoch": 3,
        "name": "a model",
        "rate": 1e-4,
        "big": 2**40,
        "negative": -(2**33),
        "nothing": None,
        "flags": (True, False),
        "shape": torch.Size([1, 2]),
        "dtype": torch.bfloat16,
        "device": torch.device("cpu"),
        "counts": collections.defaultdict(int, a=1),
        "state_dict": collections.OrderedDict(("module." + k, v) for k, v in net.state_dict().items()),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}, 1: {"exp_avg": torch.zeros(2)}}, "groups": [{"lr": 0.1, "params": [0, 1]}]},
        "more": [torch.ones(1), (torch.zeros(1),)],
        "long text": "x" * 300,
    }
    return {"dtypes": every, "views": views, "state": net.state_dict(), "parameters": dict(net.named_parameters()), "training": training}


def flatten(value, name=""):
    if isinstance(value, torch.Tensor):
        return {name: value.detach().contiguous().clone()}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    found = {}
    for key, item in items:
        found.update(flatten(item, f"{name}.{key}" if name else str(key)))
    return found


def write_good(folder):
    def expect(name, value):
        save_file(flatten(value), folder / f"{name}.safetensors")

    for name, value in good_files().items():
        torch.save(value, folder / f"{name}.pt")
        expect(name, value)
        torch.save(value, folder / f"{name}_protocol4.pt", pickle_protocol=4)
        expect(f"{name}_protocol4", value)
        if name != "dtypes":  # the old format has no unsigned integers
            torch.save(value, folder / f"{name}_legacy.pt", _use_new_zipfile_serialization=False)
            expect(f"{name}_legacy", value)
    # What other zip writers make of it: compressed, without alignment.
    for source in ("state", "views"):
        with zipfile.ZipFile(folder / f"{source}.pt") as original, zipfile.ZipFile(folder / f"{source}_deflated.pt", "w", zipfile.ZIP_DEFLATED) as copy:
            for entry in original.namelist():
                copy.writestr(entry, original.read(entry))
        expect(f"{source}_deflated", good_files()[source] if source == "views" else torch.load(folder / "state.pt"))

    class Inner(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(3, 2).half())
            self.register_buffer("steps", torch.tensor(5))
            self.sizes = [1, 2, 3]

        def forward(self, x):
            return x @ self.weight.float() + self.steps

    class Outer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.ModuleList([Inner(), Inner()])
            self.proj = torch.nn.Linear(2, 3)

        def forward(self, x):
            for layer in self.inner:
                x = self.proj(layer(x))
            return x

    model = Outer().eval()
    torch.jit.script(model).save(str(folder / "scripted.pt"))
    expect("scripted", model.state_dict())
    torch.jit.trace(model, torch.randn(1, 3)).save(str(folder / "traced.pt"))
    expect("traced", model.state_dict())


class Evil:
    def __init__(self, call, *arguments):
        self.reduced = (call, arguments)

    def __reduce__(self):
        return self.reduced


def rezip(source, path, change):
    with zipfile.ZipFile(source) as original, zipfile.ZipFile(path, "w") as copy:
        for name in original.namelist():
            content = change(name, original.read(name))
            if content is not None:
                copy.writestr(name, content)


def write_bad(folder, good):
    import os

    words = {}

    def bad(name, *needed, content=None):
        words[name] = needed
        if content is not None:
            (folder / f"{name}.pt").write_bytes(content)

    torch.save({"a": torch.ones(2), "b": Evil(os.system, f"touch {folder}/ran")}, folder / "system.pt")
    bad("system", "posix.system")
    torch.save({"b": Evil(eval, "1")}, folder / "eval_legacy.pt", _use_new_zipfile_serialization=False)
    bad("eval_legacy", "eval")
    torch.save(torch.nn.Linear(2, 2), folder / "module.pt")
    bad("module", "torch.nn.modules.linear.Linear")
    torch.save([torch.ones(2)], folder / "list.pt")
    bad("list", "dict of tensors")
    bad("plain_pickle", "torch.save", content=pickle.dumps({"a": 1}))
    bad("html", "download page", content=b"<!DOCTYPE html><html></html>")
    bad("empty", "torch.save", content=b"")
    bad("other_zip", "data.pkl")
    with zipfile.ZipFile(folder / "other_zip.pt", "w") as other:
        other.writestr("readme.txt", "hello")

    source = good / "views.pt"
    whole = source.read_bytes()
    bad("truncated", "truncated", content=whole[: len(whole) // 2])
    bad("no_end", "truncated", content=whole[:-1])
    bad("cut_pickle", "malformed pickle")
    rezip(source, folder / "cut_pickle.pt", lambda name, data: data[:40] if name.endswith("data.pkl") else data)
    bad("missing_storage", "no data for storage")
    rezip(source, folder / "missing_storage.pt", lambda name, data: None if name.endswith("data/0") else data)
    bad("short_storage", "should have 60 times 4")
    rezip(source, folder / "short_storage.pt", lambda name, data: data[:-4] if name.endswith("data/0") else data)
    bad("big_endian", "byte order")
    rezip(source, folder / "big_endian.pt", lambda name, data: b"big" if name.endswith("byteorder") else data)
    bad("bomb", "cannot be")
    with zipfile.ZipFile(folder / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("x/data.pkl", b"a" * 1000)
    lying = bytearray((folder / "bomb.pt").read_bytes())
    where = lying.rfind(b"PK\x01\x02")
    lying[where + 24 : where + 28] = struct.pack("<I", 0xFFFFFFF0)
    bad("bomb", "cannot be", content=bytes(lying))
    lying[where + 24 : where + 28] = struct.pack("<I", 999)
    bad("lying_size", "damaged", content=bytes(lying))
    legacy = (good / "views_legacy.pt").read_bytes()
    bad("legacy_truncated", "truncated", content=legacy[:-8])
    bad("legacy_cut_pickle", "malformed pickle", content=legacy[:120])

    def with_pickle(name, *needed, code):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("x/data.pkl", code)
            archive.writestr("x/data/0", bytes(16))
        bad(name, *needed, content=stream.getvalue())

    storage = b"((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ"

    def tensor(offset, sizes, strides):
        ints = lambda values: b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", v) for v in values) + b"t"
        return b"\x80\x02}X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n" + storage + ints([offset])[1:-1] + ints(sizes) + ints(strides) + b"\x89NtRs."

    with_pickle("beyond", "beyond its storage", code=tensor(1, [4], [1]))
    with_pickle("beyond_strided", "beyond its storage", code=tensor(0, [2, 2], [3, 1]))
    with_pickle("negative_stride", "out of range", code=tensor(3, [4], [-1]))
    with_pickle("negative_offset", "strides", code=tensor(-1, [2], [1]))
    with_pickle("overflow", "out of range", code=tensor(0, [2**40, 2**40], [0, 0]))
    with_pickle("overflow_stride", "out of range", code=tensor(0, [2**40], [2**40]))
    with_pickle("rank_mismatch", "strides", code=tensor(0, [2, 2], [1]))
    with_pickle("self_reference", "without an end", code=b"\x80\x02}q\0X\x01\0\0\0ah\0s.")
    with_pickle("laughs", "without an end", code=b"\x80\x02]q\0" + b"".join(b"]q" + bytes([i + 1]) + b"(" + b"h" + bytes([i]) + b"h" + bytes([i]) + b"e0" for i in range(40)) + b"}X\x01\0\0\0ah\x28s.")
    with_pickle("deep", "without an end", code=b"\x80\x02}X\x01\0\0\0a" + b"]" * 100000 + b"a" * 99999 + b"s.")
    with_pickle("empty_stack", "malformed pickle", code=b"\x80\x020.")
    with_pickle("no_mark", "malformed pickle", code=b"\x80\x02K\x01t.")
    with_pickle("no_memo", "malformed pickle", code=b"\x80\x02h\x05.")
    with_pickle("huge_memo", "malformed pickle", code=b"\x80\x02Nr\xff\xff\xff\xff.")
    with_pickle("huge_text", "malformed pickle", code=b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xffab.")
    with_pickle("stack_global", "os.system", code=b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85R.")
    with_pickle("build_global", "malformed pickle", code=b"\x80\x02cos\nsystem\n}b.")
    (folder.parent / "bad.json").write_text(json.dumps(words))


def main():
    output = Path(sys.argv[1])
    for name in ("good", "bad"):
        (output / name).mkdir()
    write_good(output / "good")
    write_bad(output / "bad", output / "good")


main()
