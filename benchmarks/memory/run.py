"""Compares the peak memory that `prefusion align --dry-run` says with that of the run itself, for every family of models.

    .venv/bin/python benchmarks/memory/run.py [--prefusion build/prefusion] [--only sd flux] [--work FOLDER]

Makes small models (denoisers of 50 to 300 MB with random weights, tiny encoders) with diffusers, and pairs of pictures. Every
combination of family, LoRA or all weights, and activations kept or recomputed is run twice, one process at a time: as a dry run,
and for three steps, the data encoded first. One model more has a text encoder that is larger than its denoiser; models of Stable
Diffusion are also trained beside weights in bytes, and with their text encoders. Prints a table: what was said of encoding and of
the steps, the largest resident memory of the run (VmHWM of its process), and the ratio of the larger to it.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from peak_memory import peak_of, said_peaks

REFERENCE = ROOT / "tests" / "reference"
RESOLUTION = 256

# What is changed in the config of each small denoiser to make it a larger one.
UNET = dict(block_out_channels=(128, 256, 384), layers_per_block=1, norm_num_groups=32, sample_size=RESOLUTION // 8)
LARGER = {
    "sd": dict(**UNET, attention_head_dim=8, down_block_types=("CrossAttnDownBlock2D",) * 2 + ("DownBlock2D",),
               up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 2),
    "sdxl": dict(**UNET, attention_head_dim=(4, 4, 8), transformer_layers_per_block=(1, 1, 4),
                 down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                 up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")),
    "sd3": dict(num_layers=7, num_attention_heads=6, attention_head_dim=64, caption_projection_dim=384, pos_embed_max_size=32),
    "flux": dict(num_layers=3, num_single_layers=6, num_attention_heads=6, attention_head_dim=64, axes_dims_rope=(16, 24, 24)),
    "pixart": dict(num_layers=12, num_attention_heads=6, attention_head_dim=64, cross_attention_dim=384),
}
LARGER["pixart_t5"] = dict(LARGER["pixart"], caption_channels=256)
LARGER["dit"] = dict(num_layers=12, num_attention_heads=6, attention_head_dim=64, num_embeds_ada_norm=1000,
                     sample_size=RESOLUTION // 8, out_channels=8)
LARGE_T5 = dict(d_model=256, d_ff=16384, num_layers=10, num_heads=4, d_kv=64)

# What is trained, and how it is said.
TRAINED = {"LoRA": ["--adapter", "lora"], "all": ["--adapter", "full"]}
TRAINED_TOO = {"sd": {"LoRA, base in int8": ["--adapter", "lora", "--base-dtype", "int8"]},
               "sdxl": {"LoRA, base in int8": ["--adapter", "lora", "--base-dtype", "int8"],
                        "LoRA, text encoders too": ["--adapter", "lora", "--train-text-encoder"]}}


def make_dit(folder, pixart, data):
    """PixArt's parts without text; the captions of the data are the names of classes."""
    import diffusers
    import pyarrow.parquet

    shutil.copytree(pixart, folder, ignore=shutil.ignore_patterns("text_encoder", "tokenizer", "transformer"))
    index = json.loads((folder / "model_index.json").read_text())
    captions = sorted(set(pyarrow.parquet.read_table(data, columns=["caption"])["caption"].to_pylist()))
    index = {key: value for key, value in index.items() if not key.startswith(("text_encoder", "tokenizer"))}
    index |= dict(_class_name="DiTPipeline", transformer=["diffusers", "DiTTransformer2DModel"],
                  id2label={str(number): caption for number, caption in enumerate(captions)})
    (folder / "model_index.json").write_text(json.dumps(index))
    diffusers.DiTTransformer2DModel(**LARGER["dit"]).save_pretrained(folder / "transformer")
    (folder / "transformer" / "larger").touch()


def make_models(work):
    """The models of the tests, with larger denoisers; returns their folders."""
    import diffusers
    import transformers

    world, families = work / "world", work / "families"
    for script, folder in (("make_sd_world.py", world), ("make_families.py", families)):
        if not (folder / "done").exists():
            folder.mkdir(parents=True, exist_ok=True)
            subprocess.run([sys.executable, REFERENCE / script, folder], check=True, stdout=subprocess.DEVNULL)
            (folder / "done").touch()
    folders = {}
    for name, changes in LARGER.items():
        folder = world / "models" / "epsilon" if name == "sd" else families / "models" / name
        if name == "dit" and not folder.exists():
            make_dit(folder, families / "models" / "pixart", world / "pairs.parquet")
        if name == "pixart_t5" and not folder.exists():
            shutil.copytree(families / "models" / "pixart", folder)
            (folder / "transformer" / "larger").unlink(missing_ok=True)
            shutil.rmtree(folder / "text_encoder")
            old = transformers.T5Config.from_pretrained(families / "models" / "pixart" / "text_encoder").to_dict()
            transformers.T5EncoderModel(transformers.T5Config(**{**old, **LARGE_T5})).save_pretrained(folder / "text_encoder")
        component = folder / ("transformer" if (folder / "transformer").exists() else "unet")
        folders[name] = folder
        if (component / "larger").exists():
            continue
        config = json.loads((component / "config.json").read_text())
        network = getattr(diffusers, config["_class_name"]).from_config({**config, **changes})
        for old in component.glob("*.safetensors"):
            old.unlink()
        network.save_pretrained(component)
        (component / "larger").touch()
    return folders, world / "pairs.parquet"


def measure(prefusion, folder, data, work, trained, recomputes):
    common = [prefusion, "align", "--model", folder, "--data", data, "--resolution", RESOLUTION, *trained, "--batch-size", 1,
              "--steps", 3, "--eval-every", 0, "--no-hflip", "--threads", 1, "--quiet", "--lr", 1e-5]
    common += ["--gradient-checkpointing"] if recomputes else []
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        output = ["--output", pathlib.Path(scratch) / "run"]
        said = peak_of([*common, *output, "--dry-run"])[2]
        actual = peak_of([*common, *output])[0]
    return *said_peaks(said), actual / 1e9


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prefusion", default=ROOT / "build" / "prefusion", type=pathlib.Path)
    parser.add_argument("--only", nargs="+", choices=LARGER, default=list(LARGER), help="families to measure")
    parser.add_argument("--work", type=pathlib.Path, help="folder that keeps the models; by default a temporary one")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or pathlib.Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        folders, data = make_models(work)
        print("| model | denoiser, MB | trains | activations | encoding, GB | steps, GB | run, GB | larger / run |")
        print("|---|---|---|---|---|---|---|---|")
        for name in options.only:
            folder = folders[name]
            size = sum(path.stat().st_size for path in folder.glob("*/diffusion_pytorch_model*.safetensors")
                       if path.parent.name != "vae") / 1e6
            for what, trained in {**TRAINED, **TRAINED_TOO.get(name, {})}.items():
                for recomputes in (False, True):
                    encoding, steps, actual = measure(options.prefusion, folder, data, work, trained, recomputes)
                    print(f"| {name} | {size:.0f} | {what} | {'recomputed' if recomputes else 'kept'} | {encoding:.3f} | "
                          f"{steps:.3f} | {actual:.3f} | {max(encoding, steps) / actual:.2f} |", flush=True)


if __name__ == "__main__":
    main()
