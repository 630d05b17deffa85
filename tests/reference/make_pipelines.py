"""Tiny random Stable Diffusion and SDXL folders, and the pictures diffusers' pipelines make with them.

usage: make_pipelines.py OUTPUT
  OUTPUT/models/NAME/        model folders
  OUTPUT/loras/NAME/         adapters of the model "plain"
  OUTPUT/cases.json          what to generate
  OUTPUT/cases.safetensors   KEY.latents [1, C, h, w], KEY.image uint8 [H, W, 3]
"""

import copy
import json
import pathlib
import sys
import warnings

import numpy
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)
from diffusers.utils import logging
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from clip_vocabulary import BOS, EOS, train, write_json, write_vocab_and_merges

warnings.filterwarnings("ignore")
logging.set_verbosity_error()
logging.disable_progress_bar()
torch.set_num_threads(1)

SD = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
UNET = dict(
    sample_size=8, layers_per_block=1, block_out_channels=(16, 32), norm_num_groups=8, cross_attention_dim=24,
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    attention_head_dim=2,
)


def enliven(model, seed):
    """Random biases and norm weights, so that nothing cancels out."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1:
                weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
            else:
                weight.mul_(1.5)
    return model.eval()


def make_model(folder, scheduler, vae_blocks, seed, **unet_changes):
    torch.manual_seed(seed)
    vocab, merges = train(300)
    write_vocab_and_merges(folder / "vocabulary", vocab, merges)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "vocabulary", model_max_length=20, bos_token=BOS, eos_token=EOS,
                                              pad_token="!", unk_token=EOS)
    text = CLIPTextModel(CLIPTextConfig(
        vocab_size=len(vocab), hidden_size=24, intermediate_size=32, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=20, bos_token_id=vocab[BOS], eos_token_id=vocab[EOS], pad_token_id=0,
    ))
    vae = AutoencoderKL(
        block_out_channels=[8] * vae_blocks, down_block_types=["DownEncoderBlock2D"] * vae_blocks,
        up_block_types=["UpDecoderBlock2D"] * vae_blocks, norm_num_groups=4, sample_size=16, scaling_factor=0.3,
    )
    pipeline = StableDiffusionPipeline(
        vae=enliven(vae, seed), text_encoder=enliven(text, seed + 1), tokenizer=tokenizer, scheduler=scheduler,
        unet=enliven(UNet2DConditionModel(**{**UNET, **unet_changes}), seed + 2),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)


def make_xl_model(folder, scheduler, seed, zeros, first_width=24, **unet_changes):
    """Two text encoders of other widths, pad tokens and end-of-text rules; time ids of 8 numbers each."""
    torch.manual_seed(seed)
    vocab, merges = train(300)
    write_vocab_and_merges(folder / "vocabulary", vocab, merges)

    def tokenizer(pad):
        return CLIPTokenizer.from_pretrained(folder / "vocabulary", model_max_length=20, bos_token=BOS, eos_token=EOS,
                                             pad_token=pad, unk_token=EOS)

    def config(width, heads, layers, act, eos):
        return CLIPTextConfig(vocab_size=len(vocab), hidden_size=width, intermediate_size=40, num_hidden_layers=layers,
                              num_attention_heads=heads, max_position_embeddings=20, bos_token_id=vocab[BOS],
                              eos_token_id=eos, pad_token_id=0, hidden_act=act, projection_dim=20)

    vae = AutoencoderKL(
        block_out_channels=[8] * 4, down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
        norm_num_groups=4, sample_size=64, scaling_factor=0.13025,
    )
    unet = dict(UNET, cross_attention_dim=first_width + 30, addition_embed_type="text_time", addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=6 * 8 + 20, use_linear_projection=True)
    StableDiffusionXLPipeline(
        vae=enliven(vae, seed), text_encoder=enliven(CLIPTextModel(config(first_width, 4, 3, "quick_gelu", 2)), seed + 1),
        tokenizer=tokenizer(EOS), scheduler=scheduler, tokenizer_2=tokenizer("!"),
        text_encoder_2=enliven(CLIPTextModelWithProjection(config(30, 5, 4, "gelu", vocab[EOS])), seed + 2),
        unet=enliven(UNet2DConditionModel(**{**unet, **unet_changes}), seed + 3), force_zeros_for_empty_prompt=zeros,
    ).save_pretrained(folder)


def edit(path, drop=(), **changes):
    value = json.loads(path.read_text())
    value.update(changes)
    write_json(path, {k: v for k, v in value.items() if k not in drop})


def make_models(root):
    stable = PNDMScheduler(**SD, skip_prk_steps=True, steps_offset=1)
    make_model(root / "plain", stable, 4, 1)
    edit(root / "plain" / "scheduler" / "scheduler_config.json", clip_sample=False)
    v = DDIMScheduler(**SD, prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing",
                      clip_sample=False, steps_offset=1, set_alpha_to_one=False)
    make_model(root / "v", v, 3, 5, sample_size=[8, 10], attention_head_dim=[2, 4], use_linear_projection=True)
    # A scheduler file from before `steps_offset` and `clip_sample` existed, of the other class than model_index.json says.
    make_model(root / "old", DDIMScheduler(**SD), 4, 9)
    write_json(root / "old" / "scheduler" / "scheduler_config.json", dict(SD, _class_name="PNDMScheduler"))


def make_xl_models(root):
    make_xl_model(root / "xl", EulerDiscreteScheduler(**SD, steps_offset=1), 13, zeros=True)
    # As distilled models prune: more transformer layers in one block, none in the middle, odd head counts.
    make_xl_model(root / "xl-pruned", DDIMScheduler(**SD, prediction_type="v_prediction", clip_sample=False), 17, zeros=False,
                  first_width=20, sample_size=12, block_out_channels=(12, 36), norm_num_groups=6, attention_head_dim=(2, 3),
                  transformer_layers_per_block=(1, 3), mid_block_type=None,
                  down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                  up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"))
    make_xl_model(root / "xl-turbo", EulerAncestralDiscreteScheduler(**SD, timestep_spacing="trailing"), 23, zeros=True)


def make_lora(folder, model, seed, **config):
    unet = UNet2DConditionModel.from_pretrained(model / "unet")
    unet.add_adapter(LoraConfig(**config))
    generator = torch.Generator().manual_seed(seed)
    weights = {k: torch.randn(v.shape, generator=generator) * 0.3 for k, v in get_peft_model_state_dict(unet).items()}
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=weights, unet_lora_adapter_metadata=unet.peft_config["default"].to_dict())


def make_xl_lora(folder, model, seed):
    """One LoRA for the denoiser and both text encoders."""
    generator = torch.Generator().manual_seed(seed)
    pipeline = StableDiffusionXLPipeline.from_pretrained(model)
    layers = {}
    for name, modules in (("unet", ["to_q", "to_v", "ff.net.0.proj"]), ("text_encoder", ["q_proj", "fc1"]),
                          ("text_encoder_2", ["k_proj", "out_proj"])):
        network = getattr(pipeline, name)
        network.add_adapter(LoraConfig(r=3, lora_alpha=3, target_modules=modules))
        layers[name + "_lora_layers"] = {k: torch.randn(v.shape, generator=generator) * 0.2
                                         for k, v in get_peft_model_state_dict(network).items()}
    StableDiffusionXLPipeline.save_lora_weights(folder, **layers)


CLASSES = {
    "ddpm": (DDPMScheduler, {}), "ddim": (DDIMScheduler, {}), "pndm": (PNDMScheduler, {}),
    "euler": (EulerDiscreteScheduler, {}), "euler-ancestral": (EulerAncestralDiscreteScheduler, {}),
    "heun": (HeunDiscreteScheduler, {}), "dpm++": (DPMSolverMultistepScheduler, {}),
    "dpm++-karras": (DPMSolverMultistepScheduler, dict(use_karras_sigmas=True)),
    "dpm++-sde": (DPMSolverMultistepScheduler, dict(algorithm_type="sde-dpmsolver++")),
    "dpm++-sde-karras": (DPMSolverMultistepScheduler, dict(algorithm_type="sde-dpmsolver++", use_karras_sigmas=True)),
    "unipc": (UniPCMultistepScheduler, {}),
}
DEFAULTS = dict(prompt="a photo of a red circle", negative_prompt="", seed=7, steps=6, scheduler="auto", guidance_scale=7.5,
                height=0, width=0, eta=0.0, guidance_rescale=0.0, clip_skip=0, loras=[])


def cases():
    for name in CLASSES:
        yield dict(model="plain", scheduler=name)
        yield dict(model="v", scheduler=name, negative_prompt="dogs, highly detailed", seed=3)
    yield dict(model="plain")
    yield dict(model="v")
    yield dict(model="old")
    for name in ("ddim", "pndm", "euler", "dpm++"):
        yield dict(model="old", scheduler=name)
    yield dict(model="plain", steps=1)
    yield dict(model="plain", scheduler="euler", steps=20)
    yield dict(model="plain", scheduler="ddim", eta=1.0)
    yield dict(model="plain", guidance_scale=1.0, negative_prompt="ignored")
    yield dict(model="plain", guidance_scale=0.0)
    yield dict(model="plain", guidance_scale=1.5)
    yield dict(model="v", guidance_rescale=0.7)
    yield dict(model="plain", height=72, width=40)
    yield dict(model="plain", scheduler="ddpm", height=40, width=104)
    yield dict(model="v", height=24, width=40)
    yield dict(model="plain", prompt="", negative_prompt="a blue square")
    yield dict(model="plain", prompt="the quick brown fox jumps over the lazy dog, " * 4)
    yield dict(model="plain", prompt="schöne große Häuser 红色的圆形", seed=2**40)
    yield dict(model="plain", clip_skip=1)
    yield dict(model="plain", loras=[["attention", 1.0]])
    yield dict(model="plain", loras=[["attention", 0.6], ["wide", -0.5]])
    for name in ("ddim", "euler", "euler-ancestral", "dpm++", "dpm++-karras", "unipc", "heun"):
        yield dict(model="xl", scheduler=name, guidance_scale=5.0)
    yield dict(model="xl")
    yield dict(model="xl", negative_prompt="dogs, highly detailed", seed=5)
    yield dict(model="xl", height=72, width=120, guidance_rescale=0.5)
    yield dict(model="xl", clip_skip=1, negative_prompt="dogs")
    yield dict(model="xl", prompt="the quick brown fox jumps over the lazy dog, " * 4)
    yield dict(model="xl", loras=[["xl", 0.8]])
    yield dict(model="xl-pruned")
    yield dict(model="xl-pruned", guidance_scale=1.0, prompt="")
    yield dict(model="xl-pruned", scheduler="dpm++", negative_prompt="blue", width=64)
    yield dict(model="xl-turbo", guidance_scale=0.0, steps=1)
    yield dict(model="xl-turbo", guidance_scale=0.0, steps=4, seed=2)
    # A prompt with several pictures: seed S + i, with a sampler that draws noise.
    for i in range(3):
        yield dict(model="plain", scheduler="euler-ancestral", seed=100 + i, prompt="two yellow stars", group="batch")


LOADED = {}


def load(folder, has_loras):
    """The pipeline with its own scheduler; one with LoRAs is not used again."""
    if folder not in LOADED:
        is_xl = folder.name.startswith("xl")
        pipeline = DiffusionPipeline.from_pretrained(folder, **({} if is_xl else {"safety_checker": None}))
        pipeline.set_progress_bar_config(disable=True)
        # diffusers' clip_skip still asks for the `text_model` that transformers 5 took out of CLIPTextModel.
        if not is_xl:
            pipeline.text_encoder.__dict__["text_model"] = pipeline.text_encoder
        LOADED[folder] = pipeline, pipeline.scheduler
    pipeline, scheduler = LOADED.pop(folder) if has_loras else LOADED[folder]
    pipeline.scheduler = copy.deepcopy(scheduler)  # from_config() would fill in what an old file lacks
    return pipeline


def main():
    out = pathlib.Path(sys.argv[1])
    make_models(out / "models")
    plain = out / "models" / "plain"
    make_lora(out / "loras" / "attention", plain, 3, r=4, lora_alpha=8, target_modules=["to_q", "to_v"])
    make_xl_models(out / "models")
    make_xl_lora(out / "loras" / "xl", out / "models" / "xl", 8)
    make_lora(out / "loras" / "wide", plain, 4, r=2, lora_alpha=2, target_modules=["to_k", "conv1", "proj_in"])
    written, tensors = [], {}
    for number, case in enumerate(cases()):
        case = {**DEFAULTS, **case, "key": f"case{number:02d}"}
        pipeline = load(out / "models" / case["model"], has_loras=bool(case["loras"]))
        if case["scheduler"] != "auto":
            cls, extra = CLASSES[case["scheduler"]]
            pipeline.scheduler = cls.from_config(pipeline.scheduler.config, **extra)
        for name, _ in case["loras"]:
            pipeline.load_lora_weights(out / "loras" / name, adapter_name=name)
        if case["loras"]:
            pipeline.set_adapters([name for name, _ in case["loras"]], [scale for _, scale in case["loras"]])
        last = {}
        image = pipeline(
            case["prompt"], negative_prompt=case["negative_prompt"] or None, num_inference_steps=case["steps"],
            guidance_scale=case["guidance_scale"], guidance_rescale=case["guidance_rescale"], eta=case["eta"],
            height=case["height"] or None, width=case["width"] or None, clip_skip=case["clip_skip"] or None,
            generator=torch.Generator("cpu").manual_seed(case["seed"]),
            callback_on_step_end=lambda pipe, step, t, kwargs: last.update(kwargs) or {},
            callback_on_step_end_tensor_inputs=["latents"],
        ).images[0]
        tensors[case["key"] + ".latents"] = last["latents"].contiguous()
        tensors[case["key"] + ".image"] = torch.from_numpy(numpy.array(image))
        written.append(case)
    write_json(out / "cases.json", written)
    save_file(tensors, out / "cases.safetensors")


main()
