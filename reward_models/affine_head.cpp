#include "reward_models/affine_head.h"

#include <ATen/ATen.h>

#include "core/error.h"

namespace prefusion::reward_models {

at::Tensor AffineHead::operator()(const at::Tensor& features) const {
  return (at::mv(features.to(at::kDouble), weight.to(features.device())) + bias).to(at::kFloat);
}

AffineHead AffineHead::standardized(double mean, double std) const {
  return {.weight = weight / std, .bias = (bias - mean) / std};
}

AffineHead collapse_linear_layers(const TensorMap& weights, const std::string& prefix, const std::vector<int>& layers,
                                  const std::string& where) {
  at::Tensor weight;  // [outputs so far, D]
  at::Tensor bias;    // [outputs so far]
  for (const int layer : layers) {
    const std::string name = prefix + std::to_string(layer);
    const auto next_weight = weights.find(name + ".weight");
    const auto next_bias = weights.find(name + ".bias");
    check_input(next_weight != weights.end() && next_bias != weights.end(), where, ": the layer '", name,
                "' of the head is missing");
    const at::Tensor w = next_weight->second.to(at::kDouble);
    const at::Tensor b = next_bias->second.to(at::kDouble);
    const bool fits =
        w.dim() == 2 && b.dim() == 1 && b.size(0) == w.size(0) && (!weight.defined() || w.size(1) == weight.size(0));
    check_input(fits, where, ": the layer '", name, "' of the head has the shapes ", shape_text(w.sizes()), " and ",
                shape_text(b.sizes()), ", which do not fit the layer before");
    bias = bias.defined() ? at::mv(w, bias) + b : b;
    weight = weight.defined() ? at::mm(w, weight) : w;
  }
  check_input(weight.size(0) == 1, where, ": the head '", prefix, "' has ", weight.size(0), " outputs; expected one");
  return {.weight = weight[0], .bias = bias.item<double>()};
}

}  // namespace prefusion::reward_models
