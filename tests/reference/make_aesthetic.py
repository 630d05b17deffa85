"""Aesthetic heads and small towers below them: make_aesthetic.py OUTPUT

  OUTPUT/heads/NAME.pth, .safetensors    heads of the three layouts, and some that must be refused
  OUTPUT/features.safetensors            features [N, D] by width, and the layered heads' scores of them
  OUTPUT/siglip/, siglip_vision/         SigLIP as a whole and its picture half alone, as transformers saves them
  OUTPUT/siglip.safetensors              prepared pixels and the pooled outputs
"""

import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel, SiglipTextConfig, SiglipVisionConfig, SiglipVisionModel

torch.set_num_threads(1)
torch.manual_seed(1)


def layered(widths, numbers, prefix="layers."):
    """Linear layers at their numbers, with dropout (nothing in evaluation) between."""
    layers = {n: torch.nn.Linear(a, b) for n, a, b in zip(numbers, widths, widths[1:])}
    sequence = torch.nn.Sequential(*[layers.get(i, torch.nn.Dropout(0.2)) for i in range(numbers[-1] + 1)]).eval()
    return sequence, {f"{prefix}{k}": v.clone() for k, v in sequence.state_dict().items()}


def write_heads(root):
    heads = root / "heads"
    heads.mkdir()
    single = torch.nn.Linear(24, 1)
    torch.save(single.state_dict(), heads / "v1.pth")
    v2, v2_state = layered([24, 40, 16, 8, 4, 1], [0, 2, 4, 6, 7])
    torch.save(v2_state, heads / "v2.pth")
    v25, v25_state = layered([32, 40, 16, 8, 4, 1], [0, 2, 4, 6, 8], "scoring_head.")
    v25_state = {k: v.bfloat16() for k, v in v25_state.items()}
    torch.save(v25_state, heads / "v25.pth", _use_new_zipfile_serialization=False)
    v25.load_state_dict({k.removeprefix("scoring_head."): v.float() for k, v in v25_state.items()})
    save_file(v25_state, heads / "v25.safetensors")
    torch.save(v2_state, heads / "ava-reluMSE.pth")
    torch.save(layered([24, 8, 4, 2, 2, 1], [0, 3, 6, 9, 11])[1], heads / "gaps.pth")
    torch.save({**v2_state, "layers.2.weight": torch.zeros(3, 3)}, heads / "misfit.pth")
    torch.save({k: v for k, v in v2_state.items() if k != "layers.4.bias"}, heads / "no_bias.pth")
    torch.save({**v2_state, "norm.weight": torch.zeros(3)}, heads / "extra.pth")
    features = {24: torch.randn(50, 24) * 7, 32: torch.randn(50, 32) * 7}
    features[24][3] = 0
    normalized = {k: v / v.norm(dim=-1, keepdim=True).where(v.norm(dim=-1, keepdim=True) > 0, torch.ones(1)) for k, v in features.items()}
    with torch.no_grad():
        scores = {"v1": single(normalized[24]), "v2": v2(normalized[24]), "v25": v25(normalized[32])}
    save_file({"features.24": features[24], "features.32": features[32], **{k: v.squeeze(1).contiguous() for k, v in scores.items()}}, root / "features.safetensors")


def write_siglip(root):
    vision = dict(hidden_size=32, intermediate_size=52, num_hidden_layers=2, num_attention_heads=4, image_size=30, patch_size=8)
    text = dict(hidden_size=16, intermediate_size=20, num_hidden_layers=1, num_attention_heads=2, vocab_size=60, max_position_embeddings=8)
    model = SiglipModel(SiglipConfig(vision_config=vision, text_config=text)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn_like(weight) * (0.3 if weight.dim() <= 1 else 1 / weight[0].numel() ** 0.5))
    model.save_pretrained(root / "siglip")
    alone = SiglipVisionModel(SiglipVisionConfig(**vision)).eval()
    alone.load_state_dict(model.vision_model.state_dict())
    alone.save_pretrained(root / "siglip_vision")
    processor = SiglipImageProcessorPil(size={"height": 30, "width": 30})
    for name in ("siglip", "siglip_vision"):
        processor.save_pretrained(root / name)
    pixels = torch.rand(5, 3, 30, 30) * 2 - 1
    with torch.no_grad():
        pooled = alone(pixel_values=pixels).pooler_output
    save_file({"pixels": pixels, "pooled": pooled}, root / "siglip.safetensors")


def main():
    root = pathlib.Path(sys.argv[1])
    write_heads(root)
    write_siglip(root)


main()
