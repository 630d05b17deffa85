"""What `generate` does beyond the pipelines of diffusers, against the same steps written out with diffusers' parts.

generate_options.py BINARY WORLD CASE, with WORLD from make_sd_world.py and WORLD/families from make_families.py.
"""

import copy
import json
import re

from families import PROMPT, load, psnr
from support import check, encoded_segments, main

import numpy
import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from diffusers.guiders import ClassifierFreeGuidance
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image
from safetensors.torch import load_file


def picture(path):
    return numpy.array(Image.open(path))


def lively(world, scratch, name="epsilon"):
    """A model whose text matters and whose text states have a mean, which those of fresh layer norms have not."""
    pipeline = load(world / "models" / name)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for network in (pipeline.text_encoder, pipeline.unet):
            for weight in network.parameters():
                if weight.dim() == 1:
                    weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
                elif ".attn2." in next((k for k, v in network.named_parameters() if v is weight), ""):
                    weight.mul_(2.0)
    folder = scratch / f"lively-{name}"
    pipeline.save_pretrained(folder)
    return folder


def check_picture(prefusion, scratch, expected, options, where):
    path = scratch / "found.png"
    prefusion.run("generate", output=path, **options)
    quality = psnr(picture(path), expected)
    print(f"  {where}: {quality:.1f} dB")
    check(quality > 50, f"{where}: {quality:.1f} dB")
    return picture(path)


def decoded(pipeline, latents):
    pixels = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    return ((pixels / 2 + 0.5).clamp(0, 1)[0].permute(1, 2, 0).numpy() * 255).round().astype(numpy.uint8)


@torch.no_grad()
def sample(pipeline, steps, seed, negative_unet, combine, negative_prompt=""):
    """The loop of StableDiffusionPipeline with a network for either side; `combine` guides."""
    states, negative = pipeline.encode_prompt(PROMPT, "cpu", 1, True, negative_prompt)
    latents = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(seed))
    pipeline.scheduler.set_timesteps(steps)
    latents = latents * pipeline.scheduler.init_noise_sigma
    for i, t in enumerate(pipeline.scheduler.timesteps):
        predictions = [net(latents, t, text).sample for net, text in ((negative_unet, negative), (pipeline.unet, states))]
        latents = pipeline.scheduler.step(combine(i, t, latents, *predictions), t, latents).prev_sample
    return decoded(pipeline, latents)


def plain_guidance(scale):
    return lambda i, t, latents, negative, positive: negative + scale * (positive - negative)


def interval(prefusion, world, scratch):
    """diffusers' guider says which steps are guided."""
    folder = lively(world, scratch)
    pipeline = load(folder)
    pictures = []
    for low, high, steps in ((0.2, 0.7, 7), (0.0, 0.5, 6), (0.34, 1.0, 5)):
        guider = ClassifierFreeGuidance(guidance_scale=30.0, start=low, stop=high)

        def combine(i, t, latents, negative, positive):
            guider.set_state(step=i, num_inference_steps=steps, timestep=t)
            return negative + 30.0 * (positive - negative) if guider._is_cfg_enabled() else positive

        expected = sample(pipeline, steps, 3, pipeline.unet, combine)
        options = dict(model=folder, prompt=PROMPT, steps=steps, guidance_scale=30.0, seed=3)
        pictures.append(check_picture(prefusion, scratch, expected, dict(options, guidance_interval=f"{low},{high}"), f"{low} to {high}"))
        check(psnr(pictures[-1], sample(pipeline, steps, 3, pipeline.unet, plain_guidance(30.0))) < 45, "as without an interval")
    for wrong in ("0.5", "0.7,0.2", "-0.1,1", "0,1.5", "a,b"):
        text = prefusion.run("generate", exit_code=2, output=scratch / "x.png", **options, guidance_interval=wrong)
        check("--guidance-interval" in text.splitlines()[-1], text)
    options |= dict(model=world / "families" / "models" / "flux", height=64, width=64)
    for flag in (dict(guidance_interval="0,0.5"), dict(guidance_mimic=3), dict(negative_lora="x.safetensors")):
        text = prefusion.run("generate", exit_code=2, output=scratch / "x.png", **options, **flag)
        check("distilled" in text.splitlines()[-1], text)


