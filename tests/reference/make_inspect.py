"""A whole tiny Stable Diffusion folder as diffusers saves it, a LoRA for it, and small Pick-a-Pic files
without and with faults, an HDF5 file.

make_inspect.py OUT writes OUT/model, OUT/lora/pytorch_lora_weights.safetensors, OUT/sound.parquet,
OUT/pairs.parquet, OUT/cache.h5.
"""

import io
import os
import sys

os.environ["OMP_NUM_THREADS"] = "1"

import clip_vocabulary
import h5py
import numpy
import pyarrow
import pyarrow.parquet
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

OUT = sys.argv[1]


def make_pipeline():
    torch.manual_seed(0)
    vocab, merges = clip_vocabulary.train(100)
    clip_vocabulary.write_vocab_and_merges(f"{OUT}/tokenizer", vocab, merges)
    unet = UNet2DConditionModel(
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
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
        sample_size=16,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocab),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=1,
            num_attention_heads=4,
            bos_token_id=vocab[clip_vocabulary.BOS],
            eos_token_id=vocab[clip_vocabulary.EOS],
        )
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=CLIPTokenizer.from_pretrained(f"{OUT}/tokenizer"),
        unet=unet,
        scheduler=DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def make_lora(unet):
    unet.add_adapter(LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, target_modules=["to_q", "to_out.0"]))
    layers = get_peft_model_state_dict(unet)
    layers["nowhere.to_q.lora_A.weight"] = torch.ones(4, 8)
    layers["nowhere.to_q.lora_B.weight"] = torch.ones(8, 4)
    metadata = unet.peft_config["default"].to_dict()
    StableDiffusionPipeline.save_lora_weights(f"{OUT}/lora", unet_lora_layers=layers, unet_lora_adapter_metadata=metadata)


def picture(colour, size=(20, 12)):
    data = io.BytesIO()
    Image.new("RGB", size, colour).save(data, format="PNG")
    return data.getvalue()


def row(caption, first, second, label_0, has_label=True):
    return {
        "caption": caption,
        "jpg_0": first,
        "jpg_1": second,
        "label_0": label_0,
        "label_1": 1.0 - label_0,
        "has_label": has_label,
        "model_0": "alpha",
        "model_1": "beta",
    }


def make_data():
    red, blue, wide = picture("red"), picture("blue"), picture("green", (40, 12))
    sound = [row("a red thing", red, blue, 1.0), row("a wide thing", wide, blue, 0.0), row("a tie", red, wide, 0.5)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(sound), f"{OUT}/sound.parquet")
    faults = sound + [
        row("no label", red, blue, 1.0, has_label=False),
        row("the same picture twice", red, red, 1.0),
        row("a broken picture", red, blue[:30], 0.0),
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(faults), f"{OUT}/pairs.parquet")


def make_cache():
    with h5py.File(f"{OUT}/cache.h5", "w") as file:
        file.attrs["format"] = 1
        file.attrs["model"] = "tiny"
        values = numpy.random.default_rng(0).standard_normal((50, 4, 8, 8)).astype("float32")
        file.create_dataset("latents/mean", data=values, chunks=(10, 4, 8, 8), compression="gzip", fletcher32=True)
        file.create_dataset("prompts", data=numpy.arange(7, dtype="int64"))


pipeline = make_pipeline()
pipeline.save_pretrained(f"{OUT}/model")
make_lora(pipeline.unet)
make_data()
make_cache()
