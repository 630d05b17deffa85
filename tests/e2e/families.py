"""Pictures and training steps of the families after Stable Diffusion, as diffusers makes them from the same folders.

families.py BINARY WORLD CASE, with WORLD/families from make_families.py and WORLD from make_sd_world.py. A case is
generate_NAME or align_NAME of a model there.
"""

import copy
import json
import pathlib
import shutil
import subprocess

from support import check, check_near, main, read_metrics

import numpy
import pyarrow.parquet
import torch
from diffusers import DDPMScheduler, DiffusionPipeline
from diffusers.utils import logging
from peft import LoraConfig, inject_adapter_in_model
from peft.utils import set_peft_model_state_dict
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

logging.set_verbosity_error()
logging.disable_progress_bar()
torch.set_num_threads(1)

MODELS = ("sdxl", "sdxl_v", "sd3", "sd35", "flux", "flux_schnell", "pixart", "pixart_sigma")
PROMPT = "A red circle left of the old stone bridge, again and again and again"
CLASS = "giant panda"  # what models of classes are asked for
LORA_TARGETS = "to_q,to_k,to_v,to_out.0"


def prompt_of(name):
    return CLASS if name.startswith("dit") else PROMPT


def load(folder):
    """diffusers wants to be told of parts that a folder does not have."""
    index = json.loads((pathlib.Path(folder) / "model_index.json").read_text())
    absent = {name: None for name in ("text_encoder_3", "tokenizer_3") if index.get(name, 0) == [None, None]}
    pipeline = DiffusionPipeline.from_pretrained(folder, **absent)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def denoiser_name(pipeline):
    return "unet" if hasattr(pipeline, "unet") else "transformer"


def denoiser(pipeline):
    return getattr(pipeline, denoiser_name(pipeline))


# ---- pictures

def calls(name):
    """Settings of `generate`, and what more the pipeline of diffusers has to be told."""
    first = dict(steps=4, guidance_scale=4.5, seed=11)
    odd = dict(steps=3, guidance_scale=1.0 if name == "flux_schnell" else 3.0, seed=5, height=64, width=96)
    negative = dict(steps=2, guidance_scale=6.0, seed=2**33, negative_prompt="dogs, highly detailed")
    # With one step diffusers takes PixArt for a model distilled to one.
    plain = dict(steps=2 if name.startswith("pixart") else 1, guidance_scale=0.0, seed=0)
    return (first, odd) if name.startswith("flux") else (first, odd, negative, plain)


def expected_picture(name, pipeline, settings):
    arguments = dict(num_inference_steps=settings["steps"], guidance_scale=settings["guidance_scale"],
                     generator=torch.Generator("cpu").manual_seed(settings["seed"]))
    if name.startswith("dit"):  # these make pictures of their own size
        return numpy.array(pipeline(class_ids(pipeline, [settings.get("prompt", CLASS)]), **arguments).images[0])
    arguments |= dict(height=settings.get("height", 64), width=settings.get("width", 64))
    if "negative_prompt" in settings:
        arguments["negative_prompt"] = settings["negative_prompt"]
    if name.startswith("pixart"):
        arguments["use_resolution_binning"] = False
    return numpy.array(pipeline(PROMPT, **arguments).images[0])


def psnr(found, expected):
    check(found.shape == expected.shape, f"a picture of {found.shape}, expected {expected.shape}")
    error = ((found.astype(float) - expected.astype(float)) ** 2).mean()
    return float("inf") if error == 0 else 10 * numpy.log10(255**2 / error)


def white_latents(mask):
    """[8, 8], 1 where a mask for pictures of 64 pixels is white."""
    white = numpy.array(Image.open(mask).resize((64, 64), Image.LANCZOS).convert("L")) >= 128
    return torch.tensor(white[::8, ::8]).float()


def put_back(scheduler, clean, noise, mask):
    """Inpainting for pipelines that have none: every step keeps what is outside the mask at the noise of the step's end."""
    step = scheduler.step

    def masked_step(prediction, timestep, sample, **arguments):
        result = step(prediction, timestep, sample, **arguments)
        later = scheduler.timesteps[scheduler.timesteps < timestep][:1]
        kept = scheduler.add_noise(clean, noise, later) if len(later) > 0 else clean
        if isinstance(result, tuple):
            return ((1 - mask) * kept + mask * result[0], *result[1:])
        result.prev_sample = (1 - mask) * kept + mask * result.prev_sample
        return result

    scheduler.step = masked_step


