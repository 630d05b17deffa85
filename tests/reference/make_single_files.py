"""Models whose single-file layout is checked.

make_single_files.py OUT shapes    writes OUT/shapes.json: for every published architecture, by component, the config and
                                   {name: shape} of the network diffusers or transformers make of it
make_single_files.py OUT models    writes OUT/<family>/, small random models of each family as diffusers folders
"""

import json
import os
import pathlib
import sys

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel
from diffusers.utils import logging
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

logging.set_verbosity_error()
torch.set_num_threads(1)

CLASSES = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "sd3": SD3Transformer2DModel,
    "flux": FluxTransformer2DModel,
}


def unet(channels, attention, **changes):
    """`attention` tells which down blocks have it."""
    return dict(
        block_out_channels=channels,
        down_block_types=["CrossAttnDownBlock2D" if has else "DownBlock2D" for has in attention],
        up_block_types=["CrossAttnUpBlock2D" if has else "UpBlock2D" for has in reversed(attention)],
        **changes,
    )


def vae(channels, **changes):
    return dict(
        block_out_channels=channels,
        down_block_types=["DownEncoderBlock2D"] * len(channels),
        up_block_types=["UpDecoderBlock2D"] * len(channels),
        **changes,
    )


def clip(width, layers, hidden_act="quick_gelu", **changes):
    return dict(hidden_size=width, num_hidden_layers=layers, hidden_act=hidden_act, **changes)


SD_CHANNELS = [320, 640, 1280, 1280]
ALL_BUT_LAST = [True, True, True, False]
SD_VAE = vae([128, 256, 512, 512], layers_per_block=2, latent_channels=4, sample_size=512, scaling_factor=0.18215)
VAE_16 = dict(layers_per_block=2, latent_channels=16, use_quant_conv=False, use_post_quant_conv=False, sample_size=1024)
XL_VAE = vae([128, 256, 512, 512], layers_per_block=2, latent_channels=4, sample_size=1024, scaling_factor=0.13025)
CLIP_L = clip(768, 12, intermediate_size=3072, num_attention_heads=12, projection_dim=768)
CLIP_G = clip(1280, 32, "gelu", intermediate_size=5120, num_attention_heads=20, projection_dim=1280)
T5_XXL = dict(
    vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu"
)
SD3 = dict(
    patch_size=2,
    in_channels=16,
    out_channels=16,
    attention_head_dim=64,
    joint_attention_dim=4096,
    pooled_projection_dim=2048,
    sample_size=128,
)
FLUX = dict(
    patch_size=1,
    in_channels=64,
    num_layers=19,
    num_single_layers=38,
    attention_head_dim=128,
    num_attention_heads=24,
    joint_attention_dim=4096,
    pooled_projection_dim=768,
    axes_dims_rope=[16, 56, 56],
)
XL_TIME = dict(addition_embed_type="text_time", use_linear_projection=True)

