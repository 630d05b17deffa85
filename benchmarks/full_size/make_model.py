"""Model folders of benchmarks/geometries with random weights, written tensor by tensor: no network is ever whole in memory."""

import json
import math
import pathlib
import shutil
import sys

import diffusers
import torch
import transformers
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
GEOMETRIES = ROOT / "benchmarks" / "geometries"
sys.path += [str(ROOT / "benchmarks" / "peer"), str(ROOT / "tests" / "reference")]

import t5_vocabulary
from clip_tokenizer import write_tokenizer

SHARD_BYTES = 2_000_000_000
T5_PIECES = 700  # of the tokenizer: fewer than the encoder's embedding has rows


def network_of(config):
    """On the meta device: names and shapes without memory."""
    with torch.device("meta"):
        if "_class_name" in config:
            return getattr(diffusers, config["_class_name"]).from_config(config)
        cls = getattr(transformers, config["architectures"][0])
        return cls(cls.config_class(**config))


def tensors_of(config):
    """(name in public files, shape)"""
    for name, tensor in network_of(config).state_dict().items():
        if name == "encoder.embed_tokens.weight":  # T5's other name for `shared`
            continue
        has_no_prefix = config.get("model_type") == "clip_text_model" and not name.startswith("text_")
        yield ("text_model." if has_no_prefix else "") + name, tensor.shape


class RandomTensors:
    """Normal numbers from a pool that is drawn once: billions of new ones would take minutes."""

    POOL = 1 << 24

    def __init__(self, dtype):
        self.dtype = dtype
        self.pool = torch.randn(self.POOL, generator=torch.Generator().manual_seed(0)).to(dtype).repeat(2)
        self.begin = 0

    def make(self, name, shape):
        """Ones for the scales of norms, zeros for biases, and else what keeps activations near one."""
        if len(shape) == 1:
            return (torch.zeros if name.endswith("bias") else torch.ones)(shape, dtype=self.dtype)
        count = math.prod(shape)
        std = min(0.02, 1 / math.sqrt(math.prod(shape[1:])))
        self.begin = (self.begin + 7919) % self.POOL  # each tensor starts elsewhere
        tensor = torch.empty(count, dtype=self.dtype)
        for part in tensor.split(self.POOL):
            torch.mul(self.pool[self.begin : self.begin + len(part)], std, out=part)
        return tensor.view(shape)


def write_weights(folder, config, dtype):
    """Shards with an index, as diffusers and transformers write them. Returns the number of parameters."""
    stem = "diffusion_pytorch_model" if "_class_name" in config else "model"
    numbers = RandomTensors(dtype)
    shards = [[]]
    size = 0
    for name, shape in tensors_of(config):
        size += math.prod(shape) * dtype.itemsize
        if size > SHARD_BYTES:
            shards.append([])
            size = math.prod(shape) * dtype.itemsize
        shards[-1].append((name, shape))
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        file = f"{stem}.safetensors" if len(shards) == 1 else f"{stem}-{number:05}-of-{len(shards):05}.safetensors"
        save_file({name: numbers.make(name, shape) for name, shape in shard}, folder / file)
        weight_map |= {name: file for name, _ in shard}
    if len(shards) > 1:
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return sum(math.prod(shape) for shard in shards for _, shape in shard)


def write_t5_tokenizer(folder):
    (folder / "spiece.model").write_bytes(t5_vocabulary.train(T5_PIECES))


def make_model(geometry, folder, changes, dtype):
    """The folder of a geometry; `changes` are those of components' configs. Returns parameters by component."""
    shutil.copytree(GEOMETRIES / geometry, folder)
    parameters = {}
    for component, value in json.loads((folder / "model_index.json").read_text()).items():
        if not isinstance(value, list) or value[1] is None:
            continue
        path = folder / component
        if "Tokenizer" in value[1]:
            path.mkdir()
            (write_t5_tokenizer if value[1].startswith("T5") else write_tokenizer)(path)
        elif (path / "config.json").exists():
            config = json.loads((path / "config.json").read_text()) | changes.get(component, {})
            (path / "config.json").write_text(json.dumps(config, indent=1))
            parameters[component] = write_weights(path, config, dtype)
    return parameters
