"""Two tiny random Stable Diffusion folders and Pick-a-Pic pairs to align them on.

make_sd_world.py OUT writes OUT/models/epsilon, OUT/models/v_prediction, OUT/pairs.parquet, OUT/eval.parquet and
OUT/prompts.txt. Captions are unique, so that a text state tells its record.
"""

import io
import os
import pathlib
import sys

os.environ["OMP_NUM_THREADS"] = "1"

import clip_vocabulary
import numpy
import pyarrow
import pyarrow.parquet
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

logging.set_verbosity_error()
torch.set_num_threads(1)
OUT = pathlib.Path(sys.argv[1])
COLOURS = ["red", "green", "blue", "yellow", "white", "black"]
THINGS = ["circle", "square", "triangle", "star", "horse"]


def make_model(folder, prediction_type, seed, **unet_changes):
    torch.manual_seed(seed)
    vocab, merges = clip_vocabulary.train(100)
    clip_vocabulary.write_vocab_and_merges(folder / "tokenizer", vocab, merges)
    unet = dict(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 16, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=64,
    )
    with torch.no_grad():
        # Latents that depend on the picture more than on the draw, as a trained VAE's do.
        vae.quant_conv.weight[:4].mul_(8.0)
        vae.quant_conv.bias[4:].fill_(-5.0)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocab),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=24,
            bos_token_id=vocab[clip_vocabulary.BOS],
            eos_token_id=vocab[clip_vocabulary.EOS],
        )
    )
    pipeline = StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=text.eval(),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer", model_max_length=24),
        unet=UNet2DConditionModel(**{**unet, **unet_changes}).eval(),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type=prediction_type,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)


def picture(random, index):
    """A smooth picture whose size, colours and file format depend on the index."""
    height, width = 64 + 8 * (index % 3), 64 + 6 * (index % 4)
    corners = random.integers(0, 256, (3, 3, 3), dtype=numpy.uint8)
    image = Image.fromarray(corners).resize((width, height), Image.BICUBIC)
    data = io.BytesIO()
    image.save(data, format="JPEG" if index % 2 else "PNG", **({"quality": 95} if index % 2 else {}))
    return data.getvalue()


def rows(count, random, first):
    for i in range(first, first + count):
        label = [1.0, 0.0, 1.0, 0.5][i % 4] if i % 12 == 3 else float(i % 2)
        yield {
            "caption": f"a {COLOURS[i % 6]} {THINGS[i % 5]} near the river {i}",
            "jpg_0": picture(random, i),
            "jpg_1": picture(random, i),  # of the same size
            "label_0": label,
            "label_1": 1.0 - label,
        }


make_model(OUT / "models" / "epsilon", "epsilon", 0)
make_model(
    OUT / "models" / "v_prediction",
    "v_prediction",
    1,
    attention_head_dim=(2, 4),
    use_linear_projection=True,
    layers_per_block=2,
)
generator = numpy.random.default_rng(0)
training = list(rows(26, generator, 0))
pyarrow.parquet.write_table(pyarrow.Table.from_pylist(training), OUT / "pairs.parquet", row_group_size=8)
pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows(6, generator, 100))), OUT / "eval.parquet")
(OUT / "prompts.txt").write_text("a red circle\na blue horse near the river\n")