# family -> component -> (kind, config with the published values, has a projection)
PUBLISHED = {
    "sd1": {
        "unet": ("unet", unet(SD_CHANNELS, ALL_BUT_LAST, cross_attention_dim=768, attention_head_dim=8, sample_size=64)),
        "vae": ("vae", SD_VAE),
        "text_encoder": ("clip", CLIP_L),
    },
    "sd2": {
        "unet": (
            "unet",
            unet(
                SD_CHANNELS,
                ALL_BUT_LAST,
                cross_attention_dim=1024,
                attention_head_dim=[5, 10, 20, 20],
                use_linear_projection=True,
                sample_size=96,
                upcast_attention=True,
            ),
        ),
        "text_encoder": ("clip", clip(1024, 23, "gelu", intermediate_size=4096, num_attention_heads=16)),
    },
    "sdxl": {
        "unet": (
            "unet",
            unet(
                [320, 640, 1280],
                [False, True, True],
                cross_attention_dim=2048,
                attention_head_dim=[5, 10, 20],
                transformer_layers_per_block=[1, 2, 10],
                addition_time_embed_dim=256,
                projection_class_embeddings_input_dim=2816,
                sample_size=128,
                **XL_TIME,
            ),
        ),
        "vae": ("vae", XL_VAE),
        "text_encoder_2": ("clip_projection", CLIP_G),
    },
    "sdxl_refiner": {
        "unet": (
            "unet",
            unet(
                [384, 768, 1536, 1536],
                [False, True, True, False],
                cross_attention_dim=1280,
                attention_head_dim=[6, 12, 24, 24],
                transformer_layers_per_block=4,
                addition_time_embed_dim=256,
                projection_class_embeddings_input_dim=2560,
                sample_size=128,
                **XL_TIME,
            ),
        ),
    },
    "sd3": {
        "transformer": (
            "sd3",
            {**SD3, "num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536, "pos_embed_max_size": 192},
        ),
        "vae": ("vae", vae([128, 256, 512, 512], **VAE_16, scaling_factor=1.5305, shift_factor=0.0609)),
        "text_encoder": ("clip_projection", CLIP_L),
        "text_encoder_2": ("clip_projection", CLIP_G),
        "text_encoder_3": ("t5", T5_XXL),
    },
    "sd3.5": {
        "transformer": (
            "sd3",
            {
                **SD3,
                "num_layers": 24,
                "num_attention_heads": 24,
                "caption_projection_dim": 1536,
                "pos_embed_max_size": 384,
                "qk_norm": "rms_norm",
                "dual_attention_layers": list(range(13)),
            },
        ),
    },
    "flux": {
        "transformer": ("flux", {**FLUX, "guidance_embeds": True}),
        "vae": ("vae", vae([128, 256, 512, 512], **VAE_16, scaling_factor=0.3611, shift_factor=0.1159)),
        "text_encoder": ("clip", CLIP_L),
        "text_encoder_2": ("t5", T5_XXL),
    },
}

# Small networks whose shapes still tell what is to be read off them, with sizes that are no two alike where that is
# possible: a mix-up of two of them shows. Those named *_odd can only be converted with their configs.
SMALL_VAE = vae([32, 64], layers_per_block=1, latent_channels=4)
SMALL_VAE_16 = vae([32, 64], layers_per_block=2, latent_channels=16, use_quant_conv=False, use_post_quant_conv=False)
SMALL_CLIP = clip(64, 2, intermediate_size=96, num_attention_heads=1, vocab_size=300, projection_dim=64)
SMALL_OPEN_CLIP = clip(128, 3, "gelu", intermediate_size=192, num_attention_heads=2, vocab_size=300, projection_dim=48)
SMALL_T5 = dict(
    vocab_size=300, d_model=40, d_kv=8, d_ff=56, num_layers=2, num_heads=3, feed_forward_proj="gated-gelu"
)
SMALL_FLUX = dict(
    patch_size=1,
    in_channels=64,
    num_layers=2,
    num_single_layers=3,
    joint_attention_dim=40,
    pooled_projection_dim=64,
)
SMALL = {
    "sd1": {
        "unet": (
            "unet",
            unet([32, 64, 64], [True, False, True], cross_attention_dim=768, attention_head_dim=8, layers_per_block=2),
        ),
        "vae": ("vae", SMALL_VAE),
        "text_encoder": ("clip", SMALL_CLIP),
    },
    "sd1_odd": {
        "unet": (
            "unet",
            unet(
                [12, 24],
                [True, False],
                cross_attention_dim=64,
                attention_head_dim=3,
                norm_num_groups=6,
                layers_per_block=1,
            ),
        ),
        "vae": ("vae", {**vae([12, 12, 24], layers_per_block=2), "norm_num_groups": 3}),
        "text_encoder": ("clip", SMALL_CLIP),
    },
    "sd2": {
        "unet": (
            "unet",
            unet(
                [64, 64],
                [True, True],
                cross_attention_dim=1024,
                attention_head_dim=[1, 1],
                use_linear_projection=True,
                layers_per_block=1,
            ),
        ),
        "vae": ("vae", SMALL_VAE),
        "text_encoder": ("clip", SMALL_OPEN_CLIP),
    },
    "sdxl": {
        "unet": (
            "unet",
            unet(
                [32, 64, 128],
                [False, True, True],
                cross_attention_dim=2048,
                attention_head_dim=[1, 1, 2],
                transformer_layers_per_block=[1, 2, 3],
                layers_per_block=1,
                addition_time_embed_dim=256,
                projection_class_embeddings_input_dim=1584,
                **XL_TIME,
            ),
        ),
        "vae": ("vae", SMALL_VAE),
        "text_encoder": ("clip", SMALL_CLIP),
        "text_encoder_2": ("clip_projection", SMALL_OPEN_CLIP),
    },
    "sdxl_refiner": {
        "unet": (
            "unet",
            unet(
                [32, 64, 64],
                [False, True, False],
                cross_attention_dim=1280,
                attention_head_dim=[1, 1, 1],
                transformer_layers_per_block=2,
                layers_per_block=2,
                addition_time_embed_dim=256,
                projection_class_embeddings_input_dim=1328,
                **XL_TIME,
            ),
        ),
        "vae": ("vae", SMALL_VAE),
        "text_encoder_2": ("clip_projection", SMALL_OPEN_CLIP),
    },
    "sd3": {
        "transformer": (
            "sd3",
            dict(
                patch_size=2,
                in_channels=16,
                out_channels=16,
                num_layers=3,
                attention_head_dim=64,
                num_attention_heads=2,
                joint_attention_dim=40,
                caption_projection_dim=128,
                pooled_projection_dim=112,
                pos_embed_max_size=12,
                sample_size=16,
            ),
        ),
        "vae": ("vae", SMALL_VAE_16),
        "text_encoder": ("clip_projection", SMALL_CLIP),
        "text_encoder_2": ("clip_projection", {**SMALL_OPEN_CLIP, "projection_dim": 128}),
        "text_encoder_3": ("t5", SMALL_T5),
    },
    "sd3.5": {
        "transformer": (
            "sd3",
            dict(
                patch_size=2,
                in_channels=16,
                out_channels=16,
                num_layers=4,
                attention_head_dim=24,
                num_attention_heads=3,
                joint_attention_dim=40,
                caption_projection_dim=72,
                pooled_projection_dim=112,
                pos_embed_max_size=10,
                sample_size=16,
                qk_norm="rms_norm",
                dual_attention_layers=[0, 1],
            ),
        ),
        "vae": ("vae", SMALL_VAE_16),
    },
    "flux": {
        "transformer": (
            "flux",
            dict(
                **SMALL_FLUX,
                attention_head_dim=128,
                num_attention_heads=1,
                axes_dims_rope=[16, 56, 56],
                guidance_embeds=True,
            ),
        ),
        "vae": ("vae", SMALL_VAE_16),
        "text_encoder": ("clip", SMALL_CLIP),
        "text_encoder_2": ("t5", SMALL_T5),
    },
    "flux_odd": {
        "transformer": (
            "flux",
            dict(
                **SMALL_FLUX,
                attention_head_dim=24,
                num_attention_heads=3,
                axes_dims_rope=[8, 8, 8],
                guidance_embeds=False,
            ),
        ),
    },
}

PIPELINES = {
    "sd1": "StableDiffusionPipeline",
    "sd2": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sdxl_refiner": "StableDiffusionXLImg2ImgPipeline",
    "sd3": "StableDiffusion3Pipeline",
    "sd3.5": "StableDiffusion3Pipeline",
    "flux": "FluxPipeline",
}


def make_network(kind, config):
    if kind in CLASSES:
        return CLASSES[kind](**config)
    if kind == "t5":
        return T5EncoderModel(T5Config(**config))
    # Token ids within the small vocabularies.
    tokens = dict(bos_token_id=0, eos_token_id=2)
    model_class = CLIPTextModelWithProjection if kind == "clip_projection" else CLIPTextModel
    return model_class(CLIPTextConfig(**config, **tokens))


def public_name(kind, name):
    """The classic names of CLIP, which newer transformers shorten."""
    is_bare = kind.startswith("clip") and not name.startswith(("text_model.", "text_projection."))
    return "text_model." + name if is_bare else name


def write_shapes(out):
    published = {}
    for family, components in PUBLISHED.items():
        for component, (kind, config) in components.items():
            with torch.device("meta"):
                network = make_network(kind, config)
            shapes = {public_name(kind, name): list(tensor.shape) for name, tensor in network.state_dict().items()}
            if kind == "t5":
                del shapes["encoder.embed_tokens.weight"]  # shared.weight once more
            entry = {"kind": kind, "config": config, "shapes": shapes}
            published.setdefault(family, {})[component] = entry
    (out / "shapes.json").write_text(json.dumps(published))


def write_models(out):
    for number, (family, components) in enumerate(SMALL.items()):
        torch.manual_seed(number)
        base = family.removesuffix("_odd")
        index = {"_class_name": PIPELINES[base], "scheduler": ["diffusers", "DDIMScheduler"]}
        folder = out / family
        for component, (kind, config) in components.items():
            network = make_network(kind, config)
            for parameter in network.parameters():  # norms and biases begin as ones and zeros, which tell nothing
                if parameter.ndim < 2:
                    torch.nn.init.normal_(parameter)
            network.save_pretrained(folder / component)
            library = "diffusers" if kind in CLASSES else "transformers"
            index[component] = [library, type(network).__name__]
            if component.startswith("text_encoder"):
                # Its content is copied, never read.
                tokenizer = folder / component.replace("text_encoder", "tokenizer")
                tokenizer.mkdir(exist_ok=True)
                (tokenizer / "vocab.json").write_text(json.dumps({"family": family, "of": component}))
        if base == "sdxl_refiner":
            index["text_encoder"] = [None, None]
        (folder / "scheduler").mkdir(exist_ok=True)
        scheduler = {"_class_name": "DDIMScheduler", "prediction_type": "epsilon", "num_train_timesteps": 977}
        (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
        (folder / "model_index.json").write_text(json.dumps(index))


if __name__ == "__main__":
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    {"shapes": write_shapes, "models": write_models}[sys.argv[2]](out)
