#include "tools/convert_weights.h"

#include <ATen/ATen.h>

#include "core/error.h"

namespace prefusion::tools {
namespace {

TensorSource cast(const TensorSource& source, at::ScalarType dtype) {
  if (source.dtype == dtype) return source;
  return {dtype, source.shape, [load = source.load, dtype] { return load().to(dtype); }};
}

TensorSource mixed(const TensorSource& source, const TensorSource& base, double strength) {
  if (strength == 1.0) return source;
  if (strength == 0.0) return cast(base, source.dtype);
  return {source.dtype, source.shape, [load = source.load, load_base = base.load, strength, dtype = source.dtype] {
            const at::Tensor from = load_base().to(at::kFloat);
            return (from + (load().to(at::kFloat) - from) * strength).to(dtype);
          }};
}

// CLIPTextModel is saved with the prefix or, by newer transformers, without.
TensorSources::const_iterator find_weight(const TensorSources& weights, const std::string& name) {
  constexpr std::string_view kPrefix = "text_model.";
  const auto found = weights.find(name);
  if (found != weights.end()) return found;
  return weights.find(name.starts_with(kPrefix) ? name.substr(kPrefix.size()) : std::string(kPrefix) + name);
}

std::string tensor_text(const std::string& folder, const std::string& name) {
  return "'" + folder + "/" + name + "'";
}

}  // namespace

void cast_weights(ConvertibleModel& model, at::ScalarType dtype) {
  for (ModelPart& part : model.parts) {
    for (auto& [name, source] : part.weights) {
      if (at::isFloatingType(source.dtype)) source = cast(source, dtype);
    }
  }
}

void interpolate(ConvertibleModel& model, const ConvertibleModel& base, double strength) {
  const std::string where = "--base " + base.source.string();
  check_input(!model.family || !base.family || model.family == base.family, where, ": is ",
              base.family ? layouts::family_info(*base.family).name : "", ", but --model is ",
              model.family ? layouts::family_info(*model.family).name : "");
  for (ModelPart& part : model.parts) {
    const auto found = std::find_if(base.parts.begin(), base.parts.end(),
                                    [&](const ModelPart& other) { return other.folder == part.folder; });
    check_input(found != base.parts.end(), where, ": has no ", part.folder, ", which --model has");
    check_input(found->weights.size() == part.weights.size(), where, ": its ", part.folder, " has ",
                found->weights.size(), " tensors, that of --model ", part.weights.size());
    for (auto& [name, source] : part.weights) {
      const auto other = find_weight(found->weights, name);
      check_input(other != found->weights.end(), where, ": has no tensor ", tensor_text(part.folder, name),
                  ", which --model has");
      check_input(other->second.shape == source.shape, where, ": ", tensor_text(part.folder, name), " has shape ",
                  shape_text(other->second.shape), ", that of --model ", shape_text(source.shape));
      if (at::isFloatingType(source.dtype)) source = mixed(source, other->second, strength);
    }
  }
}

}  // namespace prefusion::tools
