"""Conversion between single files and diffusers folders, between LoRA dialects, and merging.

convert.py BINARY WORLD CASE, with WORLD from make_sd_world.py and WORLD/single from make_single_files.py.
"""

import inspect
import json
import pathlib
import shutil
import subprocess

from support import check, main, snapshot

import torch
from safetensors.torch import load_file, save_file

FAMILIES = ["sd1", "sd1_odd", "sd2", "sdxl", "sdxl_refiner", "sd3", "sd3.5", "flux", "flux_odd"]
NETWORKS = ["unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"]


def weights_of(folder):
    files = list(folder.glob("*.safetensors"))
    check(len(files) == 1, f"{folder}: {files}")
    return load_file(files[0])


def networks_of(folder):
    return {name: weights_of(folder / name) for name in NETWORKS if (folder / name).is_dir()}


def classic(name, weights):
    """CLIP's names with the prefix that transformers 5 leaves out."""
    def renamed(key):
        return "text_model." + key if key.startswith(("embeddings.", "encoder.layers.", "final_layer_norm.")) else key

    return {renamed(key): tensor for key, tensor in weights.items()} if name.startswith("text_encoder") else weights


def check_same(found, expected, what):
    check(found.keys() == expected.keys(), f"{what}: names differ: {sorted(found.keys() ^ expected.keys())[:6]}")
    for key, tensor in expected.items():
        same = found[key].dtype == tensor.dtype and torch.equal(found[key], tensor)
        check(same, f"{what}: {key} {tuple(found[key].shape)} differs from {tuple(tensor.shape)}")


def listing_of(prefusion, **options):
    """What a run prints on standard output."""
    done = subprocess.run(prefusion.command("convert", options), capture_output=True, text=True)
    check(done.returncode == 0, done.stderr)
    return done.stdout


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def diffusers_conversion(family, name, folder, checkpoint):
    """What diffusers' own converter makes of the file for one network."""
    from diffusers.loaders import single_file_utils as utils
    from transformers import CLIPTextConfig

    checkpoint = dict(checkpoint)
    if name == "unet":
        return utils.convert_ldm_unet_checkpoint(checkpoint, config_of(folder / name))
    if name == "vae":
        return utils.convert_ldm_vae_checkpoint(checkpoint, config_of(folder / name))
    if name == "transformer":
        denoiser = {key: value for key, value in checkpoint.items() if not key.startswith(("vae.", "text_enc", "first_"))}
        if family.startswith("sd3"):
            return utils.convert_sd3_transformer_checkpoint_to_diffusers(denoiser)
        # Its width is written into the function.
        config = config_of(folder / name)
        width = config["attention_head_dim"] * config["num_attention_heads"]
        function = utils.convert_flux_transformer_checkpoint_to_diffusers
        source = inspect.getsource(function).replace("inner_dim = 3072", f"inner_dim = {width}")
        scope = {"torch": torch}
        exec(source, scope)
        return scope[function.__name__](denoiser)
    prefix = {
        "sd1": {"text_encoder": "cond_stage_model.transformer."},
        "sd2": {"text_encoder": "cond_stage_model.model."},
        "sdxl": {"text_encoder": "conditioner.embedders.0.transformer.", "text_encoder_2": "conditioner.embedders.1.model."},
        "sdxl_refiner": {"text_encoder_2": "conditioner.embedders.0.model."},
        "flux": {"text_encoder": "text_encoders.clip_l.transformer.", "text_encoder_2": "text_encoders.t5xxl.transformer."},
        "sd3": {
            "text_encoder": "text_encoders.clip_l.transformer.",
            "text_encoder_2": "text_encoders.clip_g.transformer.",
            "text_encoder_3": "text_encoders.t5xxl.transformer.",
        },
    }[family.removesuffix("_odd")][name]
    if prefix.endswith(".model."):
        config = CLIPTextConfig.from_pretrained(folder / name)
        return utils.convert_open_clip_checkpoint(type("Model", (), {"config": config}), checkpoint, prefix=prefix)
    if "t5xxl" in prefix:
        return utils.convert_sd3_t5_checkpoint_to_diffusers(checkpoint)
    own = {key: value for key, value in checkpoint.items() if key.startswith(prefix)}
    return utils.convert_ldm_clip_checkpoint(own, remove_prefix=prefix)


def single_files(prefusion, world, scratch):
    for family in FAMILIES:
        folder = world / "single" / family
        file, back, again = scratch / f"{family}.safetensors", scratch / family, scratch / "again.safetensors"
        prefusion.run("convert", model=folder, output=file)
        checkpoint = load_file(file)
        expected = networks_of(folder)
        for name, weights in expected.items():
            found = diffusers_conversion(family, name, folder, checkpoint)
            check_same(found, classic(name, weights), f"{family}: diffusers' conversion of {name}")
        prefusion.run("convert", model=file, model_config=folder, output=back)
        for name, weights in networks_of(back).items():
            check_same(weights, classic(name, expected[name]), f"{family}: {name} after a round trip")
            check(config_of(back / name) == config_of(folder / name), f"{family}: the config of {name} is the folder's")
        check(networks_of(back).keys() == expected.keys(), f"{family}: networks")
        for part in ("model_index.json", "scheduler/scheduler_config.json"):
            check(json.loads((back / part).read_text()) == json.loads((folder / part).read_text()), f"{family}: {part}")
        for tokenizer in folder.glob("tokenizer*"):
            check(snapshot(back / tokenizer.name) == snapshot(tokenizer), f"{family}: {tokenizer.name}")
        prefusion.run("convert", model=back, output=again, overwrite=True)
        check(again.read_bytes() == file.read_bytes(), f"{family}: the file after a round trip")


