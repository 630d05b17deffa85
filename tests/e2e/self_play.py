"""Self-play (objective spin) from pictures with their prompts: the reference samples the rejected ones.

self_play.py BINARY WORLD CASE, with WORLD from make_sd_world.py and WORLD/families from make_families.py.
"""

import json

import pyarrow.parquet
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from families import denoiser, forward, load, prompt_states
from safetensors import safe_open
from safetensors.torch import load_file
from support import check, check_near, encoded_captions, main, read_metrics
from trace_checks import near, unet_of

KAPPA = 400
SAMPLING = dict(online_steps=4, online_guidance=3.0)
COMMON = dict(objective="spin", adapter="full", batch_size=3, lr=1e-3, kappa=KAPPA, empty_prompt_rate=0.3, seed=5,
              max_grad_norm=0, spike_factor=0, log_every=1, resolution=64) | SAMPLING


def write_pictures(world, folder):
    """The first picture of each pair, with its prompt in a text file beside it."""
    folder.mkdir()
    records = pyarrow.parquet.read_table(world / "pairs.parquet").to_pylist()
    for i, record in enumerate(records):
        (folder / f"{i:03}.jpg").write_bytes(record["jpg_0"])
        (folder / f"{i:03}.txt").write_text(record["caption"] + "\n")
    return folder


def traces_of(folder):
    return [load_file(path) for path in sorted(folder.iterdir())]


def guided(predict, noisy, timesteps, states, negative):
    low, high = predict(noisy, timesteps, negative), predict(noisy, timesteps, states)
    return low + SAMPLING["online_guidance"] * (high - low)


@torch.no_grad()
def sampled(scheduler, predict, noise, states, negative):
    """Deterministic steps of diffusers' sampler from traced noise."""
    latents = noise
    for timestep in scheduler.timesteps:
        prediction = guided(predict, latents, timestep.expand(len(noise)), states, negative)
        latents = scheduler.step(prediction, timestep, latents).prev_sample
    return latents


def check_loss(trace):
    """Diffusion-DPO of the given picture against the sample."""
    score = trace["error_ref"] - trace["error"]
    loss = torch.nn.functional.softplus(-KAPPA * (score[:, 0] - score[:, 1]).double()).mean()
    near(trace["loss"], loss, "loss", 1e-4)
    check(torch.equal(trace["label"], torch.tensor([[1.0, 0.0]]).expand(len(trace["label"]), 2)), f"labels {trace['label']}")


def steps(prefusion, world, scratch):
    """Item 1 is what the reference makes of the draw's prompt, first the start, after a refresh the policy of then."""
    model = world / "models" / "epsilon"
    data = write_pictures(world, scratch / "pictures")
    prefusion.run("align", **COMMON, model=model, data=data, steps=3, reference="refresh:2", eval_every=3,
                  output=scratch / "out", trace=scratch / "trace", trace_steps=3)
    traces = traces_of(scratch / "trace")
    negative = encoded_captions(model, [""])
    scheduler = DDIMScheduler.from_pretrained(model / "scheduler")

    def from_start(trace):
        scheduler.set_timesteps(SAMPLING["online_steps"])
        predict = lambda noisy, timesteps, states: unet_of(model)(noisy, timesteps, states).sample
        states = trace["encoder_hidden_states"]
        return sampled(scheduler, predict, trace["sample_noise"], states, negative.expand_as(states))

    for step, trace in enumerate(traces, 1):
        check(trace["latents"].shape[:2] == (3, 2), f"latents of {trace['latents'].shape}")
        check_loss(trace)
        expected = from_start(trace)
        if step < 3:
            check_near(trace["latents"][:, 1], expected, 1e-3, f"step {step}: samples of the start")
        else:
            moved = (trace["latents"][:, 1] - expected).abs().max()
            check(moved > 1e-2, f"after the refresh samples are still the start's ({moved})")
    check_near(traces[0]["loss"], torch.log(torch.tensor(2.0)), 1e-6, "the first loss is log 2")
    check(not torch.equal(traces[0]["sample_noise"], traces[1]["sample_noise"]), "two steps sample from one noise")
    rows = read_metrics(scratch / "out")
    check("eval/accuracy" in rows[-1] and "accuracy" in rows[-1], f"no accuracy in {rows[-1]}")
    with safe_open(scratch / "trace" / "step-000001.safetensors", "pt") as file:
        metadata = file.metadata()
    check(metadata["sampling_steps"] == "4" and metadata["rejected"] == "auto", str(metadata))


