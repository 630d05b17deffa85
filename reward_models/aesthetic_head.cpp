#include "reward_models/aesthetic_head.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <charconv>
#include <set>
#include <vector>

#include "core/error.h"
#include "core/torch_file.h"

namespace prefusion::reward_models {
namespace {

constexpr const char* kOneLayer =
    "layers.0";  // what the head of one layer, whose weights have no number, is called here

// The numbers of the layers below one of the known names; the weights of a head of one layer get a number.
std::vector<int> number_layers(TensorMap& weights, const std::string& prefix, const std::string& where) {
  std::set<int> numbers;
  for (const auto& [name, tensor] : weights) {
    const size_t dot = name.rfind('.');
    const std::string part = name.substr(dot + 1);
    const std::string_view digits = std::string_view(name).substr(0, dot).substr(std::min(prefix.size(), dot));
    int number = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    const bool is_known = dot != std::string::npos && name.starts_with(prefix) && error == std::errc() &&
                          end == digits.data() + digits.size() && (part == "weight" || part == "bias");
    check_input(is_known, where, ": is no head of an aesthetic predictor; it has a weight '", name, "'");
    numbers.insert(number);
  }
  return {numbers.begin(), numbers.end()};
}

}  // namespace

AestheticHead fold_aesthetic_head(const TensorMap& given, const std::string& where) {
  TensorMap weights = given;
  for (const char* part : {".weight", ".bias"}) {
    if (auto single = weights.extract(part + 1))
      weights.insert_or_assign(std::string(kOneLayer) + part, single.mapped());
  }
  const bool is_scoring_head = !weights.empty() && weights.begin()->first.starts_with("scoring_head.");
  const std::string prefix = is_scoring_head ? "scoring_head." : "layers.";
  const std::vector<int> numbers = number_layers(weights, prefix, where);
  using Numbers = std::vector<int>;
  // Dropout, which does nothing here, takes the numbers between; where an activation did, there would be others.
  const bool is_linear =
      numbers == Numbers{0} || numbers == Numbers{0, 2, 4, 6, 7} || numbers == Numbers{0, 2, 4, 6, 8};
  check_input(is_linear, where, ": has layers ", shape_text(numbers),
              "; heads that are known to be linear have layers [0, 2, 4, 6, 7] or [0, 2, 4, 6, 8], or one");
  return {collapse_linear_layers(weights, prefix, numbers, where)};
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
  return affine(unit);
}

}  // namespace prefusion::reward_models
