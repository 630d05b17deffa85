"""A small Stable Diffusion or SDXL folder and Pick-a-Pic pairs for the comparison: make_inputs.py OUT sd|sdxl."""

import io
import pathlib
import sys

import numpy
import pyarrow
import pyarrow.parquet
import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tests" / "reference"))
import clip_vocabulary

OUT = pathlib.Path(sys.argv[1])
IS_SDXL = sys.argv[2] == "sdxl"
NUM_PAIRS = 40


def text_config(vocab, width):
    return CLIPTextConfig(
        vocab_size=len(vocab), hidden_size=width, intermediate_size=4 * width, num_hidden_layers=6, num_attention_heads=8,
        projection_dim=width, bos_token_id=vocab[clip_vocabulary.BOS], eos_token_id=vocab[clip_vocabulary.EOS])


def make_unet():
    if IS_SDXL:
        return UNet2DConditionModel(
            sample_size=32, block_out_channels=(64, 128, 256), layers_per_block=2, cross_attention_dim=512,
            attention_head_dim=(2, 4, 8), transformer_layers_per_block=(1, 2, 4), use_linear_projection=True,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), addition_embed_type="text_time",
            addition_time_embed_dim=32, projection_class_embeddings_input_dim=256 + 6 * 32)
    return UNet2DConditionModel(
        sample_size=32, block_out_channels=(64, 128, 256, 256), layers_per_block=2, cross_attention_dim=512, attention_head_dim=8)


def make_model(folder):
    torch.manual_seed(0)
    vocab, merges = clip_vocabulary.train(1000)
    clip_vocabulary.write_vocab_and_merges(folder / "tokenizer", vocab, merges)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", model_max_length=77)
    parts = dict(
        unet=make_unet(),
        vae=AutoencoderKL(
            block_out_channels=(32, 64, 128, 128), down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=1, sample_size=256),
        tokenizer=tokenizer,
        scheduler=DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, clip_sample=False))
    if IS_SDXL:
        pipeline = StableDiffusionXLPipeline(
            **parts, text_encoder=CLIPTextModel(text_config(vocab, 256)), tokenizer_2=tokenizer,
            text_encoder_2=CLIPTextModelWithProjection(text_config(vocab, 256)))
    else:
        pipeline = StableDiffusionPipeline(
            **parts, text_encoder=CLIPTextModel(text_config(vocab, 512)), safety_checker=None, feature_extractor=None,
            requires_safety_checker=False)
    pipeline.save_pretrained(folder)
    for name in ("unet", "vae", "text_encoder"):
        count = sum(parameter.numel() for parameter in getattr(pipeline, name).parameters())
        print(f"{name}: {count / 1e6:.1f} M parameters")


def picture(random):
    """Something smooth with some grain, 320 x 288, as JPEG."""
    coarse = Image.fromarray(random.integers(0, 256, (9, 10, 3), dtype=numpy.uint8)).resize((320, 288), Image.BICUBIC)
    grain = random.integers(-12, 13, (288, 320, 1))
    pixels = (numpy.asarray(coarse).astype(int) + grain).clip(0, 255).astype(numpy.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format="JPEG", quality=92)
    return data.getvalue()


def make_pairs(folder):
    random = numpy.random.default_rng(0)
    rows = [
        {
            "caption": f"a photo of a red circle left of a blue square, highly detailed, number {i}",
            "jpg_0": picture(random),
            "jpg_1": picture(random),
            "label_0": float(i % 2),
            "label_1": 1.0 - float(i % 2),
        }
        for i in range(NUM_PAIRS)
    ]
    folder.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "train.parquet")


make_model(OUT / "model")
make_pairs(OUT / "data")
