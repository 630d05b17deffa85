"""Runs with `--stream-weights` beside runs without, on models kept in half precision that compute in fp32.

stream_weights.py BINARY WORLD CASE, with WORLD from make_sd_world.py and WORLD/families from make_families.py.
"""

import shutil

from families import PROMPT
from support import check, check_near, main, read_metrics, snapshot

import torch
from safetensors.torch import load_file, save_file


def half_model(world, scratch, name):
    """A model whose denoiser and T5 are stored in fp16."""
    source = world / "models" / "epsilon" if name == "sd" else world / "families" / "models" / name
    folder = scratch / name
    shutil.copytree(source, folder)
    for component in ("unet", "transformer", "text_encoder_2" if name == "flux" else "text_encoder"):
        for file in (folder / component).glob("*.safetensors") if (folder / component).exists() else ():
            weights = {key: value.half() if value.is_floating_point() else value for key, value in load_file(file).items()}
            save_file(weights, file, metadata={"format": "pt"})
    return folder


def pictures(prefusion, world, scratch):
    """The same files to the byte, a LoRA on top included."""
    for name in ("sd", "flux", "pixart"):
        model, lora = half_model(world, scratch, name), None
        if name == "sd":
            lora = scratch / "lora"
            prefusion.run("align", model=model, data=world / "pairs.parquet", output=lora, steps=1, batch_size=2, lr=1e-2,
                          resolution=64, eval_every=0, quiet=True)
        common = dict(model=model, prompt=PROMPT, steps=2, seed=4, num_images=2, lora=lora)
        text = prefusion.run("generate", output=scratch / name / "streamed", stream_weights=True, **common)
        check("stay in host memory" in text, text)
        prefusion.run("generate", output=scratch / name / "resident", **common)
        streamed, resident = (snapshot(scratch / name / kind) for kind in ("streamed", "resident"))
        check(len(streamed) == 2 and streamed == resident, f"{name}: the pictures differ")


def steps(prefusion, world, scratch):
    """The same losses and adapters, whatever else is done to the frozen weights."""
    cases = {"sd": (("plain", {}),), "flux": (("checkpointed", dict(gradient_checkpointing=True)), ("bytes", dict(base_dtype="int8")))}
    for name, changes in cases.items():
        model = half_model(world, scratch, name)
        for case, options in changes:
            common = dict(model=model, data=world / "pairs.parquet", steps=3, batch_size=2, lr=1e-2, kappa=200, resolution=64,
                          eval_every=0, log_every=1, seed=3, target_modules="to_q,to_out.0,ff.net.2,conv1", **options)
            folders = [scratch / f"{name}-{case}-{kind}" for kind in ("streamed", "resident")]
            for folder in folders:
                prefusion.run("align", output=folder, stream_weights=folder is folders[0], **common)
            for streamed, resident in zip(*map(read_metrics, folders), strict=True):
                for key in ("loss", "error_chosen", "error_rejected_ref"):
                    check_near(streamed[key], resident[key], 1e-6, f"{name}, {case}, step {resident['step']} {key}")
            found, expected = (load_file(folder / "pytorch_lora_weights.safetensors") for folder in folders)
            check(found.keys() == expected.keys(), "other layers were trained")
            for key in expected:
                check(torch.allclose(found[key], expected[key], rtol=1e-4, atol=1e-6), f"{name}, {case}: {key} differs")


def started(prefusion, world, scratch):
    """A reference that is the start of a run keeps the adapter the run begins with."""
    model = half_model(world, scratch, "sd")
    common = dict(model=model, data=world / "pairs.parquet", steps=2, batch_size=2, resolution=64, eval_every=0, log_every=1, seed=3)
    prefusion.run("align", **common, lr=1e-1, output=scratch / "lora")
    folders = [scratch / kind for kind in ("streamed", "resident")]
    for folder in folders:
        prefusion.run("align", **common, lr=1e-2, kappa=200, init_lora=scratch / "lora", reference="frozen", reference_model=model,
                      output=folder, stream_weights=folder is folders[0])
    for streamed, resident in zip(*map(read_metrics, folders), strict=True):
        check_near(streamed["error_chosen_ref"], resident["error_chosen_ref"], 1e-6, "error of the reference")
    first = read_metrics(folders[0])[0]
    check(abs(first["error_chosen"] - first["error_chosen_ref"]) < 1e-4 * first["error_chosen"], f"policy and reference differ: {first}")
    plain = scratch / "plain"
    prefusion.run("align", **common, lr=1e-2, kappa=200, init_lora=scratch / "lora", output=plain, reference="frozen",
                  reference_model=world / "models" / "epsilon")
    other = read_metrics(plain)[0]
    check(abs(other["error_chosen_ref"] - first["error_chosen_ref"]) > 1e-3 * first["error_chosen"], "the adapter changes nothing")


def refusals(prefusion, world, scratch):
    model = world / "models" / "epsilon"
    common = dict(model=model, data=world / "pairs.parquet", output=scratch / "run", steps=1, stream_weights=True)
    for changes, said in ((dict(adapter="full"), "--adapter full"), (dict(reference="frozen"), "--reference frozen")):
        text = prefusion.run("align", exit_code=2, **common, **changes)
        check("--stream-weights" in text.splitlines()[-1] and said in text.splitlines()[-1], text)
    text = prefusion.run("generate", exit_code=2, model=model, base=model, alignment_strength=0.5, prompt="a cat",
                         output=scratch / "cat.png", stream_weights=True)
    check("--stream-weights" in text.splitlines()[-1] and "convert" in text.splitlines()[-1], text)
    text = prefusion.run("generate", exit_code=2, model=model, prompt="a cat", output=scratch / "cat.png", cuda_graph=True, device="cpu")
    check("--cuda-graph needs a CUDA device" in text.splitlines()[-1], text)
    text = prefusion.run("align", exit_code=2, model=model, data=world / "pairs.parquet", output=scratch / "run", steps=1, cuda_graph=True, device="cpu")
    check("--cuda-graph needs a CUDA device" in text.splitlines()[-1], text)


main({"pictures": pictures, "steps": steps, "started": started, "refusals": refusals})
