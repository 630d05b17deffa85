"""Small whole models of the families after Stable Diffusion, and ranked pictures to align them on.

make_families.py OUT writes OUT/models/NAME in diffusers layout. Sizes are odd on purpose: head counts, widths and depths differ
between the text encoders, latents are not always square, schedules and optional parts differ between models of a family.
"""

import os
import pathlib
import sys

os.environ["OMP_NUM_THREADS"] = "1"

import clip_vocabulary
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.utils import logging
from t5_vocabulary import train as train_t5
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

logging.set_verbosity_error()
logging.disable_progress_bar()
torch.set_num_threads(1)

SD = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)
TOKENS = 24


def enliven(model, seed):
    """Random biases and norm weights, and output layers that are not zero, so that nothing cancels out."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1:
                weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
            elif weight.abs().max() == 0:
                weight.copy_(torch.randn(weight.shape, generator=generator) / weight.shape[-1] ** 0.5)
    return model.eval()


class Parts:
    """Components of one model, from one vocabulary."""

    def __init__(self, folder, seed):
        self.folder, self.seed = folder / "vocabulary", seed
        torch.manual_seed(seed)
        self.vocab, merges = clip_vocabulary.train(100)
        clip_vocabulary.write_vocab_and_merges(self.folder, self.vocab, merges)
        (self.folder / "t5").mkdir(exist_ok=True)
        (self.folder / "t5" / "spiece.model").write_bytes(train_t5(700))

    def alive(self, model):
        self.seed += 1
        return enliven(model, self.seed)

    def clip_tokenizer(self, pad=clip_vocabulary.EOS):
        return CLIPTokenizer.from_pretrained(self.folder, model_max_length=TOKENS, bos_token=clip_vocabulary.BOS,
                                             eos_token=clip_vocabulary.EOS, unk_token=clip_vocabulary.EOS, pad_token=pad)

    def clip(self, cls, width, heads, layers, projection=20, act="quick_gelu"):
        return self.alive(cls(CLIPTextConfig(
            vocab_size=len(self.vocab), hidden_size=width, intermediate_size=36, num_hidden_layers=layers,
            num_attention_heads=heads, max_position_embeddings=TOKENS, bos_token_id=self.vocab[clip_vocabulary.BOS],
            eos_token_id=self.vocab[clip_vocabulary.EOS], hidden_act=act, projection_dim=projection)))

    def t5_tokenizer(self):
        return T5TokenizerFast.from_pretrained(self.folder / "t5")

    def t5(self, width, heads=3, layers=2):
        size = len(self.t5_tokenizer()) + 9
        return self.alive(T5EncoderModel(T5Config(vocab_size=size, d_model=width, d_kv=6, d_ff=28, num_layers=layers,
                                                  num_heads=heads, feed_forward_proj="gated-gelu")))

    def vae(self, channels=4, **changes):
        vae = AutoencoderKL(**{**dict(
            block_out_channels=(8, 16, 16, 16), down_block_types=("DownEncoderBlock2D",) * 4, layers_per_block=1,
            up_block_types=("UpDecoderBlock2D",) * 4, norm_num_groups=8, sample_size=64, latent_channels=channels), **changes})
        self.alive(vae)
        if vae.quant_conv is not None:  # latents that depend on the picture more than on the draw, as a trained VAE's do
            with torch.no_grad():
                vae.quant_conv.weight[:channels].mul_(8.0)
                vae.quant_conv.bias[channels:].fill_(-5.0)
        return vae


def sdxl(folder, seed, scheduler, zeros, **unet):
    parts = Parts(folder, seed)
    sizes = dict(sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, attention_head_dim=(2, 4),
                 down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                 transformer_layers_per_block=(1, 2), use_linear_projection=True, cross_attention_dim=24 + 30,
                 addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=68)
    StableDiffusionXLPipeline(
        vae=parts.vae(scaling_factor=0.13025), text_encoder=parts.clip(CLIPTextModel, 24, 4, 3), tokenizer=parts.clip_tokenizer(),
        text_encoder_2=parts.clip(CLIPTextModelWithProjection, 30, 5, 2, act="gelu"), tokenizer_2=parts.clip_tokenizer("!"),
        unet=parts.alive(UNet2DConditionModel(**{**sizes, **unet})), scheduler=scheduler, force_zeros_for_empty_prompt=zeros,
    ).save_pretrained(folder)


def sd3(folder, seed, has_t5, scheduler, vae=None, **transformer):
    parts = Parts(folder, seed)
    sizes = dict(sample_size=8, patch_size=2, in_channels=16, num_layers=2, attention_head_dim=8, num_attention_heads=3,
                 joint_attention_dim=58, caption_projection_dim=24, pooled_projection_dim=20 + 14, out_channels=16,
                 pos_embed_max_size=12)
    StableDiffusion3Pipeline(
        vae=parts.vae(16, scaling_factor=1.5305, shift_factor=0.0609, **(vae or {})),
        text_encoder=parts.clip(CLIPTextModelWithProjection, 24, 4, 3), tokenizer=parts.clip_tokenizer(),
        text_encoder_2=parts.clip(CLIPTextModelWithProjection, 30, 5, 2, projection=14, act="gelu"),
        tokenizer_2=parts.clip_tokenizer("!"), text_encoder_3=parts.t5(58) if has_t5 else None,
        tokenizer_3=parts.t5_tokenizer() if has_t5 else None, scheduler=scheduler,
        transformer=parts.alive(SD3Transformer2DModel(**{**sizes, **transformer})),
    ).save_pretrained(folder)


def flux(folder, seed, scheduler, **transformer):
    parts = Parts(folder, seed)
    sizes = dict(patch_size=1, in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
                 joint_attention_dim=34, pooled_projection_dim=24, axes_dims_rope=(4, 6, 6), guidance_embeds=True)
    FluxPipeline(
        vae=parts.vae(4, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=parts.clip(CLIPTextModel, 24, 4, 2), tokenizer=parts.clip_tokenizer(), text_encoder_2=parts.t5(34),
        tokenizer_2=parts.t5_tokenizer(), scheduler=scheduler,
        transformer=parts.alive(FluxTransformer2DModel(**{**sizes, **transformer})),
    ).save_pretrained(folder)


def pixart(folder, seed, cls, scheduler, **transformer):
    parts = Parts(folder, seed)
    sizes = dict(num_attention_heads=3, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2, cross_attention_dim=24,
                 sample_size=8, patch_size=2, caption_channels=34, norm_type="ada_norm_single", num_embeds_ada_norm=1000)
    network = parts.alive(PixArtTransformer2DModel(**{**sizes, **transformer}))
    for name, weight in network.named_parameters():  # sizes that matter: fresh weights hardly tell 2:3 from 3:2
        if "resolution_embedder" in name or "aspect_ratio_embedder" in name:
            weight.data.mul_(5.0)
    cls(vae=parts.vae(), text_encoder=parts.t5(34), tokenizer=parts.t5_tokenizer(), scheduler=scheduler,
        transformer=network).save_pretrained(folder)


def main():
    models = pathlib.Path(sys.argv[1]) / "models"
    sdxl(models / "sdxl", 1, EulerDiscreteScheduler(**SD), zeros=True)
    sdxl(models / "sdxl_v", 2, DDIMScheduler(**SD, prediction_type="v_prediction", clip_sample=False), zeros=False, mid_block_type=None)
    sd3(models / "sd3", 3, True, FlowMatchEulerDiscreteScheduler(shift=3.0))
    sd3(models / "sd35", 4, False, FlowMatchEulerDiscreteScheduler(shift=2.0, use_dynamic_shifting=True), qk_norm="rms_norm",
        dual_attention_layers=(0,), num_layers=3, vae=dict(use_quant_conv=False, use_post_quant_conv=False))
    flux(models / "flux", 5, FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True))
    flux(models / "flux_schnell", 6, FlowMatchEulerDiscreteScheduler(shift=1.0), guidance_embeds=False, num_layers=2,
         num_single_layers=1, num_attention_heads=3)
    # As the model of 1024 pixels: told of sizes.
    pixart(models / "pixart", 7, PixArtAlphaPipeline, DPMSolverMultistepScheduler(**SD), sample_size=128)
    pixart(models / "pixart_sigma", 8, PixArtSigmaPipeline, DPMSolverMultistepScheduler(**SD), num_layers=3, interpolation_scale=2)


main()
