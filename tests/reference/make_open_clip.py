"""Small random models of open_clip and their scores: make_open_clip.py OUTPUT

  OUTPUT/models/<name>/             a folder as open_clip saves it, or a bare file
  OUTPUT/models/<name>.safetensors  picture_features and prompt_features of the pictures and scored prompts
  OUTPUT/pictures/N.png, OUTPUT/scored.json
"""

import collections
import json
import pathlib
import sys

import numpy
import open_clip
import torch
from open_clip.transform import image_transform
from PIL import Image
from safetensors.torch import save_file
from torchvision import transforms

torch.set_num_threads(1)

SCORED = ["a red circle left of a blue square", "", "A Photo of an ASTRONAUT riding a horse, it’s 8k &amp; more!", "schÃ¶ne HÃ¤user", "ＬＯＵＤ 红色的圆形", "the quick brown fox jumps over the lazy dog, " * 12]
SIZES = [(24, 24), (97, 61), (41, 83), (200, 150), (24, 24), (33, 300)]

TEXT = dict(context_length=77, vocab_size=49408, width=32, heads=4, layers=2)
VISION = dict(image_size=24, layers=2, width=48, head_width=12, patch_size=8)


def randomize(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if "ln_" in name and name.endswith("weight"):
                weight.copy_(1 + 0.3 * noise)
            elif name == "logit_scale":
                weight.fill_(4.6)
            else:
                weight.copy_(noise * (0.3 if weight.dim() <= 1 else 1.2 / weight[0].numel() ** 0.5))


def make_pictures(folder):
    folder.mkdir(parents=True)
    generator = numpy.random.default_rng(5)
    pictures = []
    for i, (width, height) in enumerate(SIZES):
        small = generator.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=numpy.uint8)
        picture = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        picture.save(folder / f"{i}.png")
        pictures.append(picture)
    return pictures


def hps_transform(size, antialias):
    """The hpsv2 package's: tensors first, so that antialias is torchvision's choice."""
    return transforms.Compose(
        [
            transforms.ToTensor(),
            transforms.Resize(size, interpolation=transforms.InterpolationMode.BICUBIC, antialias=antialias),
            transforms.CenterCrop(size),
            transforms.Normalize(mean=open_clip.OPENAI_DATASET_MEAN, std=open_clip.OPENAI_DATASET_STD),
        ]
    )


def save(folder, name, config, model, how):
    state = {k: v.clone() for k, v in model.state_dict().items()}
    target = folder / name
    if how == "state_dict":
        torch.save({"epoch": 1, "name": name, "state_dict": {f"module.{k}": v for k, v in state.items()}}, target.with_suffix(".pt"))
        return
    target.mkdir(parents=True)
    (target / "open_clip_config.json").write_text(json.dumps(config))
    if how == "bin":
        torch.save(collections.OrderedDict(state), target / "open_clip_pytorch_model.bin")
    elif how == "half":
        save_file({k: v.to(torch.bfloat16) for k, v in state.items()}, target / "open_clip_model.safetensors")
    elif how == "jit":
        torch.jit.script(model).save(str(target / "model.pt"))
    elif how == "legacy":
        torch.save(state, target / "weights.pth", _use_new_zipfile_serialization=False)
    else:
        save_file(state, target / "open_clip_model.safetensors")


def make_model(root, name, pictures, seed, text=None, vision=None, preprocess=None, how="safetensors", embed_dim=20, **rest):
    config = dict(embed_dim=embed_dim, vision_cfg={**VISION, **(vision or {})}, text_cfg={**TEXT, **(text or {})}, **rest)
    arguments = {k: v for k, v in config.items() if k != "custom_text"}
    model = (open_clip.CustomTextCLIP if config.get("custom_text") else open_clip.CLIP)(**arguments).eval()
    randomize(model, seed)
    if how == "half":
        model.load_state_dict({k: v.to(torch.bfloat16).float() for k, v in model.state_dict().items()})
    size = config["vision_cfg"]["image_size"]
    tokens = open_clip.tokenizer.SimpleTokenizer(context_length=config["text_cfg"]["context_length"])(SCORED)
    settings = {k: v for k, v in (preprocess or {}).items() if k in ("mean", "std", "interpolation", "resize_mode")}
    kinds = {"pillow": image_transform(size, is_train=False, **settings), "tensor": hps_transform(size, True), "aliased": hps_transform(size, False)}
    with torch.no_grad():
        prompts = model.encode_text(tokens)
        expected = {"prompt_features": prompts}
        for kind, transform in kinds.items():
            features = model.encode_image(torch.stack([transform(p) for p in pictures]))
            expected[f"{kind}_features"] = features
            expected[kind] = torch.nn.functional.cosine_similarity(features, prompts)
    save_file({k: v.contiguous().clone() for k, v in expected.items()}, root / f"{name}.safetensors")
    save(root, name, {"model_cfg": config, "preprocess_cfg": preprocess or {}}, model, how)


def main():
    root = pathlib.Path(sys.argv[1])
    (root / "scored.json").write_text(json.dumps(SCORED))
    pictures = make_pictures(root / "pictures")
    models = root / "models"
    models.mkdir()
    make_model(models, "plain", pictures, 1)
    make_model(models, "quick", pictures, 2, quick_gelu=True, how="bin", init_logit_scale=2.0)
    make_model(models, "odd", pictures, 3, vision=dict(image_size=35, patch_size=7, width=60, head_width=20, mlp_ratio=1.77, patch_dropout=0.5), text=dict(width=33, heads=3, context_length=11, mlp_ratio=2.5), embed_dim=7)
    make_model(models, "changed", pictures, 5, vision=dict(image_size=30, act_kwargs={"approximate": "tanh"}, norm_kwargs={"eps": 1e-3}), text=dict(layers=1), how="legacy", preprocess=dict(mean=[0.5, 0.4, 0.3], std=[0.25] * 3, interpolation="bilinear", resize_mode="squash", fill_color=0))
    make_model(models, "half", pictures, 6, how="half", cast_dtype="bf16")
    make_model(models, "custom", pictures, 7, custom_text=True, vision=dict(final_ln_after_pool=True, pos_embed_type="sin_cos_2d"))
    make_model(models, "scripted", pictures, 8, how="jit")


main()
