#include "reward_models/aesthetic_head.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <vector>

#include "core/error.h"
#include "core/torch_file.h"

namespace prefusion::reward_models {
namespace {

struct Layer {
  at::Tensor weight;  // [out, in]
  at::Tensor bias;    // [out]
};

// Layers by their number; the head of one layer has none.
std::map<int64_t, Layer> read_layers(const TensorMap& weights, const std::string& where) {
  std::map<int64_t, Layer> layers;
  for (const auto& [name, tensor] : weights) {
    const size_t dot = name.rfind('.');
    const std::string part = dot == std::string::npos ? name : name.substr(dot + 1);
    std::string_view before = std::string_view(name).substr(0, dot == std::string::npos ? 0 : dot);
    int64_t number = 0;
    bool is_known = before.empty();
    for (const std::string_view prefix : {"layers.", "scoring_head."}) {
      if (!before.starts_with(prefix)) continue;
      const std::string_view digits = before.substr(prefix.size());
      const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
      is_known = error == std::errc() && end == digits.data() + digits.size();
    }
    is_known = is_known && (part == "weight" || part == "bias");
    check_input(is_known, where, ": is no head of an aesthetic predictor; it has a weight '", name, "'");
    (part == "weight" ? layers[number].weight : layers[number].bias) = tensor.to(at::kDouble).cpu();
  }
  return layers;
}

}  // namespace

AestheticHead fold_aesthetic_head(const TensorMap& weights, const std::string& where) {
  const std::map<int64_t, Layer> layers = read_layers(weights, where);
  std::vector<int64_t> numbers;
  for (const auto& [number, layer] : layers) numbers.push_back(number);
  using Numbers = std::vector<int64_t>;
  // Dropout, which does nothing here, takes the numbers between; where an activation did, there would be others.
  const bool is_linear =
      numbers == Numbers{0} || numbers == Numbers{0, 2, 4, 6, 7} || numbers == Numbers{0, 2, 4, 6, 8};
  check_input(is_linear, where, ": has layers ", shape_text(numbers),
              "; heads that are known to be linear have layers [0, 2, 4, 6, 7] or [0, 2, 4, 6, 8], or one");
  at::Tensor row = at::ones({1, 1}, at::kDouble);  // [1, out] of the layer
  double bias = 0;
  for (auto layer = layers.rbegin(); layer != layers.rend(); ++layer) {
    const auto& [weight, layer_bias] = layer->second;
    const bool fits = weight.defined() && layer_bias.defined() && weight.dim() == 2 && layer_bias.dim() == 1 &&
                      weight.size(0) == row.size(1) && layer_bias.size(0) == row.size(1);
    check_input(fits, where, ": layer ", layer->first, " does not fit the one behind it, which takes ", row.size(1),
                " numbers");
    bias += row.matmul(layer_bias).item<double>();
    row = row.matmul(weight);
  }
  return {.weight = row.squeeze(0), .bias = bias};
}

AestheticHead read_aesthetic_head(const std::filesystem::path& path) {
  std::string name = path.filename().string();
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
  check_input(name.find("relu") == std::string::npos, path.string(),
              ": a head with activations (by its name) is not supported, only linear ones, such as "
              "sac+logos+ava1-l14-linearMSE.pth");
  return fold_aesthetic_head(model_weights(read_tensors(path)), path.string());
}

at::Tensor AestheticHead::score(const at::Tensor& features) const {
  const at::Tensor rows = features.to(at::kFloat);
  const at::Tensor norm = rows.norm(2, {-1}, /*keepdim=*/true);
  const at::Tensor unit = rows / at::where(norm == 0, at::ones_like(norm), norm);
  return unit.to(at::kDouble).matmul(weight.to(features.device())) + bias;
}

}  // namespace prefusion::reward_models
