"""LoRA dialects, merging into models and into one another.

convert_lora.py BINARY WORLD CASE, with WORLD from make_sd_world.py and WORLD/single from make_single_files.py.
"""

import inspect
import json

from convert import classic, expect, networks_of, weights_of
from support import check, main

import torch
from diffusers.loaders import lora_conversion_utils as conversions
from safetensors import safe_open
from safetensors.torch import load_file, save_file


def random_lora(single, family, components, targets, rank=4, alpha=6.0, seed=0, dtype=torch.float32):
    """(tensors in diffusers' names, metadata) of a LoRA on the layers that end with a target."""
    random = torch.Generator().manual_seed(seed)
    tensors, description = {}, {}
    for component in components:
        weights = classic(component, weights_of(single / family / component))
        names = [key.removesuffix(".weight") for key in weights if key.endswith(".weight")]
        names = sorted(name for name in names if name.endswith(targets))
        check(names, f"{component} has layers named {targets}")
        for name in names:
            shape = weights[name + ".weight"].shape
            tensors[f"{component}.{name}.lora_A.weight"] = torch.randn(rank, *shape[1:], generator=random).to(dtype)
            up = torch.randn(shape[0], rank, *[1] * (len(shape) - 2), generator=random)
            tensors[f"{component}.{name}.lora_B.weight"] = up.to(dtype)
        description.update({f"{component}.r": rank, f"{component}.lora_alpha": alpha, f"{component}.target_modules": names})
    return tensors, {"format": "pt", "lora_adapter_metadata": json.dumps(description)}


def deltas(tensors, alpha=6.0):
    """What a LoRA in diffusers' names adds to each layer."""
    added = {}
    for key, down in tensors.items():
        if not key.endswith(".lora_A.weight"):
            continue
        layer = key.removesuffix(".lora_A.weight")
        up = tensors[layer + ".lora_B.weight"].double()
        flat = up.reshape(up.shape[0], -1) @ down.double().reshape(down.shape[0], -1)
        added[layer] = flat * alpha / down.shape[0]
    return added


def check_deltas(found, expected, what, tolerance=1e-5):
    found = {key: delta for key, delta in found.items() if delta.abs().max() > 0}
    check(found.keys() == expected.keys(), f"{what}: layers {sorted(found.keys() ^ expected.keys())[:6]}")
    for key, delta in expected.items():
        error = (found[key] - delta).abs().max() / delta.abs().max()
        check(error <= tolerance, f"{what}: {key} differs by {error:.1e}")