def generate(prefusion, world, scratch, name):
    folder = world / "families" / "models" / name
    inspected = subprocess.run([prefusion.binary, "inspect", str(folder)], capture_output=True, text=True)
    check(inspected.returncode == 0 and "not checked" not in inspected.stdout, f"inspect: {inspected.stdout}{inspected.stderr}")
    pipeline = load(folder)
    pictures = []
    for number, settings in enumerate(calls(name)):
        size = {} if "height" in settings else dict(height=64, width=64)
        output = scratch / f"{number}.png"
        prefusion.run("generate", model=folder, prompt=PROMPT, output=output, **settings, **size)
        pictures.append(numpy.array(Image.open(output)))
        quality = psnr(pictures[-1], expected_picture(name, pipeline, settings))
        print(f"  {settings}: {quality:.1f} dB")
        check(quality > 50, f"{name} with {settings}: {quality:.1f} dB")
    check(pictures[0].std() > 5, "the picture is flat: the comparison tells nothing")


# ---- training

def class_ids(pipeline, prompts):
    """Numbers of the classes that prompts name, the one after the last for no prompt."""
    nothing = pipeline.transformer.config.num_embeds_ada_norm
    return [pipeline.labels[prompt] if prompt in pipeline.labels else int(prompt or nothing) for prompt in prompts]


@torch.no_grad()
def prompt_states(name, pipeline, captions):
    """What the pipeline's text encoders make of captions: states, pooled states and mask, those that the family has."""
    if name.startswith("dit"):  # a one in the place of the class
        classes = torch.tensor(class_ids(pipeline, captions))
        return torch.nn.functional.one_hot(classes, pipeline.transformer.config.num_embeds_ada_norm + 1)[:, None].float(), None, None
    if name.startswith("pixart"):
        length = 300 if "sigma" in name else 120
        states, mask, _, _ = pipeline.encode_prompt(captions, do_classifier_free_guidance=False, max_sequence_length=length)
        return states, None, mask
    if name.startswith("flux"):
        states, pooled, _ = pipeline.encode_prompt(captions, captions)
        return states, pooled, None
    arguments = dict(do_classifier_free_guidance=False)
    others = {"prompt_2": captions} | ({"prompt_3": captions} if name.startswith("sd3") else {})
    states, _, pooled, _ = pipeline.encode_prompt(captions, **others, **arguments)
    return states, pooled, None


def forward(name, network, noisy, timesteps, states, pooled, mask, time_ids):
    """One batch through the denoiser of diffusers, learned variances left out."""
    if name.startswith("sdxl"):
        added = {"text_embeds": pooled, "time_ids": time_ids}
        return network(noisy, timesteps, states, added_cond_kwargs=added).sample
    if name.startswith("sd3"):
        return network(noisy, encoder_hidden_states=states, pooled_projections=pooled, timestep=timesteps).sample
    if name.startswith("dit"):
        return network(noisy, timestep=timesteps, class_labels=states.squeeze(1).argmax(-1)).sample[:, : noisy.shape[1]]
    if name.startswith("pixart"):
        sizes = (None, None) if time_ids is None else (time_ids[:, :2], time_ids[:, 2:])
        added = dict(zip(("resolution", "aspect_ratio"), sizes))
        output = network(noisy, encoder_hidden_states=states, timestep=timesteps, encoder_attention_mask=mask,
                         added_cond_kwargs=added).sample
        return output[:, : noisy.shape[1]]
    return flux_forward(network, noisy, timesteps, states, pooled)


GUIDANCE = 2.25  # that FLUX is told in training