def in_scratch(world, scratch, family):
    """A copy of a small model, its single file, and the two as dicts."""
    return pathlib.Path(shutil.copytree(world / "single" / family, scratch / family))


def checkpoints(prefusion, world, scratch):
    """What training scripts leave in files: pickles, averages, schedules, half precision."""
    folder = world / "single" / "sd1"
    file, pickle = scratch / "sd1.safetensors", scratch / "sd1.ckpt"
    prefusion.run("convert", model=folder, output=file, dtype="fp16")
    tensors = load_file(file)
    check(all(t.dtype == torch.float16 for t in tensors.values()), "--dtype fp16")
    expected = networks_of(folder)
    half = {name: {key: t.half() for key, t in classic(name, w).items()} for name, w in expected.items()}
    averages = {}
    for key, tensor in tensors.items():
        if key.startswith("model.diffusion_model."):
            averages["model_ema." + key.removeprefix("model.").replace(".", "")] = tensor * 2
    extra = {**averages, "betas": torch.zeros(1000), "model_ema.decay": torch.ones(()), "logvar": torch.zeros(3)}
    torch.save({"state_dict": {**tensors, **extra}, "global_step": 7, "pytorch-lightning_version": "1.6"}, pickle)
    for options, factor in (({}, 1), ({"ema": True}, 2)):
        text = prefusion.run("convert", model=pickle, config=folder, output=scratch / "out", overwrite=True, **options)
        found = networks_of(scratch / "out")
        for name, weights in half.items():
            wanted = {k: t * (factor if name == "unet" else 1) for k, t in weights.items()}
            check_same(found[name], wanted, f"{name} of the pickle, {options}")
        check("left out" in text and "model_ema" in text, "what is left out is said")
    prefusion.run("convert", model=pickle, output=scratch / "clean.safetensors")
    check_same(load_file(scratch / "clean.safetensors"), tensors, "a pickle as safetensors")
    # Weights of a stranger are read, never run.
    (scratch / "bad.ckpt").write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    expect(prefusion, 3, "bad.ckpt", model=scratch / "bad.ckpt", output=scratch / "x.safetensors")


def spread(value):
    """A number and a list of nothing but it mean the same."""
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return values[0] if len(set(map(str, values))) == 1 else values


def inferred(prefusion, world, scratch):
    """Without --config the shapes tell the configs, and diffusers loads what comes out."""
    import diffusers

    for family in ("sd1", "sd2", "sdxl", "sdxl_refiner", "sd3", "flux"):
        folder = world / "single" / family
        file = scratch / f"{family}.safetensors"
        prefusion.run("convert", model=folder, output=file)
        networks = {k: t for k, t in load_file(file).items() if not k.startswith(("cond", "text_encoders."))}
        save_file(networks, file)
        out = scratch / family
        text = prefusion.run("convert", model=file, output=out)
        check("no pipeline" in text, f"{family}: said to be incomplete: {text}")
        denoiser = "unet" if (out / "unet").exists() else "transformer"
        check(not (out / "model_index.json").exists(), "networks alone are no pipeline")
        for name in (denoiser, "vae"):
            network_class = getattr(diffusers, config_of(out / name)["_class_name"])
            found = network_class.from_pretrained(out / name)
            wanted = network_class.from_pretrained(folder / name)
            check_same(found.state_dict(), wanted.state_dict(), f"{family}: {name}")
            # The scale of latents and the size of pictures are the published ones, not those of the small model.
            published = {"sample_size", "scaling_factor", "shift_factor", "upcast_attention", "dropout"}
            for key, value in wanted.config.items():
                same = key.startswith("_") or key in published or spread(found.config[key]) == spread(value)
                check(same, f"{family}: {name}: {key} is {found.config.get(key)}, expected {value}")
    listing = listing_of(prefusion, model=scratch / "flux.safetensors", dry_run=True)
    check("FLUX.1" in listing and '"num_single_layers":3' in listing and "guidance_embeds" in listing, listing)
    check(not (scratch / "none").exists(), "a dry run writes nothing")
    # A fine-tuned denoiser and the rest of its pipeline.
    prefusion.run("convert", model=scratch / "flux.safetensors", config=world / "single" / "flux", output=scratch / "whole")
    check(networks_of(scratch / "whole").keys() == networks_of(world / "single" / "flux").keys(), "completed")
    check((scratch / "whole" / "model_index.json").exists(), "a complete pipeline")


