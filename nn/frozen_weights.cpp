#include "nn/frozen_weights.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <set>

#include "core/error.h"
#include "nn/lora.h"
#include "nn/resting_weight.h"
#include "nn/weight_stream.h"

namespace prefusion::nn {
namespace {

constexpr double kInt8Largest = 127;
constexpr double kFp8Largest = 448;
// The buffer that holds a scale beside its weight, so that both go where the network goes.
constexpr const char* kWeightScale = "weight_scale";

// [out] to a shape that broadcasts against a weight [out, ...].
at::Tensor per_channel(const at::Tensor& scale, const at::Tensor& weight) {
  std::vector<int64_t> shape(static_cast<size_t>(weight.dim()), 1);
  shape[0] = -1;
  return scale.view(shape);
}

bool is_number(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// Whether a part of the path is a place in a list of modules.
bool is_in_a_block(const std::string& path) {
  for (size_t begin = 0; begin < path.size();) {
    const size_t end = std::min(path.find('.', begin), path.size());
    if (end < path.size() && is_number(path.substr(begin, end - begin))) return true;
    begin = end + 1;
  }
  return false;
}

std::vector<LoraLayer> layers_of_blocks(const torch::nn::Module& network) {
  std::vector<LoraLayer> layers = lora_layers(network);
  std::erase_if(layers, [](const LoraLayer& layer) { return !is_in_a_block(layer.path); });
  return layers;
}

}  // namespace

FrozenDtype parse_frozen_dtype(const std::string& name, const std::string& flag) {
  if (name == "int8") return FrozenDtype::kInt8;
  check_usage(name == "fp8", flag, " ", name, ": expected int8 or fp8");
  return FrozenDtype::kFp8;
}

QuantisedWeight quantise_weight(const at::Tensor& weight, FrozenDtype dtype) {
  at::NoGradGuard no_grad;
  const at::Tensor values = weight.detach().to(at::kFloat);
  const bool is_int8 = dtype == FrozenDtype::kInt8;
  at::Tensor scale = values.abs().flatten(1).amax(1).div_(is_int8 ? kInt8Largest : kFp8Largest);
  scale = at::where(scale > 0, scale, at::ones_like(scale));  // a channel of zeros
  const at::Tensor scaled = values / per_channel(scale, values);
  return {.weight = is_int8 ? scaled.round_().to(at::kChar) : scaled.to(at::kFloat8_e4m3fn), .scale = scale};
}

at::Tensor dequantise_weight(const at::Tensor& weight, const at::Tensor& scale, at::ScalarType dtype) {
  return weight.to(at::kFloat).mul_(per_channel(scale, weight)).to(dtype);
}

int64_t quantise_frozen_weights(torch::nn::Module& network, FrozenDtype dtype) {
  at::NoGradGuard no_grad;
  std::set<const c10::TensorImpl*> replaced;
  for (const LoraLayer& layer : layers_of_blocks(network)) {
    at::Tensor& weight = layer.target->base_weight();
    QuantisedWeight bytes = quantise_weight(weight, dtype);
    const at::ScalarType computed = weight.scalar_type();
    weight.set_requires_grad(false);
    weight.set_data(bytes.weight);
    const at::Tensor scale = layer.layer->register_buffer(kWeightScale, std::move(bytes.scale));
    layer.target->set_resting_weight(
        std::make_shared<RestingWeight>(RestingWeight{.stored = weight, .scale = scale, .dtype = computed}));
    replaced.insert(weight.unsafeGetTensorImpl());
  }
  for (at::Tensor& parameter : network.parameters()) {
    if (replaced.contains(parameter.unsafeGetTensorImpl())) continue;
    parameter.set_requires_grad(false);
    parameter.set_data(parameter.detach().clone());
  }
  return static_cast<int64_t>(replaced.size());
}

int64_t stream_frozen_weights(torch::nn::Module& network, const DtypeOf& dtype_of, at::Device device) {
  at::NoGradGuard no_grad;
  const auto stream = std::make_shared<WeightStream>(device);
  std::set<const c10::TensorImpl*> staying;
  for (const LoraLayer& layer : layers_of_blocks(network)) {
    at::Tensor& weight = layer.target->base_weight();
    const auto& bytes = layer.target->resting_weight();
    const bool is_there = device.is_cpu() && (bytes || weight.scalar_type() == dtype_of(layer.path + ".weight"));
    staying.insert(weight.unsafeGetTensorImpl());
    if (is_there) continue;
    if (!device.is_cpu()) weight.set_data(weight.pin_memory());
    RestingWeight resting{.stored = weight, .stream = stream, .number = stream->add(weight)};
    resting.dtype = dtype_of(layer.path + ".weight");
    if (bytes) resting.scale = bytes->scale;
    layer.target->set_resting_weight(std::make_shared<RestingWeight>(std::move(resting)));
  }
  for (const auto& [name, tensor] : named_tensors(network)) {
    at::Tensor moved = tensor;
    moved.set_requires_grad(false);
    if (staying.contains(moved.unsafeGetTensorImpl())) continue;
    const bool is_scale = name.ends_with(kWeightScale) || !moved.is_floating_point();
    moved.set_data(moved.to(at::TensorOptions().dtype(is_scale ? moved.scalar_type() : dtype_of(name)).device(device)));
  }
  return static_cast<int64_t>(staying.size());
}

}  // namespace prefusion::nn
