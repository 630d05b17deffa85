"""What the cases of all denoisers share: random weights, and a file of inputs, outputs and gradients."""

import torch
from safetensors.torch import save_file


def randomize(model, generator):
    """Weights near PyTorch's own scale, and norms and biases that are not one and zero."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                parameter.copy_(noise * (1.0 / parameter[0].numel()) ** 0.5)
            else:
                parameter.copy_(noise * 0.1 + (1.0 if "norm" in name and name.endswith("weight") else 0.0))


def write_case(folder, model, inputs, run, generator):
    """Writes folder/case.safetensors.

    `inputs` are named tensors, those that require gradients get them compared; run(model, inputs) is the prediction.
    The model is in bfloat16 afterwards.
    """
    prediction = run(model, inputs)
    cotangent = torch.randn(prediction.shape, generator=generator)
    (prediction * cotangent).sum().backward()
    tensors = dict(inputs, prediction=prediction, cotangent=cotangent)
    for name, tensor in inputs.items():
        if tensor.requires_grad:
            tensors["input_grad." + name] = tensor.grad
    for name, parameter in model.named_parameters():
        # Casting the model below casts the gradients it holds, too.
        tensors["grad." + name] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
    with torch.no_grad():
        half = {name: tensor.bfloat16() if tensor.requires_grad else tensor for name, tensor in inputs.items()}
        tensors["prediction_bf16"] = run(model.to(torch.bfloat16), half)
    save_file({k: v.detach().contiguous() for k, v in tensors.items()}, folder / "case.safetensors")