def mimic(prefusion, world, scratch):
    """The range of clean latents under a modest scale, in NumPy."""
    for name in ("epsilon", "v_prediction"):
        folder = lively(world, scratch, name)
        pipeline = load(folder)
        for scale, modest, percentile, seed in ((20.0, 5.0, 1.0, 1),) if name == "epsilon" else ((30.0, 7.0, 0.9, 2),):

            def combine(i, t, latents, negative, positive):
                alpha = pipeline.scheduler.alphas_cumprod[t].double().numpy()
                x, n, p = (v.double().numpy()[0] for v in (latents, negative, positive))
                is_v = name == "v_prediction"
                clean = lambda g: (alpha**0.5 * x - (1 - alpha)**0.5 * g) if is_v else (x - (1 - alpha)**0.5 * g) / alpha**0.5
                strong, weak = clean(n + scale * (p - n)), clean(n + modest * (p - n))
                result = numpy.empty_like(strong)
                for c in range(len(strong)):
                    mean = strong[c].mean()
                    reach = numpy.abs(weak[c] - weak[c].mean()).max()
                    top = max(numpy.quantile(numpy.abs(strong[c] - mean), percentile), reach)
                    result[c] = mean + numpy.clip(strong[c] - mean, -top, top) * reach / top
                back = (alpha**0.5 * x - result) if is_v else (x - alpha**0.5 * result)
                return torch.from_numpy(back / (1 - alpha)**0.5).float()[None]

            expected = sample(pipeline, 6, seed, pipeline.unet, combine)
            options = dict(model=folder, prompt=PROMPT, steps=6, guidance_scale=scale, seed=seed)
            found = check_picture(prefusion, scratch, expected, dict(options, guidance_mimic=modest, guidance_percentile=percentile), f"{name}, {scale}")
            check(psnr(found, sample(pipeline, 6, seed, pipeline.unet, plain_guidance(scale))) < 45, "as without")


def make_lora(folder, unet, seed, targets):
    network = copy.deepcopy(unet)
    network.add_adapter(LoraConfig(r=3, lora_alpha=3, target_modules=targets))
    generator = torch.Generator().manual_seed(seed)
    weights = {k: torch.randn(v.shape, generator=generator) * 0.3 for k, v in get_peft_model_state_dict(network).items()}
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=weights,
                                              unet_lora_adapter_metadata=network.peft_config["default"].to_dict())


def with_loras(folder, loras):
    pipeline = load(folder)
    for i, (path, _) in enumerate(loras):
        pipeline.load_lora_weights(path, adapter_name=f"lora{i}")
    if loras:
        pipeline.set_adapters([f"lora{i}" for i in range(len(loras))], [scale for _, scale in loras])
    return pipeline


def negative_lora(prefusion, world, scratch):
    """Each side of guidance is a network of its own."""
    folder = lively(world, scratch)
    a, b = scratch / "a", scratch / "b"
    make_lora(a, load(folder).unet, 1, ["to_q", "to_v"])
    make_lora(b, load(folder).unet, 2, ["to_k", "to_out.0", "conv1"])
    for positive, negative in (([], [(b, 1.0)]), ([(a, 1.0)], [(b, 0.7)]), ([(a, 0.8)], [(a, 0.4), (b, -1.0)])):
        pipeline, other = with_loras(folder, positive), with_loras(folder, negative)
        expected = sample(pipeline, 4, 9, other.unet, plain_guidance(5.0), "dogs, highly detailed")
        spell = lambda loras: [f"{path}:{scale}" for path, scale in loras]
        options = dict(model=folder, prompt=PROMPT, negative_prompt="dogs, highly detailed", steps=4, guidance_scale=5.0, seed=9)
        path = scratch / "found.png"
        arguments = [prefusion.binary, "generate", "--threads", "1", "--output", str(path)]
        for key, value in options.items():
            arguments += ["--" + key.replace("_", "-"), str(value)]
        for text in spell(positive):
            arguments += ["--lora", text]
        for text in spell(negative):
            arguments += ["--negative-lora", text]
        prefusion.run_command(arguments)
        quality = psnr(picture(path), expected)
        print(f"  {positive} against {negative}: {quality:.1f} dB")
        check(quality > 50, f"{positive} against {negative}: {quality:.1f} dB")
        same = sample(pipeline, 4, 9, pipeline.unet, plain_guidance(5.0), "dogs, highly detailed")
        check(psnr(picture(path), same) < 45, "as without another network")
    settings = json.loads(Image.open(path).info["prefusion"])
    check([entry["scale"] for entry in settings["negative_loras"]] == [0.4, -1.0], str(settings))
    text = prefusion.run("generate", exit_code=2, output=path, **dict(options, guidance_scale=1), negative_lora=b)
    check("--negative-lora" in text.splitlines()[-1], text)


