"""LoRA files of every dialect on a tiny UNet and CLIP text encoder, with the outputs diffusers gives for them.

make_lora.py OUT                 writes OUT/model, OUT/inputs.safetensors and OUT/<case>/ with lora.safetensors (or the
                                 files a case consists of) and expected.safetensors
make_lora.py OUT MODEL FILE...   loads each FILE with diffusers on MODEL's networks and writes OUT/<n>.safetensors
"""

import os
import re
import sys

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

torch.set_num_threads(1)
OUT = sys.argv[1]
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
CONVOLUTIONS = ["conv_in", "conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "proj_in"]


def make_networks():
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=60,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=12,
            bos_token_id=58,
            eos_token_id=59,
        )
    )
    return unet.eval(), text.eval()


def make_pipeline(model):
    unet = UNet2DConditionModel.from_pretrained(f"{model}/unet").eval()
    text = CLIPTextModel.from_pretrained(f"{model}/text_encoder").eval()
    return StableDiffusionPipeline(
        vae=None,
        text_encoder=text,
        tokenizer=None,
        unet=unet,
        scheduler=DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def run(pipeline, inputs):
    with torch.no_grad():
        hidden = pipeline.text_encoder(inputs["ids"]).last_hidden_state
        # The UNet is fed a fixed input, so that each network is compared by itself.
        prediction = pipeline.unet(inputs["latents"], inputs["timesteps"], inputs["states"]).sample
    return {"hidden": hidden.contiguous(), "prediction": prediction.contiguous()}


def randomise(network, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.15 * torch.randn(parameter.shape, generator=generator))


def add_adapter(network, seed, **config):
    network.add_adapter(LoraConfig(init_lora_weights="gaussian", **config))
    randomise(network, seed)
    return get_peft_model_state_dict(network), network.peft_config["default"].to_dict()


def save_diffusers(model, folder, seed, text_config=None, with_metadata=True, **config):
    pipeline = make_pipeline(model)
    layers, metadata = add_adapter(pipeline.unet, seed, **config)
    arguments = {"unet_lora_layers": layers}
    if with_metadata:
        arguments["unet_lora_adapter_metadata"] = metadata
    if text_config:
        layers, metadata = add_adapter(pipeline.text_encoder, seed + 1, **text_config)
        arguments["text_encoder_lora_layers"] = layers
        if with_metadata:
            arguments["text_encoder_lora_adapter_metadata"] = metadata
    StableDiffusionPipeline.save_lora_weights(folder, weight_name="lora.safetensors", **arguments)
    return make_pipeline(model)


def kohya_tensors(prefix, layers, alpha):
    # One alpha for all: diffusers 0.42.1 loses those that differ from the most common one.
    tensors = {}
    for name in {key.split(".lora_")[0] for key in layers}:
        base = prefix + name.replace(".", "_")
        tensors[base + ".lora_down.weight"] = layers[name + ".lora_A.weight"].clone()
        tensors[base + ".lora_up.weight"] = layers[name + ".lora_B.weight"].clone()
        tensors[base + ".alpha"] = torch.tensor(alpha)
    return tensors


def to_original_blocks(key, layers_per_block=2):
    """The key of a kohya file with the block names of the original Stable Diffusion code."""
    names = {"conv1": "in_layers_2", "conv2": "out_layers_3", "time_emb_proj": "emb_layers_1", "conv_shortcut": "skip_connection"}
    module, suffix = key.removeprefix("lora_unet_").split(".", 1)
    resnet = lambda part: names.get(part, part)
    if m := re.fullmatch(r"(down|up)_blocks_(\d+)_(resnets|attentions)_(\d+)_(.+)", module):
        index = int(m[2]) * (layers_per_block + 1) + int(m[4]) + (1 if m[1] == "down" else 0)
        inner, rest = (0, resnet(m[5])) if m[3] == "resnets" else (1, m[5])
        module = f"{'input' if m[1] == 'down' else 'output'}_blocks_{index}_{inner}_{rest}"
    elif m := re.fullmatch(r"down_blocks_(\d+)_downsamplers_0_conv", module):
        module = f"input_blocks_{(int(m[1]) + 1) * (layers_per_block + 1)}_0_op"
    elif m := re.fullmatch(r"mid_block_(resnets|attentions)_(\d+)_(.+)", module):
        index = 1 if m[1] == "attentions" else 2 * int(m[2])
        module = f"middle_block_{index}_{resnet(m[3]) if m[1] == 'resnets' else m[3]}"
    return f"lora_unet_{module}.{suffix}"


def adapter_layers(model, seed, part="unet", **config):
    network = getattr(make_pipeline(model), part)
    layers, _ = add_adapter(network, seed, **config)
    return layers


def make_cases(model, inputs):
    def expect(case, pipeline, load=True):
        if load:
            pipeline.load_lora_weights(f"{OUT}/{case}", weight_name="lora.safetensors")
        save_file(run(pipeline, inputs), f"{OUT}/{case}/expected.safetensors")

    def folder(case):
        os.makedirs(f"{OUT}/{case}", exist_ok=True)
        return f"{OUT}/{case}"

    attention = dict(r=4, lora_alpha=10, target_modules=ATTENTION)
    text_attention = dict(r=2, lora_alpha=3, target_modules=["q_proj", "v_proj", "out_proj", "fc1"])
    expect("base", (folder("base"), make_pipeline(model))[1], load=False)
    expect("attention", save_diffusers(model, folder("attention"), 1, **attention))
    expect("plain", save_diffusers(model, folder("plain"), 2, with_metadata=False, r=3, lora_alpha=3, target_modules=ATTENTION))
    expect("text", save_diffusers(model, folder("text"), 3, text_config=text_attention, **attention))
    expect("conv", save_diffusers(model, folder("conv"), 5, r=2, lora_alpha=3, target_modules=CONVOLUTIONS))
    expect("rslora", save_diffusers(model, folder("rslora"), 6, r=4, lora_alpha=2, use_rslora=True, target_modules=["to_q"]))
    patterns = dict(
        rank_pattern={"attn1.to_q": 2, "^mid_block.attentions.0.transformer_blocks.0.attn2.to_v": 5},
        alpha_pattern={"attn1.to_q": 7, r"down_blocks\.0\..*to_k": 1.5},
    )
    expect("patterns", save_diffusers(model, folder("patterns"), 7, **attention, **patterns))

    everything = ATTENTION + CONVOLUTIONS + ["ff.net.0.proj", "ff.net.2", "proj_out"]
    layers = adapter_layers(model, 8, r=2, lora_alpha=2, target_modules=ATTENTION + ["ff.net.0.proj", "ff.net.2", "proj_in"])
    tensors = kohya_tensors("lora_unet_", layers, 3.0)
    layers = adapter_layers(model, 9, part="text_encoder", r=2, lora_alpha=2, target_modules=["q_proj", "out_proj", "fc2"])
    tensors.update(kohya_tensors("lora_te_text_model_", {k.removeprefix("text_model."): v for k, v in layers.items()}, 4.0))
    save_file(tensors, f"{folder('kohya')}/lora.safetensors")
    expect("kohya", make_pipeline(model))

    layers = adapter_layers(model, 10, r=2, lora_alpha=2, target_modules=[t for t in everything if t not in ("conv_in", "downsamplers.0.conv")])
    tensors = {to_original_blocks(k): v for k, v in kohya_tensors("lora_unet_", layers, 1.0).items()}
    save_file(tensors, f"{folder('original')}/lora.safetensors")
    pipeline = make_pipeline(model)
    state, alphas = pipeline.lora_state_dict(f"{OUT}/original", weight_name="lora.safetensors", unet_config=pipeline.unet.config)
    pipeline.load_lora_into_unet(state, alphas, pipeline.unet)
    expect("original", pipeline, load=False)

    layers = adapter_layers(model, 11, r=3, lora_alpha=3, target_modules=ATTENTION)
    old = {}
    for key, value in layers.items():
        name, part, _ = key.rsplit(".", 2)
        block, projection = name.split(".to_", 1)
        direction = "down" if part == "lora_A" else "up"
        old[f"unet.{block}.processor.to_{projection.removesuffix('.0')}_lora.{direction}.weight"] = value.clone()
    save_file(old, f"{folder('old')}/lora.safetensors")
    expect("old", make_pipeline(model))

    # A folder as PEFT itself writes it: no prefix of diffusers, the scaling in adapter_config.json.
    unet = make_pipeline(model).unet
    wrapped = get_peft_model(unet, LoraConfig(init_lora_weights="gaussian", **attention))
    randomise(wrapped, 12)
    wrapped.save_pretrained(folder("peft"))
    pipeline = make_pipeline(model)
    pipeline.unet = wrapped
    expect("peft", pipeline, load=False)

    pipeline = make_pipeline(model)
    pipeline.load_lora_weights(f"{OUT}/attention", weight_name="lora.safetensors", adapter_name="first")
    pipeline.load_lora_weights(f"{OUT}/conv", weight_name="lora.safetensors", adapter_name="second")
    pipeline.set_adapters(["first", "second"], [0.7, -0.4])
    folder("two")
    expect("two", pipeline, load=False)


def main():
    if len(sys.argv) > 2:
        model, files = sys.argv[2], sys.argv[3:]
        inputs = load_file(f"{model}/../inputs.safetensors")
        for i, file in enumerate(files):
            pipeline = make_pipeline(model)
            pipeline.load_lora_weights(os.path.dirname(file), weight_name=os.path.basename(file))
            save_file(run(pipeline, inputs), f"{OUT}/{i}.safetensors")
        return
    unet, text = make_networks()
    model = f"{OUT}/model"
    unet.save_pretrained(f"{model}/unet")
    text.save_pretrained(f"{model}/text_encoder")
    torch.manual_seed(1)
    inputs = {
        "latents": torch.randn(2, 4, 8, 8),
        "timesteps": torch.tensor([3, 700]),
        "states": torch.randn(2, 12, 32),
        "ids": torch.tensor([[58, 4, 9, 2, 59, 59, 59, 59, 59, 59, 59, 59], [58, 7, 30, 11, 5, 6, 59, 59, 59, 59, 59, 59]]),
    }
    save_file(inputs, f"{OUT}/inputs.safetensors")
    make_cases(model, inputs)


main()