def from_kohya(tensors):
    """What a file in kohya's names adds, by diffusers' own renaming, which keeps alphas apart."""
    converted, alphas = conversions._convert_non_diffusers_lora_to_diffusers(dict(tensors))
    added = {}
    for key, down in converted.items():
        for old, mid in (("_lora.down.weight", "_lora.up.weight"), (".lora.down.weight", ".lora.up.weight"),
                         (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight")):
            if not key.endswith(old):
                continue
            up = converted[key.removesuffix(old) + mid]
            layer = key.removesuffix(old).replace(".processor", "")
            alpha = next(v for k, v in alphas.items() if k.removesuffix(".down.weight.alpha").removesuffix(".alpha").replace(".processor", "").startswith(layer))
            names = ("q_proj", "k_proj", "v_proj", "out_proj") if "self_attn" in layer else ("to_q", "to_k", "to_v", "to_out.0")
            for name, public in zip(("to_q", "to_k", "to_v", "to_out"), names):
                layer = layer.removesuffix("." + name) + "." + public if layer.endswith("." + name) else layer
            flat = up.double().reshape(up.shape[0], -1) @ down.double().reshape(down.shape[0], -1)
            added[layer] = flat * alpha / down.shape[0]
    return added


def from_flux(tensors, width):
    """What a FLUX LoRA in kohya's or ComfyUI's names adds, by diffusers' conversion; it folds alpha into the tensors."""
    function = conversions._convert_kohya_flux_lora_to_diffusers
    source = inspect.getsource(function).replace("[3072, 3072, 3072, 12288]", f"[{width}] * 3 + [{4 * width}]")
    scope = {**vars(conversions)}
    exec(source, scope)
    if any(key.startswith("diffusion_model.") for key in tensors):
        # ComfyUI's own files have kohya's suffixes behind names with dots.
        tensors = {conversions._custom_replace(k, [".lora_down", ".lora_up", ".alpha"]) if "." in k else k: v
                   for k, v in tensors.items()}
    converted = {key: t for key, t in scope[function.__name__](dict(tensors)).items()}
    added = {}
    for key, down in converted.items():
        if key.endswith(".lora_A.weight"):
            layer = key.removesuffix(".lora_A.weight")
            name = layer if layer.startswith("transformer.") else "transformer." + layer
            added[name] = converted[layer + ".lora_B.weight"].double() @ down.double()
    return added


def same_tensors(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


def round_trip(prefusion, scratch, source, tensors, via, **options):
    """source -> dialect -> diffusers; returns the tensors in the dialect."""
    out = scratch / "peft" if via == "peft" else scratch / f"{via}.safetensors"
    back = scratch / "back.safetensors"
    prefusion.run("convert", lora=source, lora_format=via, output=out, overwrite=True, **options)
    prefusion.run("convert", lora=out, output=back, overwrite=True, **options)
    check(same_tensors(load_file(back), tensors), f"tensors after a way over {via}")
    with safe_open(back, "pt") as file:
        description = json.loads(file.metadata()["lora_adapter_metadata"])
    check(all(value == 6 for key, value in description.items() if key.endswith("lora_alpha")), f"alphas: {description}")
    return load_file(out / "adapter_model.safetensors" if via == "peft" else out)


ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "q_proj", "v_proj")


def dialects(prefusion, world, scratch):
    single, source = world / "single", scratch / "source.safetensors"
    # Stable Diffusion 1: kohya names the blocks as diffusers does.
    targets = (*ATTENTION, "conv1", "conv2", "proj_in", "ff.net.0.proj", "time_emb_proj", "downsamplers.0.conv")
    tensors, metadata = random_lora(single, "sd1", ["unet", "text_encoder"], targets)
    save_file(tensors, source, metadata)
    kohya = round_trip(prefusion, scratch, source, tensors, "kohya")
    check("lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight" in kohya, "kohya's text encoder")
    attention = {key: t for key, t in kohya.items() if "_attn" in key}
    wanted = {key: delta for key, delta in deltas(tensors).items() if "attn" in key}
    check_deltas(from_kohya(attention), wanted, "diffusers reads kohya")
    for blocks in ("sgm", "diffusers"):
        named = round_trip(prefusion, scratch, source, tensors, "kohya", kohya_blocks=blocks, model_config=single / "sd1")
        has_sgm = "lora_unet_input_blocks_1_1_proj_in.alpha" in named
        check(has_sgm == (blocks == "sgm"), f"blocks {blocks}")
    round_trip(prefusion, scratch, source, tensors, "comfyui", model_config=single / "sd1")
    # PEFT's folder loads in PEFT.
    tensors, metadata = random_lora(single, "sd1", ["unet"], ATTENTION)
    save_file(tensors, source, metadata)
    round_trip(prefusion, scratch, source, tensors, "peft")
    from diffusers import UNet2DConditionModel
    from peft import PeftModel

    unet = UNet2DConditionModel.from_pretrained(single / "sd1" / "unet")
    start = {key: tensor.clone() for key, tensor in unet.state_dict().items()}
    merged = PeftModel.from_pretrained(unet, scratch / "peft").merge_and_unload().state_dict()
    found = {"unet." + key.removesuffix(".weight"): (merged[key].double() - start[key]).flatten(1)
             for key in start if key.endswith(".weight") and not torch.equal(merged[key], start[key])}
    check_deltas(found, deltas(tensors), "PEFT", tolerance=1e-4)


def sdxl_dialects(prefusion, world, scratch):
    single, source = world / "single", scratch / "source.safetensors"
    tensors, metadata = random_lora(single, "sdxl", ["unet", "text_encoder", "text_encoder_2"], ATTENTION, dtype=torch.float16)
    save_file(tensors, source, metadata)
    kohya = round_trip(prefusion, scratch, source, tensors, "kohya", model_config=single / "sdxl")
    check("lora_te1_text_model_encoder_layers_0_self_attn_q_proj.alpha" in kohya, "the first text encoder")
    check("lora_te2_text_model_encoder_layers_1_self_attn_v_proj.alpha" in kohya, "the second text encoder")
    check("lora_unet_input_blocks_3_1_transformer_blocks_1_attn1_to_q.alpha" in kohya, "kohya's numbers of blocks")
    config = type("Config", (), {"layers_per_block": 1})
    mapped = conversions._maybe_map_sgm_blocks_to_diffusers(dict(kohya), config)
    check_deltas(from_kohya(mapped), deltas(tensors), "diffusers reads kohya's SDXL")


def flux_dialects(prefusion, world, scratch):
    single, source = world / "single", scratch / "source.safetensors"
    everything = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
                  "ff.net.0.proj", "ff_context.net.2", "norm1.linear", "proj_mlp", "x_embedder", "q_proj")
    tensors, metadata = random_lora(single, "flux", ["transformer", "text_encoder"], everything)
    save_file(tensors, source, metadata)
    wanted = {k: d for k, d in deltas(tensors).items() if k.startswith("transformer.")}
    for via in ("kohya", "comfyui"):
        named = round_trip(prefusion, scratch, source, tensors, via)
        denoiser = {k: t for k, t in named.items() if k.startswith(("lora_unet_", "diffusion_model."))}
        if via == "kohya":
            check(denoiser["lora_unet_single_blocks_0_linear1.lora_down.weight"].shape[0] == 16, "packed of four parts")
            check_deltas(from_flux(denoiser, 128), wanted, f"diffusers reads {via}")
        else:
            check("diffusion_model.double_blocks.1.img_attn.qkv.lora_up.weight" in denoiser, "names of the original")
    # Parts that share A, as trainers of the original layout make them.
    packed = {}
    random = torch.Generator().manual_seed(4)
    for name, rows in (("double_blocks_0_img_attn_qkv", 384), ("single_blocks_1_linear1", 896), ("final_layer_adaLN_modulation_1", 256)):
        packed[f"lora_unet_{name}.lora_down.weight"] = torch.randn(5, 128, generator=random)
        packed[f"lora_unet_{name}.lora_up.weight"] = torch.randn(rows, 5, generator=random)
        packed[f"lora_unet_{name}.alpha"] = torch.tensor(2.5)
    save_file(packed, scratch / "packed.safetensors")
    prefusion.run("convert", lora=scratch / "packed.safetensors", output=scratch / "apart.safetensors")
    apart = load_file(scratch / "apart.safetensors")
    own = {k: t for k, t in packed.items() if "final_layer" not in k}
    found = deltas({k: t for k, t in apart.items() if "norm_out" not in k}, alpha=2.5)
    check_deltas(found, from_flux(own, 128), "packed layers apart")
    up = packed["lora_unet_final_layer_adaLN_modulation_1.lora_up.weight"]
    check(torch.equal(apart["transformer.norm_out.linear.lora_B.weight"], up.roll(128, 0)), "shift and scale change places")
    prefusion.run("convert", lora=scratch / "apart.safetensors", lora_format="kohya", output=scratch / "again.safetensors")
    check(same_tensors(load_file(scratch / "again.safetensors"), packed), "a shared A stays shared")
    # Query alone: the other rows are zeros, and vanish again.
    alone = {k: t for k, t in tensors.items() if ".attn.to_q." in k and ".transformer_blocks." in k}
    save_file(alone, source, metadata)
    named = round_trip(prefusion, scratch, source, alone, "kohya", model_config=single / "flux")
    check(named["lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight"][128:].count_nonzero() == 0, "zeros for the rest")


def merged(prefusion, world, scratch):
    single = world / "single"
    cases = (("sd1", ["unet", "text_encoder"], ("to_q", "to_v", "conv1", "q_proj", "proj_in")),
             ("sd3", ["transformer"], ("to_q", "add_k_proj", "ff.net.2", "norm1_context.linear")),
             ("flux", ["transformer"], ("to_k", "proj_mlp", "to_out.0", "norm_out.linear")))
    for family, components, targets in cases:
        tensors, metadata = random_lora(single, family, components, targets)
        lora = scratch / f"{family}-lora.safetensors"
        save_file(tensors, lora, metadata)
        other = scratch / f"{family}-kohya.safetensors"
        prefusion.run("convert", lora=lora, lora_format="kohya", output=other)
        start = networks_of(single / family)
        added = deltas(tensors)
        for number, (argument, scale) in enumerate(((f"{lora}:0.5", 0.5), (f"{other}:-1.5", -1.5))):
            out = scratch / f"{family}-{number}"
            prefusion.run("convert", model=single / family, lora=argument, output=out)
            touched = 0
            for component, weights in networks_of(out).items():
                names = classic(component, {key: key for key in weights})
                for classic_key, key in names.items():
                    delta = added.get(f"{component}.{classic_key.removesuffix('.weight')}")
                    touched += delta is not None
                    wanted = start[component][key].double()
                    wanted = wanted if delta is None else wanted + scale * delta.reshape(wanted.shape)
                    error = (weights[key].double() - wanted).abs().max()
                    check(error <= 1e-5 * max(1, wanted.abs().max()), f"{argument}: {component} {key}: {error:.1e}")
            check(touched == len(added), f"{touched} of {len(added)} layers")
    # A file in, a file out, and to a smaller dtype: as from a folder.
    source, lora = scratch / "flux.safetensors", scratch / "flux-lora.safetensors"
    prefusion.run("convert", model=single / "flux", output=source)
    prefusion.run("convert", model=source, lora=lora, output=scratch / "a.safetensors", dtype="bf16")
    prefusion.run("convert", model=single / "flux", lora=lora, output=scratch / "b.safetensors", dtype="bf16")
    check((scratch / "a.safetensors").read_bytes() == (scratch / "b.safetensors").read_bytes(), "file and folder agree")


def combined(prefusion, world, scratch):
    single = world / "single"
    first, metadata = random_lora(single, "sd1", ["unet"], ("to_q", "conv1"), seed=1)
    second, other_metadata = random_lora(single, "sd1", ["unet"], ("to_q", "to_k"), rank=3, alpha=1.5, seed=2)
    a, b = scratch / "a.safetensors", scratch / "b.safetensors"
    save_file(first, a, metadata)
    save_file(second, b, other_metadata)
    expected = {key: 0.7 * delta for key, delta in deltas(first).items()}
    for key, delta in deltas(second, alpha=1.5).items():
        expected[key] = expected.get(key, 0) - 2 * delta

    def written(name, **options):
        out = scratch / name
        command = prefusion.command("convert", dict(lora=f"{a}:0.7", output=out, overwrite=True, **options))
        prefusion.run_command([*command, "--lora", f"{b}:-2"])
        check(out.exists(), f"{out} is written")
        return load_file(out)

    def added(tensors):
        return {layer.removeprefix("lora_unet_"): (tensors[f"{layer}.lora_up.weight"].double().flatten(1)
                @ tensors[f"{layer}.lora_down.weight"].double().flatten(1)
                * tensors[f"{layer}.alpha"].double() / tensors[f"{layer}.lora_down.weight"].shape[0])
                for layer in {key.split(".")[0] for key in tensors}}

    flat = {key.removeprefix("unet.").replace(".", "_"): delta for key, delta in expected.items()}
    exact = written("exact.safetensors", lora_format="kohya")
    check_deltas(added(exact), flat, "several as one")
    ranks = {exact[key].shape[0] for key in exact if key.endswith("lora_down.weight")}
    check(ranks == {3, 4, 7}, f"ranks {ranks}")
    small = written("small.safetensors", lora_format="kohya", rank=2)
    for layer, delta in added(small).items():
        check(small[f"lora_unet_{layer}.lora_down.weight"].shape[0] == 2, "rank 2")
        u, s, v = torch.linalg.svd(flat[layer], full_matrices=False)
        best = u[:, :2] * s[:2] @ v[:2]
        check((delta - best).abs().max() <= 1e-4 * s[0], f"{layer}: the best of rank 2")
    large = written("large.safetensors", lora_format="kohya", rank=64)
    check_deltas(added(large), flat, "a rank that is large enough")
    # One alone keeps its tensors; the scale goes into alpha.
    prefusion.run("convert", lora=f"{a}:-0.5", output=scratch / "scaled")
    check(same_tensors(load_file(scratch / "scaled" / "pytorch_lora_weights.safetensors"), first), "tensors stay")
    with safe_open(scratch / "scaled" / "pytorch_lora_weights.safetensors", "pt") as file:
        check(json.loads(file.metadata()["lora_adapter_metadata"])["unet.lora_alpha"] == -3, "alpha has the scale")


def refusals(prefusion, world, scratch):
    single = world / "single"
    tensors, metadata = random_lora(single, "sd1", ["unet", "text_encoder"], ("to_q", "q_proj"))
    lora, out = scratch / "lora.safetensors", scratch / "out.safetensors"
    save_file(tensors, lora, metadata)
    # FLUX has a CLIP encoder of the same layers, so it is the denoiser's half that fits nothing.
    save_file({key: t for key, t in tensors.items() if key.startswith("unet.")}, scratch / "unet.safetensors")
    expect(prefusion, 3, "no layer of this", model=single / "flux", lora=scratch / "unet.safetensors", output=out)
    expect(prefusion, 3, "do not fit", model=single / "sd2", lora=lora, output=out)
    expect(prefusion, 3, "absent", lora=scratch / "absent", output=out)
    expect(prefusion, 3, "holds no LoRA", lora=next((single / "sd1" / "unet").glob("*.safetensors")), output=out)
    expect(prefusion, 2, "peft", lora=lora, lora_format="peft", output=scratch / "folder")
    expect(prefusion, 2, "--lora-format", lora=lora, lora_format="other", output=out)
    expect(prefusion, 2, "--rank", model=single / "sd1", lora=lora, rank=2, output=out)
    expect(prefusion, 2, "PATH:SCALE", lora=f"{lora}:much", output=out)
    expect(prefusion, 2, "exists already", lora=lora, output=lora)
    half = {key: t for key, t in tensors.items() if not key.endswith("lora_B.weight")}
    save_file(half, scratch / "half.safetensors")
    expect(prefusion, 3, "half", lora=scratch / "half.safetensors", output=out)
    save_file(tensors, scratch / "expert.safetensors", {"prefusion_timestep_range": "0:500"})
    expect(prefusion, 3, "timesteps", model=single / "sd1", lora=scratch / "expert.safetensors", output=out)
    check(not out.exists() and not (scratch / "folder").exists(), "refused conversions leave nothing")


if __name__ == "__main__":
    cases = ("dialects", "sdxl_dialects", "flux_dialects", "merged", "combined", "refusals")
    main({name: globals()[name] for name in cases})
