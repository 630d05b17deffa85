#include "tools/convert_merge.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"
#include "nn/lora_names.h"
#include "tools/convert_lora.h"

namespace prefusion::tools {
namespace {

using nn::LoraComponent;
using nn::LoraFileModule;
constexpr std::string_view kWeight = ".weight";

ModelPart* part_of(ConvertibleModel& model, LoraComponent component) {
  if (!nn::is_denoiser(component)) return model.find(nn::component_name(component));
  ModelPart* transformer = model.find("transformer");
  return transformer ? transformer : model.find("unet");
}

// The layers a LoRA can hang on: matrices and convolutions.
nn::LoraNameIndex index_of(const ModelPart& part) {
  std::vector<std::string> paths;
  for (const auto& [name, source] : part.weights) {
    if (!name.ends_with(kWeight) || (source.shape.size() != 2 && source.shape.size() != 4)) continue;
    paths.push_back(name.substr(0, name.size() - kWeight.size()));
  }
  return nn::LoraNameIndex(paths);
}

// A linear layer and a 1x1 convolution have the same weights in two shapes.
void check_shape(const LoraFileModule& module, const TensorSource& weight, const std::string& what) {
  const int64_t inputs = module.A.numel() / module.rank();
  const int64_t expected = weight.shape.empty() ? 0 : weight.numel() / weight.shape[0];
  check_input(module.B.numel() == module.B.size(0) * module.rank() && module.B.size(0) == weight.shape[0] &&
                  inputs == expected && module.A.size(1) == weight.shape[1],
              what, ": A ", shape_text(module.A.sizes()), " and B ", shape_text(module.B.sizes()),
              " do not fit the layer's weight ", shape_text(weight.shape));
}

struct Delta {
  at::Tensor A, B;
  double factor;
};
using Deltas = std::map<TensorSource*, std::vector<Delta>>;

void add_to(TensorSource& weight, const std::vector<Delta>& deltas) {
  weight.load = [load = weight.load, deltas, dtype = weight.dtype] {
    at::Tensor sum = load().to(at::kFloat);
    for (const Delta& delta : deltas) {
      const at::Tensor a = delta.A.to(at::kFloat).reshape({delta.A.size(0), -1});
      const at::Tensor b = delta.B.to(at::kFloat).reshape({delta.B.size(0), -1});
      sum = sum.add(at::mm(b, a).reshape(sum.sizes()), delta.factor);
    }
    return sum.to(dtype);
  };
}

MergeReport find_layers(ConvertibleModel& model, const std::string& argument, Deltas& deltas) {
  const ModelPart* unet = model.find("unet");
  const ScaledLora lora = read_scaled_lora(argument, unet ? unet->config : Json());
  const std::string where = lora.file.path.string();
  check_input(!lora.file.timestep_range.has_value(), where,
              ": acts at a range of timesteps alone, which merged weights cannot");
  MergeReport report{.file = lora.file.path,
                     .dialect = nn::dialect_name(lora.file.dialect),
                     .scale = lora.scale,
                     .matched = {},
                     .unmatched = lora.file.other_keys,
                     .ranks = {},
                     .alphas = {}};
  std::map<ModelPart*, nn::LoraNameIndex> indices;
  for (const LoraFileModule& module : lora.file.modules) {
    ModelPart* part = part_of(model, module.component);
    if (part && !indices.contains(part)) indices.emplace(part, index_of(*part));
    const auto path = part ? indices.at(part).find(module.name) : std::nullopt;
    if (!path) {
      report.unmatched.insert(report.unmatched.end(), module.keys.begin(), module.keys.end());
      continue;
    }
    TensorSource& weight = part->weights.at(*path + std::string(kWeight));
    check_shape(module, weight, where + ": '" + module.name + "'");
    deltas[&weight].push_back({module.A, module.B, lora.scale * *module.alpha / static_cast<double>(module.rank())});
    report.matched.push_back(part->folder + "/" + *path);
    ++report.ranks[module.rank()];
    ++report.alphas[*module.alpha];
  }
  check_input(!report.matched.empty(), where, ": no layer of this ", report.dialect, " LoRA is one of ",
              model.source.string(), "; its first key is '", report.unmatched.front(), "'");
  return report;
}

}  // namespace

std::vector<MergeReport> merge_loras_into(ConvertibleModel& model, const std::vector<std::string>& arguments) {
  Deltas deltas;
  std::vector<MergeReport> reports;
  for (const auto& argument : arguments) reports.push_back(find_layers(model, argument, deltas));
  for (const auto& [weight, added] : deltas) add_to(*weight, added);
  return reports;
}

}  // namespace prefusion::tools
