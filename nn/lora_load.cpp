#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "core/error.h"
#include "core/logging.h"
#include "nn/lora.h"
#include "nn/lora_file.h"
#include "nn/lora_metadata.h"
#include "nn/lora_names.h"

namespace prefusion::nn {
namespace {

std::string joined(const std::vector<std::string>& names) {
  constexpr size_t kShown = 20;
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kShown); ++i) text += (i ? ", " : "") + names[i];
  if (names.size() > kShown) text += concat(" and ", names.size() - kShown, " more");
  return text;
}

// The tensor as the layer wants it: a linear layer and a 1x1 convolution have the same weights in two shapes.
at::Tensor fit_shape(const at::Tensor& found, const std::vector<int64_t>& expected, const std::string& what) {
  const bool fits = found.numel() > 0 && found.size(0) == expected[0] && found.size(1) == expected[1];
  const auto is_flat = [](at::IntArrayRef shape) {
    return std::all_of(shape.begin() + 2, shape.end(), [](int64_t size) { return size == 1; });
  };
  const bool same = found.sizes() == at::IntArrayRef(expected);
  check_input(same || (fits && is_flat(found.sizes()) && is_flat(expected)), what, " has shape ",
              shape_text(found.sizes()), ", the layer needs ", shape_text(expected));
  return found.reshape(expected);
}

LoraEntry make_entry(const LoraFileModule& module, const LoraLayer& layer, double alpha, const std::string& where) {
  const at::Tensor& weight = layer.target->base_weight();
  std::vector<int64_t> a_shape = weight.sizes().vec();
  a_shape[0] = module.rank();
  std::vector<int64_t> b_shape(weight.dim(), 1);
  b_shape[0] = weight.size(0);
  b_shape[1] = module.rank();
  const std::string name = where + ": '" + module.name + "' (" + layer.path + "): ";
  // A copy: the file's mapping is read-only, and an adapter may be trained on.
  const auto own = [&](const at::Tensor& tensor) {
    return tensor
        .to(at::TensorOptions().dtype(at::kFloat).device(layer.target->compute_device()), /*non_blocking=*/false,
            /*copy=*/true)
        .contiguous();
  };
  return {layer.path, layer.layer, own(fit_shape(module.A, a_shape, name + "A (down)")),
          own(fit_shape(module.B, b_shape, name + "B (up)")), alpha};
}

// The shortest tails of the paths, as PEFT's target_modules would list them ("to_q", "to_out.0").
std::vector<std::string> target_names(const std::vector<LoraEntry>& entries) {
  std::vector<std::string> names;
  for (const auto& entry : entries) names.push_back(entry.path);
  std::sort(names.begin(), names.end());
  return names;
}

void load_component(const LoraFile& file, LoraComponent component, torch::nn::Module* network, double user_scale,
                    LoraLoadReport& report, std::shared_ptr<LoraAdapter>& adapter) {
  const std::string prefix = component_name(component);
  std::map<std::string, LoraLayer> layers;
  std::vector<std::string> paths;
  if (network) {
    for (auto& layer : lora_layers(*network)) {
      paths.push_back(layer.path);
      layers.emplace(layer.path, std::move(layer));
    }
  }
  const LoraNameIndex index(paths);
  const LoraDescription description = description_of(file, component);
  std::vector<LoraEntry> entries;
  std::set<std::string> used;
  for (const auto& module : file.modules) {
    if (module.component != component && !(is_denoiser(module.component) && is_denoiser(component))) continue;
    const std::optional<std::string> path = index.find(module.name);
    if (!path) {
      report.unmatched.insert(report.unmatched.end(), module.keys.begin(), module.keys.end());
      continue;
    }
    check_input(used.insert(*path).second, file.path.string(), ": two modules of the file fit ", *path,
                ", the second is '", module.name, "'");
    const double alpha = module.alpha ? *module.alpha : description.alpha(*path, module.rank());
    entries.push_back(make_entry(module, layers.at(*path), alpha, file.path.string()));
    const std::string name = prefix + "." + *path;
    report.matched.push_back(name);
    report.ranks[name] = module.rank();
    report.alphas[name] = alpha;
  }
  if (entries.empty()) return;
  LoraConfig config{entries.front().rank(), entries.front().alpha, description.target_modules()};
  if (config.target_modules.empty()) config.target_modules = target_names(entries);
  adapter = LoraAdapter::attach(std::move(entries), std::move(config));
  adapter->set_scale(user_scale);
  if (!file.timestep_range || !is_denoiser(component)) return;
  auto* announcer = dynamic_cast<TimestepAnnouncer*>(network);
  check_input(announcer != nullptr, file.path.string(), ": acts at timesteps ", file.timestep_range->text(),
              " alone, but this network knows no timesteps");
  adapter->restrict_to(*file.timestep_range, *announcer);
}

}  // namespace

LoraLoadReport load_lora(torch::nn::Module& denoiser, torch::nn::Module* text_encoder,
                         const std::filesystem::path& path, double user_scale, torch::nn::Module* text_encoder_2) {
  check_usage(std::isfinite(user_scale), "the scale of LoRA ", path.string(), " is not finite");
  at::NoGradGuard no_grad;
  const LoraFile file = read_lora_file(path);
  LoraLoadReport report;
  report.file = file.path;
  report.dialect = dialect_name(file.dialect);
  report.unmatched = file.other_keys;
  try {
    load_component(file, denoiser_component(file), &denoiser, user_scale, report, report.unet);
    load_component(file, LoraComponent::kTextEncoder, text_encoder, user_scale, report, report.text_encoder);
    load_component(file, LoraComponent::kTextEncoder2, text_encoder_2, user_scale, report, report.text_encoder_2);
  } catch (...) {
    for (const auto& adapter : {report.unet, report.text_encoder, report.text_encoder_2}) {
      if (adapter) adapter->remove();
    }
    throw;
  }
  check_input(!report.matched.empty(), file.path.string(), ": no key of this ", report.dialect,
              " LoRA fits a layer of the model; it holds ", report.unmatched.size(),
              " keys: ", joined(report.unmatched));
  if (!report.unmatched.empty()) {
    log_warn(file.path.string(), ": ", report.unmatched.size(),
             " keys fit no layer and have no effect: ", joined(report.unmatched));
  }
  return report;
}

}  // namespace prefusion::nn