def pairs(prefusion, world, scratch):
    """Data with pairs is taken as it is, unless own samples are asked for; then its chosen pictures are."""
    plain = {key: value for key, value in COMMON.items() if key not in SAMPLING}
    fixed = dict(model=world / "models" / "epsilon", data=world / "pairs.parquet", steps=1, eval_every=0, trace_steps=1)
    found = {}
    for name, options in (("given", plain), ("own", COMMON | dict(objective_args="rejected=own")),
                          ("dpo", plain | dict(objective="diffusion-dpo"))):
        prefusion.run("align", **fixed, **options, output=scratch / name, trace=scratch / f"{name}-trace")
        found[name] = traces_of(scratch / f"{name}-trace")[0]
    check(torch.equal(found["given"]["latents"], found["dpo"]["latents"]), "given pairs are not those of diffusion-dpo")
    check("sample_noise" not in found["given"] and "sample_noise" in found["own"], "what is sampled")
    check(torch.equal(found["own"]["noise"][:, 0], found["dpo"]["noise"][:, 0]), "another draw")
    difference = (found["own"]["latents"][:, 1] - found["dpo"]["latents"][:, 1]).abs().max()
    check(difference > 0.1, "the rejected pictures are those of the data")


def manifests(prefusion, world, scratch):
    """Of unpaired JSONL the desirable pictures; a score is no verdict."""
    folder = write_pictures(world, scratch / "pictures")
    captions = {path.stem: path.read_text().strip() for path in folder.glob("*.txt")}
    stems = sorted(captions)
    for judged, expected in ((dict(label=1), 12), (dict(label=0), 6), (dict(score=-3), 12)):
        rows = [{"prompt": captions[stem], "image": f"pictures/{stem}.jpg"} for stem in stems[:12]]
        rows = [row | (dict(label=1) if i < 6 and "label" in judged else judged) for i, row in enumerate(rows)]
        manifest = scratch / "pictures.jsonl"
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
        text = prefusion.run("align", **COMMON, model=world / "models" / "epsilon", data=manifest, steps=1, eval_every=0,
                             output=scratch / f"{judged}")
        check(f"over {expected} training groups" in text, f"{judged}: {text}")
        check(("6 of 12 pictures are desirable" in text) == (expected == 6), text)


def families(prefusion, world, scratch):
    """A flow model's opponent follows its ODE; SDXL is told that samples are whole."""
    data = write_pictures(world, scratch / "pictures")
    for name in ("sd3", "sdxl"):
        folder = world / "families" / "models" / name
        prefusion.run("align", **COMMON, model=folder, data=data, steps=1, eval_every=0, output=scratch / name,
                      trace=scratch / f"{name}-trace", trace_steps=1)
        trace = traces_of(scratch / f"{name}-trace")[0]
        check_loss(trace)
        if name == "sdxl":
            check(bool((trace["time_ids"][:, 1] == torch.tensor([64, 64, 0, 0, 64, 64])).all()), str(trace["time_ids"]))
            continue
        pipeline = load(folder)
        empty, empty_pooled, _ = prompt_states(name, pipeline, [""])
        scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler")
        scheduler.set_timesteps(SAMPLING["online_steps"])
        count = len(trace["sample_noise"])

        def predict(noisy, timesteps, states):
            pooled = trace["pooled"] if states is trace["encoder_hidden_states"] else empty_pooled.expand(count, -1)
            return forward(name, denoiser(pipeline), noisy, timesteps, states, pooled, None, None)

        expected = sampled(scheduler, predict, trace["sample_noise"], trace["encoder_hidden_states"],
                           empty.expand(count, -1, -1))
        check_near(trace["latents"][:, 1], expected, 1e-3, "samples of a flow model")


def refusals(prefusion, world, scratch):
    data = write_pictures(world, scratch / "pictures")
    model = world / "models" / "epsilon"
    for options, code, mentions in (
            (dict(data=data, reference="cached"), 2, "--reference cached"),
            (dict(data=world / "pairs.parquet"), 2, "--online-steps"),
            (dict(data=data, curriculum="margin:2"), 2, "--curriculum"),
            (dict(data=data, prompts=world / "prompts.txt"), 2, "--prompts"),
            (dict(data=data, objective="diffusion-dpo", online_steps=None, online_guidance=None), 3, "unpaired")):
        text = prefusion.run("align", exit_code=code, **(COMMON | dict(steps=1, eval_every=0) | options), model=model,
                             output=scratch / "out")
        check(mentions in text.splitlines()[-1], f"{options}: {text}")


main({"steps": steps, "pairs": pairs, "manifests": manifests, "families": families, "refusals": refusals})