def flux_forward(network, noisy, timesteps, states, pooled):
    from diffusers import FluxPipeline

    batch, channels, height, width = noisy.shape
    packed = FluxPipeline._pack_latents(noisy, batch, channels, height, width)
    image_ids = FluxPipeline._prepare_latent_image_ids(batch, height // 2, width // 2, "cpu", noisy.dtype)
    guidance = torch.full([batch], GUIDANCE) if network.config.guidance_embeds else None
    output = network(packed, timestep=timesteps / 1000, guidance=guidance, pooled_projections=pooled,
                     encoder_hidden_states=states, txt_ids=torch.zeros(states.shape[1], 3), img_ids=image_ids).sample
    return FluxPipeline._unpack_latents(output, height, width, 1)


def check_inputs(pipeline, trace):
    """Noisy latents and targets from the traced draws; returns the timesteps that the network is told."""
    latents, noise = trace["latents"].flatten(0, 1), trace["noise"].flatten(0, 1)
    noisy, target = trace["noisy_latents"].flatten(0, 1), trace["target"].flatten(0, 1)
    if "sigmas" in trace:
        sigmas = trace["sigmas"].flatten()[:, None, None, None]
        check_near(noisy, (1 - sigmas) * latents + sigmas * noise, 1e-5, "noisy latents")
        check_near(target, noise - latents, 1e-5, "target")
        check_near(trace["timesteps"].flatten(), trace["sigmas"].flatten() * 1000, 1e-6, "timesteps")
        check(bool((sigmas > 0).all()) and bool((sigmas <= 1).all()) and sigmas.unique().numel() > 1, f"sigmas {sigmas}")
        return trace["timesteps"].flatten()
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    timesteps = trace["timesteps"].flatten()
    check_near(noisy, scheduler.add_noise(latents, noise, timesteps), 1e-5, "noisy latents")
    is_v = scheduler.config.prediction_type == "v_prediction"
    check_near(target, scheduler.get_velocity(latents, noise, timesteps) if is_v else noise, 1e-5, "target")
    return timesteps


def time_ids(index):
    """Of a picture of make_sd_world.py under a centre crop of 64 pixels, as it is and mirrored."""
    height, width = 64 + 8 * (index % 3), 64 + 6 * (index % 4)
    new_height, new_width = (64, 64 * width // height) if width > height else (64 * height // width, 64)
    top, left = round((new_height - 64) / 2), round((new_width - 64) / 2)
    return [[height, width, top, place, 64, 64] for place in (left, new_width - 64 - left)]


def check_conditioning(name, pipeline, trace, captions):
    """Text states are those of a caption of the data, or of the empty prompt; sizes are those of a picture."""
    states, pooled, mask = prompt_states(name, pipeline, captions + [""])
    for row, found in enumerate(trace["encoder_hidden_states"]):
        distances = (states - found).abs().flatten(1).amax(dim=1)
        best = distances.argmin()
        check(distances[best] < 1e-4, f"text states of no prompt: {distances[best]}")
        if pooled is not None:
            check_near(trace["pooled"][row], pooled[best], 1e-4, "pooled")
        if mask is not None:
            check(torch.equal(trace["encoder_mask"][row].bool(), mask[best].bool()), "another mask")
        if name.startswith("sdxl") and best < len(captions):
            expected = time_ids(int(captions[best].split()[-1]))
            for ids in trace["time_ids"][row].tolist():
                check(ids in expected, f"time ids {ids}, expected one of {expected}")
    if name == "pixart":
        check(bool((trace["time_ids"] == torch.tensor([64, 64, 1])).all()), f"sizes {trace['time_ids']}")


def predict(name, network, trace, timesteps):
    """Of a network, for the items of a trace: [groups * items, C, h, w]."""
    k = trace["timesteps"].shape[1]
    repeated = lambda key: trace[key].repeat_interleave(k, 0) if key in trace else None
    ids = trace["time_ids"].flatten(0, 1).float() if "time_ids" in trace else None
    return forward(name, network, trace["noisy_latents"].flatten(0, 1), timesteps, repeated("encoder_hidden_states"),
                   repeated("pooled"), repeated("encoder_mask"), ids)


def error_of(prediction, trace):
    """[groups, items]"""
    return (prediction - trace["target"].flatten(0, 1)).pow(2).mean(dim=(1, 2, 3)).view(trace["timesteps"].shape)


def recompute(name, pipeline, network, reference, trace, timesteps, kappa):
    """Loss of the step, with its graph; predictions and errors are compared with the trace."""
    prediction = predict(name, network, trace, timesteps)
    error = error_of(prediction, trace)
    with torch.no_grad():
        error_ref = error_of(predict(name, reference, trace, timesteps), trace)
    check_near(trace["prediction"].flatten(0, 1), prediction.detach(), 5e-5, "prediction")
    check_near(trace["error"], error.detach(), 1e-5, "error")
    check_near(trace["error_ref"], error_ref, 1e-5, "error_ref")

    def loss_of(error, error_ref):
        score = error_ref - error
        return -torch.nn.functional.logsigmoid(kappa * (score[:, 0] - score[:, 1])).mean()

    check_near(trace["loss"], loss_of(trace["error"], trace["error_ref"]), 1e-4, "loss")
    loss = loss_of(error, error_ref)
    # kappa multiplies what is rounding in the errors.
    rounding = 2e-7 * kappa * max(error.max(), error_ref.max()).item() / loss.item()
    check_near(trace["loss"], loss.detach(), 1e-4 + rounding, "loss of diffusers' predictions")
    return loss


def write_near(pipeline, source, folder):
    """The model of `source` with a denoiser that differs a little."""
    shutil.copytree(source, folder)
    network = copy.deepcopy(denoiser(pipeline))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.02 * weight.abs().mean() * torch.randn(weight.shape, generator=generator))
    network.save_pretrained(folder / denoiser_name(pipeline))
    return folder


def lora_weights(path, component):
    return {key.removeprefix(component + "."): value for key, value in load_file(path).items()}


def add_lora(network, folder, component):
    """An adapter of a run, by PEFT."""
    inject_adapter_in_model(LoraConfig(r=3, lora_alpha=3, target_modules=LORA_TARGETS.split(",")), network)
    result = set_peft_model_state_dict(network, lora_weights(folder / "pytorch_lora_weights.safetensors", component))
    check(not result.unexpected_keys, f"keys PEFT does not know: {result.unexpected_keys[:3]}")


def align(prefusion, world, scratch, name, folder=None, data=None):
    """Two steps of Diffusion-DPO, with LoRA and of all weights, recomputed; the result loads in diffusers."""
    folder = folder or world / "families" / "models" / name
    data = data or world / "pairs.parquet"
    captions = pyarrow.parquet.read_table(data, columns=["caption"])["caption"].to_pylist()
    options = dict(model=folder, data=data, steps=2, batch_size=3, lr=1e-3, kappa=200, eval_every=0, log_every=1, seed=3,
                   empty_prompt_rate=0.3, resolution=64, weight_decay=0.1, max_grad_norm=0.5, trace_steps=2)
    if name == "flux":
        options["distilled_guidance"] = GUIDANCE
    else:
        text = prefusion.run("align", exit_code=2, **options, distilled_guidance=GUIDANCE, output=scratch / "refused")
        check("--distilled-guidance" in text.splitlines()[-1], text)
    pipeline = load(folder)
    component = denoiser_name(pipeline)
    for adapter in ("lora", "full"):
        output, traces = scratch / adapter, scratch / f"{adapter}-trace"
        more = dict(rank=3, target_modules=LORA_TARGETS) if adapter == "lora" else dict(no_cache=True)
        prefusion.run("align", **options, **more, adapter=adapter, output=output, trace=traces)
        network = copy.deepcopy(denoiser(pipeline)).eval()
        reference = copy.deepcopy(network)
        if adapter == "lora":
            prefusion.run("align", **{**options, "steps": 1, "lr": 0}, **more, adapter=adapter, output=scratch / "start")
            network.requires_grad_(False)
            add_lora(network, scratch / "start", component)
        parameters = [p for p in network.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.1)
        for step in (1, 2):
            trace = load_file(traces / f"step-{step:06}.safetensors")
            timesteps = check_inputs(pipeline, trace)
            check_conditioning(name, pipeline, trace, captions)
            recompute(name, pipeline, network, reference, trace, timesteps, 200).backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters, 0.5)
            check_near(trace["grad_norm"], norm, 2e-4, f"{adapter}, step {step}: gradient norm")
            optimizer.step()
            optimizer.zero_grad()
        with safe_open(traces / "step-000001.safetensors", "pt") as file:
            told = file.metadata().get("distilled_guidance")
        uses_guidance = name == "flux"
        check(told == (str(GUIDANCE) if uses_guidance else None), f"the trace says distilled_guidance is {told}")
        check(abs(read_metrics(output)[0]["loss"] - 0.6931472) < 1e-5, "the first loss is not log 2")
        check_result(name, pipeline, output, adapter, component, prefusion, scratch)