def alignment_strength(prefusion, world, scratch):
    """Between and beyond two models, all weights mixed by hand."""
    folder, base = world / "models" / "epsilon", world / "models" / "epsilon_other"
    options = dict(model=folder, prompt=PROMPT, steps=3, guidance_scale=4.0, seed=2)
    ends = load_file(base / "unet" / "diffusion_pytorch_model.safetensors"), load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    pictures = {}
    for strength in (0.4, 1.0, 1.6):
        pipeline = load(folder)
        pipeline.unet.load_state_dict({key: ends[0][key] + strength * (ends[1][key] - ends[0][key]) for key in ends[0]})
        expected = sample(pipeline, 3, 2, pipeline.unet, plain_guidance(4.0))
        pictures[strength] = check_picture(prefusion, scratch, expected, dict(options, base=base, alignment_strength=strength), f"strength {strength}")
    check(psnr(pictures[1.6], pictures[1.0]) < 45, "strength has no effect")
    prefusion.run("generate", output=scratch / "plain.png", **options)
    check(numpy.array_equal(picture(scratch / "plain.png"), pictures[1.0]), "strength 1 is not the model")
    output = scratch / "x.png"
    text = prefusion.run("generate", exit_code=2, output=output, **options, alignment_strength=2)
    check("--base" in text.splitlines()[-1], text)
    text = prefusion.run("generate", exit_code=3, output=output, **options, base=world / "families" / "models" / "sdxl")
    check("--base" in text.splitlines()[-1], text)


# ---- prompts

def pieces(prompt):
    """Emphasis by the rules of stable-diffusion-webui's manual, for prompts whose brackets match."""
    tokens = re.findall(r"\\.|[()\[\]]|:\s*[\d.]+\s*(?=\))|[^\\()\[\]:]+|:", prompt)

    def group(i, weight, closing):
        inner, number = [], None
        while i < len(tokens) and tokens[i] != closing:
            token = tokens[i]
            if token in "([" and len(token) == 1:
                found, i = group(i + 1, 1.0, ")" if token == "(" else "]")
                inner += found
            elif re.fullmatch(r":\s*[\d.]+\s*", token) and closing == ")":
                number = float(token[1:])
                i += 1
            else:
                inner.append((token[1:] if token[0] == "\\" else token, 1.0))
                i += 1
        factor = number if number is not None else {")": 1.1, "]": 1 / 1.1, None: 1.0}[closing]
        return [(text, w * factor * weight) for text, w in inner], i + 1

    return group(0, 1.0, None)[0]


def tokens_and_weights(tokenizer, prompt, is_weighted):
    merged = []
    for text, weight in pieces(prompt) if is_weighted else [(prompt, 1.0)]:
        if merged and abs(merged[-1][1] - weight) < 1e-9:
            merged[-1] = (merged[-1][0] + text, weight)
        else:
            merged.append((text, weight))
    ids, weights = [], []
    for text, weight in merged:
        found = tokenizer(text, add_special_tokens=False).input_ids
        ids += found
        weights += [weight] * len(found)
    return ids, weights


@torch.no_grad()
def encode(tokenizer, encoder, prompt, is_weighted, chunks, hidden):
    """States of a prompt in so many chunks, and the pooled ones of the first."""
    ids, weights = tokens_and_weights(tokenizer, prompt, is_weighted)
    room = tokenizer.model_max_length - 2
    rows, factors = [], []
    for k in range(chunks):
        part, part_weights = ids[k * room:(k + 1) * room], weights[k * room:(k + 1) * room]
        padding = room - len(part)
        rows.append([tokenizer.bos_token_id, *part, tokenizer.eos_token_id] + [tokenizer.pad_token_id] * padding)
        factors += [1.0, *part_weights, 1.0] + [1.0] * padding
    output = encoder(torch.tensor(rows), output_hidden_states=True)
    states = hidden(output).flatten(0, 1)[None]
    weighted = states * torch.tensor(factors)[None, :, None]
    states = weighted * (states.mean() / weighted.mean())
    return states, output[0][:1]


LONG = "the quick brown fox jumps over the lazy dog near an old stone bridge, " * 2
WEIGHTED = r"a (red:1.4) circle, ((very [big] (dog))) near \(the\) [river:x] (old, stone: 0.5 ) bridge"


DESCRIPTION = ("A dog sits by an old bridge. Is it red? The quick brown fox jumps over the lazy dog near a stone bridge and goes on and on, "
               "e.g. to Mr. Smith.\nNo end")


