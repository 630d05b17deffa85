"""What `prefusion align --dry-run` says of a run's memory.

dry_run.py BINARY WORLD CASE, with WORLD from make_sd_world.py and WORLD/families from make_families.py.
"""

import re
import shutil
import subprocess

from support import check, main

import torch
from transformers import T5Config, T5EncoderModel

WIDTH, INNER, LAYERS = 34, 40000, 10  # of a T5 that is far larger than the denoiser


def with_large_text_encoder(world, scratch):
    """PixArt with a text encoder of 160 MB; returns the folder and those bytes."""
    folder = scratch / "model"
    shutil.copytree(world / "families" / "models" / "pixart", folder)
    shutil.rmtree(folder / "text_encoder")
    vocabulary = T5EncoderModel.from_pretrained(world / "families" / "models" / "pixart" / "text_encoder").config.vocab_size
    with torch.device("meta"):
        encoder = T5EncoderModel(T5Config(vocab_size=vocabulary, d_model=WIDTH, d_kv=6, d_ff=INNER, num_layers=LAYERS, num_heads=3,
                                          feed_forward_proj="gated-gelu"))
    encoder.to_empty(device="cpu")
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.01)
    encoder.save_pretrained(folder / "text_encoder")
    return folder, sum(parameter.numel() * 4 for parameter in encoder.parameters())


def figures(prefusion, **options):
    """Peaks of the steps and before them, in bytes."""
    done = subprocess.run(prefusion.command("align", dict(options, dry_run=True)), capture_output=True, text=True)
    check(done.returncode == 0, done.stderr)
    find = lambda name: float(re.search(name + r" +([\d.]+) GB", done.stdout)[1]) * 1e9
    return find("peak memory"), find("before the steps")


def encoders(prefusion, world, scratch):
    """A run with a cache lets its encoders go before the first step; one without keeps them."""
    folder, large = with_large_text_encoder(world, scratch)
    options = dict(model=folder, data=world / "pairs.parquet", steps=1, resolution=64)
    steps, before = figures(prefusion, **options)
    check(before - steps > 0.8 * large, f"steps {steps}, before them {before}: the encoder's {large} bytes are in both or none")
    kept, before_kept = figures(prefusion, **options, no_cache=True)
    check(kept - steps > 0.8 * large, f"without a cache {kept}, with one {steps}: the encoder's {large} bytes should stay")
    check(abs(before_kept - before) < 0.5 * large, f"before the steps {before_kept} without a cache, {before} with one")


main({"encoders": encoders})
