"""Two tiny random Stable Diffusion folders and Pick-a-Pic pairs to align them on.

make_sd_world.py OUT writes OUT/models/epsilon, OUT/models/v_prediction, OUT/pairs.parquet, OUT/eval.parquet and
OUT/prompts.txt. Captions are unique, so that a text state tells its record. For other objectives than those on plain
pairs: OUT/models/epsilon_other, weights to be a reference; OUT/rich_pairs.parquet, pairs with all a pair can carry;
OUT/lists.parquet, ranked lists of four; OUT/unpaired.jsonl; OUT/prompt_pairs.jsonl, pictures under two prompts.
"""

import io
import json
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


def mask(random, size):
    """A soft disc that covers about half of the picture, as a grey PNG."""
    width, height = size
    y, x = numpy.ogrid[:height, :width]
    distance = numpy.hypot(x / width - random.uniform(0.3, 0.7), y / height - random.uniform(0.3, 0.7))
    data = io.BytesIO()
    Image.fromarray(numpy.uint8(255 * numpy.clip(1.5 - 3 * distance, 0, 1))).save(data, format="PNG")
    return data.getvalue()


def rich_rows(count, random):
    """Labels are probabilities, some scores contradict them, every third pair has equal scores or nearly so."""
    for i, row in enumerate(rows(count, random, 200)):
        label = [0.9, 0.3, 0.0, 0.6, 1.0][i % 5]
        scores = 20.0 + random.normal(size=2) * [0.02, 1.0, 1.0][i % 3]
        size = Image.open(io.BytesIO(row["jpg_0"])).size
        yield row | {
            "label_0": label,
            "label_1": 1.0 - label,
            "score_0": scores[0],
            "score_1": scores[1],
            "weight": 0.5 + 0.25 * (i % 6),
            "user_id": 40 + i % 3,
            "caption_0": f"{row['caption']} at noon",
            "caption_1": f"some {THINGS[i % 5]} {i}",
            "mask_0": mask(random, size),
            "mask_1": mask(random, size),
        }


def list_rows(count, random):
    """Ranks and scores with ties here and there, which mostly agree."""
    for i in range(count):
        ranks = random.permutation(4) if i % 4 else numpy.array([1, 0, 2, 1])
        images = [
            {
                "image": picture(random, i),
                "model": f"model {item}",
                "seed": item,
                "scores": [("taste", 20.0 + 0.5 * numpy.round(random.normal() - 2 * rank))],
                "rank": int(rank),
            }
            for item, rank in enumerate(ranks)
        ]
        yield {"prompt": f"a list of {COLOURS[i % 6]} {THINGS[i % 5]} {i}", "images": images}


LISTS = pyarrow.schema(
    [
        ("prompt", pyarrow.string()),
        (
            "images",
            pyarrow.list_(
                pyarrow.struct(
                    [
                        ("image", pyarrow.binary()),
                        ("model", pyarrow.string()),
                        ("seed", pyarrow.int64()),
                        ("scores", pyarrow.map_(pyarrow.string(), pyarrow.float64())),
                        ("rank", pyarrow.int32()),
                    ]
                )
            ),
        ),
    ]
)


def write_manifests(count, random):
    """Single pictures, desirable, not, or something between; the same pictures under a right and a wrong prompt."""
    (OUT / "pictures").mkdir(exist_ok=True)
    unpaired, prompt_pairs = [], []
    for i in range(count):
        path, prompt = f"pictures/{i}.{'jpg' if i % 2 else 'png'}", f"one {COLOURS[i % 6]} {THINGS[i % 5]} {i}"
        (OUT / path).write_bytes(picture(random, i))
        label, score = 0.7 if i % 6 == 5 else i % 2, float(20 + random.normal())
        unpaired.append({"prompt": prompt, "image": path, "label": label, "score": score})
        prompt_pairs.append({"image": path, "prompts": [prompt, f"one {COLOURS[(i + 1) % 6]} {THINGS[i % 5]} {i}"]})
    for name, rows_of_file in (("unpaired", unpaired), ("prompt_pairs", prompt_pairs)):
        (OUT / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of_file))


make_model(OUT / "models" / "epsilon", "epsilon", 0)
make_model(
    OUT / "models" / "v_prediction",
    "v_prediction",
    1,
    attention_head_dim=(2, 4),
    use_linear_projection=True,
    layers_per_block=2,
)
make_model(OUT / "models" / "epsilon_other", "epsilon", 2)
generator = numpy.random.default_rng(0)
training = list(rows(26, generator, 0))
pyarrow.parquet.write_table(pyarrow.Table.from_pylist(training), OUT / "pairs.parquet", row_group_size=8)
pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows(6, generator, 100))), OUT / "eval.parquet")
rich = list(rich_rows(18, generator))
pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rich), OUT / "rich_pairs.parquet", row_group_size=8)
lists = list(list_rows(12, generator))
pyarrow.parquet.write_table(pyarrow.Table.from_pylist(lists, schema=LISTS), OUT / "lists.parquet", row_group_size=5)
write_manifests(24, generator)
(OUT / "prompts.txt").write_text("a red circle\na blue horse near the river\n")