def count_chunks(tokenizer, prompt, is_weighted):
    room = tokenizer.model_max_length - 2
    return max(1, -(-len(tokens_and_weights(tokenizer, prompt, is_weighted)[0]) // room))


def prompts(prefusion, world, scratch, name):
    folder = lively(world, scratch) if name == "epsilon" else world / "families" / "models" / name
    pipeline = load(folder)
    is_xl = name != "epsilon"
    encoders = [(pipeline.tokenizer, pipeline.text_encoder)] + ([(pipeline.tokenizer_2, pipeline.text_encoder_2)] if is_xl else [])
    hidden = (lambda o: o.hidden_states[-2]) if is_xl else (lambda o: o.last_hidden_state)
    for prompt, negative, is_weighted, kind in (
        (WEIGHTED, "(dogs:1.2), [cats]", True, "truncate"), (LONG, "dogs", False, "chunk"), (LONG + WEIGHTED, LONG + "(x)", True, "chunk"),
        (DESCRIPTION, "dogs", False, "segments"), (LONG * 10, DESCRIPTION, False, "segments"),
        ("a dog", LONG, False, "chunk"), ("a red circle", "dogs", True, "chunk"), (LONG + WEIGHTED, "(dogs)", True, "truncate"),
        ("no mark", "", False, "segments"),
    )[: 5 if is_xl else 9]:
        chunks = 1
        if kind == "chunk":
            chunks = max(count_chunks(t, text, is_weighted) for t, _ in encoders for text in (prompt, negative))
        told = {}
        for key, text in (("prompt_embeds", prompt), ("negative_prompt_embeds", negative)):
            if kind == "segments":
                parts = [encoded_segments(t, e, text, hidden) for t, e in encoders]
            else:
                parts = [encode(t, e, text, is_weighted, chunks, hidden) for t, e in encoders]
            told[key] = torch.cat([states for states, _ in parts], dim=-1)
            if is_xl:
                told[key.replace("prompt_embeds", "pooled_prompt_embeds")] = parts[-1][1]
        expected = pipeline(**told, num_inference_steps=3, guidance_scale=4.0, height=64, width=64,
                            generator=torch.Generator().manual_seed(6)).images[0]
        options = dict(model=folder, prompt=prompt, negative_prompt=negative, steps=3, guidance_scale=4.0, seed=6, height=64, width=64,
                       prompt_syntax="weighted" if is_weighted else "plain", long_prompts=kind)
        found = check_picture(prefusion, scratch, numpy.array(expected), options, f"{kind}, {chunks} chunks, weighted {is_weighted}")
        if kind == "segments":
            settings = json.loads(Image.open(scratch / "found.png").info["prefusion"])
            check(settings["long_prompts"] == "segments", str(settings))
    check(found.std() > 5, "the picture is flat: the comparison tells nothing")
    (scratch / "many.txt").write_text("a dog\n" + LONG + "\na cat\n")
    many = dict(model=folder, prompts=scratch / "many.txt", steps=2, seed=6, height=64, width=64, long_prompts="chunk")
    prefusion.run("generate", output=scratch / "many", **many, batch_size=3)
    prefusion.run("generate", output=scratch / "single", **many, batch_size=1)
    for i in range(3):
        one, other = (picture(scratch / kind / f"{i:05}-000.png") for kind in ("many", "single"))
        check(psnr(one, other) > 50, f"prompt {i} depends on the others of its batch")
    refused = dict(model=world / "families" / "models" / "sd3", prompt="a dog", output=scratch / "x.png")
    for flag in (dict(prompt_syntax="weighted"), dict(long_prompts="chunk"), dict(long_prompts="segments")):
        text = prefusion.run("generate", exit_code=2, **refused, **flag)
        check("StableDiffusion3Pipeline" in text.splitlines()[-1], text)
    text = prefusion.run("generate", exit_code=2, **dict(refused, model=folder), prompt_syntax="weighted", long_prompts="segments")
    check("segments" in text.splitlines()[-1] and "weighted" in text.splitlines()[-1], text)


# ---- many pictures

def shards(prefusion, world, scratch):
    """Processes that share a folder make what one would make, and --resume finds it complete."""
    (scratch / "prompts.txt").write_text("".join(f"a dog number {i}\n" for i in range(5)))
    options = dict(model=world / "models" / "epsilon", prompts=scratch / "prompts.txt", steps=2, num_images=2, seed=4)
    prefusion.run("generate", **options, output=scratch / "whole")
    for i in range(3):
        prefusion.run("generate", **options, output=scratch / "parts", shard=f"{i}/3")
    whole = {path.name: path.read_bytes() for path in (scratch / "whole").iterdir()}
    parts = {path.name: path.read_bytes() for path in (scratch / "parts").iterdir()}
    check(len(whole) == 10 and whole == parts, f"{sorted(whole)} and {sorted(parts)}")
    prefusion.run("generate", **options, output=scratch / "whole", resume=True, shard="2/3")
    prefusion.run("generate", **options, output=scratch / "none", shard="7/9")  # some of nine parts have no prompt
    for wrong in ("3/3", "1", "a/b", "-1/2"):
        text = prefusion.run("generate", exit_code=2, output=scratch / "x", **options, shard=wrong)
        check("--shard" in text.splitlines()[-1], text)


def previews(prefusion, world, scratch):
    """At the end a preview shows the result: by a tiny decoder as that draws it, else nearly the picture itself."""
    folder = world / "models" / "epsilon"
    pipeline = load(folder)
    torch.manual_seed(3)
    tiny = AutoencoderTiny(encoder_block_out_channels=(6, 6), decoder_block_out_channels=(8,) * 4, num_encoder_blocks=(1, 1),
                           num_decoder_blocks=(1, 2, 0, 1)).eval()
    tiny.save_pretrained(scratch / "tiny")
    options = dict(model=folder, prompt=PROMPT, steps=4, seed=8, guidance_scale=3.0)
    prefusion.run("generate", **options, output=scratch / "out.png", preview=scratch / "tiny.png", preview_vae=scratch / "tiny")
    latents = pipeline(PROMPT, num_inference_steps=4, guidance_scale=3.0, output_type="latent",
                       generator=torch.Generator().manual_seed(8)).images
    last = pipeline.scheduler.timesteps[-1]
    check(int(last) == 1, "the last step ends at clean latents")
    with torch.no_grad():
        expected = ((tiny.decode(latents).sample / 2 + 0.5).clamp(0, 1)[0].permute(1, 2, 0).numpy() * 255).round()
    quality = psnr(picture(scratch / "tiny.png"), expected)
    check(quality > 40, f"the tiny decoder's preview: {quality:.1f} dB")  # set_alpha_to_one=False: one more hair of noise
    prefusion.run("generate", **options, output=scratch / "out.png", num_images=1, preview=scratch / "own.png", preview_every=1)
    quality = psnr(picture(scratch / "own.png"), picture(scratch / "out.png"))
    check(quality > 32, f"the preview by the model's own decoder: {quality:.1f} dB")
    prefusion.run("generate", **options, output=scratch / "two", num_images=2, preview=scratch / "row.png", preview_every=3)
    check(picture(scratch / "row.png").shape == (64, 128, 3), "a batch of two is no row of two")
    wrong = dict(options, output=scratch / "x.png")
    for flags, code in ((dict(preview="p.jpg"), 2), (dict(preview_vae=scratch / "tiny"), 2),
                        (dict(preview=scratch / "p.png", preview_vae=folder / "vae"), 3)):
        text = prefusion.run("generate", exit_code=code, **wrong, **flags)
        check("--preview" in text or "_class_name" in text, text)


def tiles(prefusion, world, scratch):
    """Joined side by side as diffusers joins them, where they are asked for. A single row: where four tiles meet they differ."""
    model = world / "models" / "epsilon"
    pipeline = StableDiffusionPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    options = dict(model=model, prompt=PROMPT, steps=2, guidance_scale=1, seed=3, height=48, width=176)
    arguments = dict(num_inference_steps=2, guidance_scale=1, height=48, width=176)
    expected = {}
    for tiling in ("off", "on"):
        if tiling == "on":
            pipeline.vae.enable_tiling()
        generator = torch.Generator().manual_seed(3)
        expected[tiling] = numpy.array(pipeline(PROMPT, generator=generator, **arguments).images[0])
        check_picture(prefusion, scratch, expected[tiling], dict(options, vae_tiling=tiling), f"tiles {tiling}")
    check_picture(prefusion, scratch, expected["off"], options, "tiles auto")
    check(psnr(expected["on"], expected["off"]) < 50, "tiles make no difference in this picture")


def together(*runs):
    """One case of several: most of the time of a small one is Python's start."""

    def case(prefusion, world, scratch):
        for run in runs:
            folder = scratch / run.__name__
            folder.mkdir()
            run(prefusion, world, folder)

    return case


def prompts_sd(*arguments):
    prompts(*arguments, "epsilon")


def prompts_sdxl(*arguments):
    prompts(*arguments, "sdxl")


main({
    "guidance": together(interval, mimic, negative_lora, alignment_strength),
    "prompts": together(prompts_sd, prompts_sdxl),
    "many": together(shards, previews, tiles),
})