def expect(prefusion, exit_code, mentions, **options):
    text = prefusion.run("convert", exit_code=exit_code, **options)
    for part in [mentions] if isinstance(mentions, str) else mentions:
        check(part in text.splitlines()[-1], f"the error does not mention {part!r}: {text}")


def refusals(prefusion, world, scratch):
    single = world / "single"
    file = scratch / "sd1.safetensors"
    prefusion.run("convert", model=single / "sd1", output=file)
    tensors = load_file(file)
    out = scratch / "out"

    def broken(name, **changes):
        """The file without, or with other, tensors."""
        changed = {k: t for k, t in {**tensors, **changes}.items() if t is not None}
        save_file(changed, scratch / name)
        return scratch / name

    expect(prefusion, 3, ("tokenizer", "--config"), model=file, output=out)
    expect(prefusion, 3, ("FLUX.1", "Stable Diffusion 1.x"), model=file, config=single / "flux", output=out)
    conv = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"
    expect(prefusion, 3, "down_blocks.0.resnets.0.conv1.weight", model=broken("a.safetensors", **{conv: None}),
           config=single / "sd1", output=out)
    expect(prefusion, 3, ("down_blocks.0.resnets.0.conv1.weight", "[32, 32, 1, 1]"), config=single / "sd1", output=out,
           model=broken("b.safetensors", **{conv: torch.zeros(32, 32, 1, 1)}))
    stray = "model.diffusion_model.input_blocks.1.0.stray.weight"
    expect(prefusion, 3, "stray", model=broken("c.safetensors", **{stray: torch.zeros(2)}), output=scratch / "d.safetensors")
    save_file({"a": torch.zeros(2)}, scratch / "e.safetensors")
    expect(prefusion, 3, "no single-file checkpoint", model=scratch / "e.safetensors", output=out)
    cut = scratch / "cut.safetensors"
    cut.write_bytes(file.read_bytes()[:-5])
    expect(prefusion, 3, "cut.safetensors", model=cut, output=out)
    odd = scratch / "odd.safetensors"
    prefusion.run("convert", model=single / "sd1_odd", output=odd)
    expect(prefusion, 3, "--config", model=odd, output=out)
    expect(prefusion, 3, "absent", model=scratch / "absent", output=out)
    expect(prefusion, 2, "exists already", model=single / "sd1", output=file)
    expect(prefusion, 2, "--model", output=out)
    expect(prefusion, 2, "folder", model=file, output=scratch / "x.safetensors", format="diffusers")
    expect(prefusion, 2, "one FILE.safetensors", model=single / "sd1", output=scratch / "x", format="original")
    expect(prefusion, 2, "single files", model=single / "sd1", prediction_type="epsilon", output=out)
    expect(prefusion, 2, "pickles", model=single / "sd1", output=scratch / "x.ckpt")
    expect(prefusion, 2, "--strength", model=file, strength=2, output=out)
    flux = scratch / "flux.safetensors"
    prefusion.run("convert", model=single / "flux", output=flux)
    expect(prefusion, 2, "flow", model=flux, prediction_type="epsilon", output=out)
    expect(prefusion, 3, "--base", model=single / "sd1", base=single / "sd2", strength=0.5, output=out)
    left = [path.name for path in scratch.iterdir() if path.name.startswith(".")]
    check(not out.exists() and not left, f"refused conversions leave nothing: {left}")


def interpolation(prefusion, world, scratch):
    aligned = world / "single" / "sd1"
    base = in_scratch(world, scratch, "sd1")
    for name, weights in networks_of(base).items():
        file = next((base / name).glob("*.safetensors"))
        torch.manual_seed(3)
        save_file({k: t + 0.1 * torch.randn_like(t) if name == "unet" else t for k, t in weights.items()}, file)
    tensors, start = weights_of(aligned / "unet"), weights_of(base / "unet")
    for strength in (0, 0.3, 1, 2.5):
        out = scratch / f"out{strength}"
        prefusion.run("convert", model=aligned, base=base, strength=strength, output=out)
        found = weights_of(out / "unet")
        if strength in (0, 1):
            check_same(found, tensors if strength else start, f"strength {strength}")
            continue
        for key, tensor in tensors.items():
            wanted = start[key].double() + strength * (tensor.double() - start[key].double())
            check((found[key] - wanted).abs().max() <= 1e-6 * max(1, wanted.abs().max()), f"strength {strength}: {key}")
        check_same(weights_of(out / "vae"), weights_of(base / "vae"), "what is the same in both stays")
        check(snapshot(out / "tokenizer") == snapshot(aligned / "tokenizer"), "the tokenizer is copied")
    # Either may be a single file.
    prefusion.run("convert", model=base, output=scratch / "base.safetensors")
    prefusion.run("convert", model=aligned, base=scratch / "base.safetensors", strength=2.5, output=scratch / "again")
    check_same(weights_of(scratch / "again" / "unet"), weights_of(scratch / "out2.5" / "unet"), "a base in one file")


if __name__ == "__main__":
    main({name: globals()[name] for name in ("single_files", "checkpoints", "inferred", "interpolation", "refusals")})