def check_result(name, pipeline, output, adapter, component, prefusion, scratch):
    """What the run wrote makes the same picture here and in diffusers, and another one than the start."""
    folder = output if adapter == "full" else pipeline.config._name_or_path
    trained = load(folder)
    if adapter == "lora" and hasattr(trained, "load_lora_weights"):
        trained.load_lora_weights(output)
    elif adapter == "lora":  # the pipelines of PixArt and DiT leave it to PEFT
        add_lora(denoiser(trained), output, component)
    settings = dict(steps=2, guidance_scale=3.5, seed=4)
    lora = dict(lora=output) if adapter == "lora" else {}
    picture = scratch / f"{adapter}.png"
    prefusion.run("generate", model=folder, prompt=prompt_of(name), output=picture, height=64, width=64, **lora, **settings)
    found = numpy.array(Image.open(picture))
    quality = psnr(found, expected_picture(name, trained, settings))
    start = psnr(found, expected_picture(name, load(pipeline.config._name_or_path), settings))
    print(f"  {adapter}: {quality:.1f} dB from diffusers, {start:.1f} dB from the start")
    check(quality > 50 and quality > start, f"{adapter}: {quality:.1f} dB from diffusers, {start:.1f} dB from the start")


if __name__ == "__main__":
    main({f"{what.__name__}_{name}": (lambda *a, what=what, name=name: what(*a, name))
          for what in (generate, align) for name in MODELS})
