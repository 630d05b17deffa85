#include "nn/lora.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <atomic>
#include <cctype>
#include <cmath>
#include <set>

#include "core/error.h"
#include "core/logging.h"

namespace prefusion::nn {
namespace {

LoraTarget& target_of(const std::shared_ptr<torch::nn::Module>& layer) {
  return dynamic_cast<LoraTarget&>(*layer);
}

bool is_linear(const LoraTarget& target) {
  return dynamic_cast<const LinearImpl*>(&target) != nullptr;
}

bool matches(const std::string& path, const std::string& entry) {
  return path == entry || path.ends_with("." + entry);
}

// The names one would target layers by: the last part of each path, with the part before it where the last is an index.
std::string candidate_names(const std::vector<LoraLayer>& layers) {
  std::set<std::string> names;
  for (const auto& layer : layers) {
    size_t dot = layer.path.rfind('.');
    if (dot != std::string::npos && std::isdigit(static_cast<unsigned char>(layer.path[dot + 1]))) {
      dot = dot == 0 ? std::string::npos : layer.path.rfind('.', dot - 1);
    }
    names.insert(dot == std::string::npos ? layer.path : layer.path.substr(dot + 1));
  }
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

std::vector<LoraLayer> select_targets(const torch::nn::Module& network, const LoraConfig& config) {
  const std::vector<LoraLayer> layers = lora_layers(network);
  const bool all_linear = config.target_modules.size() == 1 && config.target_modules[0] == "all-linear";
  std::vector<LoraLayer> selected;
  std::set<std::string> used;
  for (const auto& layer : layers) {
    bool is_target = all_linear && is_linear(*layer.target);
    for (const auto& entry : config.target_modules) {
      if (!matches(layer.path, entry)) continue;
      is_target = true;
      used.insert(entry);
    }
    if (is_target) selected.push_back(layer);
  }
  check_usage(!selected.empty(), "no layer of the network matches the target modules '", joined(config.target_modules),
              "'; it has: ", candidate_names(layers));
  for (const auto& entry : config.target_modules) {
    if (!all_linear && !used.contains(entry)) log_warn("target module '", entry, "' matches no layer of the network");
  }
  return selected;
}

// A [r, in, ...] and B [out, r, ...] for a base weight [out, in] or [out, in, kh, kw].
LoraEntry make_entry(const LoraLayer& layer, const LoraConfig& config, at::Generator generator) {
  const at::Tensor& weight = layer.target->base_weight();
  const int64_t fan_in = weight.numel() / weight.size(0);
  const int64_t largest_rank = std::min(fan_in, weight.size(0));
  check_usage(config.rank <= largest_rank, "LoRA rank ", config.rank, " is larger than ", layer.path,
              " can use: its weight ", shape_text(weight.sizes()), " has rank ", largest_rank, " at most");
  std::vector<int64_t> a_shape = weight.sizes().vec();
  a_shape[0] = config.rank;
  std::vector<int64_t> b_shape(weight.dim(), 1);
  b_shape[0] = weight.size(0);
  b_shape[1] = config.rank;
  at::Tensor a = at::empty(a_shape, at::kFloat).normal_(0.0, 1.0 / static_cast<double>(config.rank), generator);
  const auto options = at::TensorOptions().dtype(at::kFloat).device(layer.target->compute_device());
  return {layer.path, layer.layer, a.to(options), at::zeros(b_shape, options), config.alpha};
}

}  // namespace

std::vector<LoraLayer> lora_layers(const torch::nn::Module& network) {
  std::vector<LoraLayer> layers;
  for (const auto& item : network.named_modules("", /*include_self=*/false)) {
    if (auto* target = dynamic_cast<LoraTarget*>(item.value().get())) {
      layers.push_back({item.key(), item.value(), target});
    }
  }
  return layers;
}

std::shared_ptr<LoraAdapter> LoraAdapter::create(torch::nn::Module& network, const LoraConfig& config,
                                                 at::Generator generator) {
  check_usage(config.rank > 0, "LoRA rank must be at least 1, found ", config.rank);
  check_usage(std::isfinite(config.alpha) && config.alpha > 0, "LoRA alpha must be a positive number, found ",
              config.alpha);
  at::NoGradGuard no_grad;
  std::vector<LoraEntry> entries;
  LoraConfig resolved = config;
  const std::vector<LoraLayer> targets = select_targets(network, config);
  for (const auto& layer : targets) entries.push_back(make_entry(layer, config, generator));
  if (config.target_modules.size() == 1 && config.target_modules[0] == "all-linear") {
    resolved.target_modules.clear();
    for (const auto& layer : targets) resolved.target_modules.push_back(layer.path);
  }
  for (auto& parameter : network.parameters()) parameter.set_requires_grad(false);
  auto adapter = attach(std::move(entries), std::move(resolved));
  adapter->set_requires_grad(true);
  return adapter;
}

std::shared_ptr<LoraAdapter> LoraAdapter::attach(std::vector<LoraEntry> entries, LoraConfig config) {
  static std::atomic<int> next_id{1};
  std::shared_ptr<LoraAdapter> adapter(new LoraAdapter);
  adapter->id_ = next_id++;
  adapter->config_ = std::move(config);
  adapter->entries_ = std::move(entries);
  for (const auto& entry : adapter->entries_) {
    target_of(entry.layer).lora_branches().push_back({entry.A, entry.B, entry.scaling(), adapter->id_});
  }
  return adapter;
}

std::vector<NamedTensor> LoraAdapter::parameters() const {
  std::vector<NamedTensor> parameters;
  for (const auto& entry : entries_) {
    parameters.push_back({entry.path + ".lora_A.weight", entry.A});
    parameters.push_back({entry.path + ".lora_B.weight", entry.B});
  }
  return parameters;
}

int64_t LoraAdapter::num_parameters() const {
  int64_t count = 0;
  for (const auto& entry : entries_) count += entry.A.numel() + entry.B.numel();
  return count;
}

void LoraAdapter::set_requires_grad(bool required) {
  for (const auto& entry : entries_) {
    entry.A.set_requires_grad(required);
    entry.B.set_requires_grad(required);
  }
}

void LoraAdapter::set_scale(double scale) {
  scale_ = scale;
  for (const auto& entry : entries_) {
    for (auto& branch : target_of(entry.layer).lora_branches()) {
      if (branch.adapter == id_) branch.scale = scale * entry.scaling();
    }
  }
}

void LoraAdapter::restrict_to(const TimestepRange& range, TimestepAnnouncer& network) {
  config_.timestep_range = range;
  const auto weights = std::make_shared<at::Tensor>();
  for (const auto& entry : entries_) {
    for (auto& branch : target_of(entry.layer).lora_branches()) {
      if (branch.adapter == id_) branch.item_weights = weights;
    }
  }
  network.on_timesteps([weights, range](const at::Tensor& timesteps) { *weights = range.contains(timesteps); });
}

void LoraAdapter::remove() {
  for (const auto& entry : entries_) {
    std::erase_if(target_of(entry.layer).lora_branches(),
                  [this](const LoraBranch& branch) { return branch.adapter == id_; });
  }
}

AdapterOff::AdapterOff(torch::nn::Module& network) {
  for (const auto& layer : lora_layers(network)) {
    if (layer.target->lora_branches().empty()) continue;
    saved_.push_back({layer.layer, layer.target->lora_enabled(), std::nullopt});
    layer.target->set_lora_enabled(false);
  }
}

AdapterOff::AdapterOff(const LoraAdapter& adapter) {
  for (const auto& entry : adapter.entries()) {
    LoraTarget& target = target_of(entry.layer);
    saved_.push_back({entry.layer, target.lora_enabled(), target.lora_branches()});
    std::erase_if(target.lora_branches(), [&](const LoraBranch& branch) { return branch.adapter == adapter.id(); });
  }
}

AdapterOff::~AdapterOff() {
  for (auto& saved : saved_) {
    LoraTarget& target = target_of(saved.layer);
    target.set_lora_enabled(saved.enabled);
    if (saved.branches) target.lora_branches() = std::move(*saved.branches);
  }
}

void merge_lora(torch::nn::Module& network) {
  at::NoGradGuard no_grad;
  for (const auto& layer : lora_layers(network)) {
    auto& branches = layer.target->lora_branches();
    if (branches.empty()) continue;
    for (const auto& branch : branches) {
      check_usage(!branch.item_weights, "an adapter that depends on the timestep cannot be merged into the weights");
    }
    at::Tensor& weight = layer.target->base_weight();
    at::Tensor merged = weight.to(at::kFloat);
    for (const auto& branch : branches) {
      // A Conv2d branch ends in a 1x1 convolution, so both kinds are one product of flattened matrices.
      const at::Tensor product = at::mm(branch.B.to(at::kFloat).flatten(1), branch.A.to(at::kFloat).flatten(1));
      merged = merged + branch.scale * product.view(weight.sizes());
    }
    weight.set_data(merged.to(weight.scalar_type()));
    branches.clear();
  }
}

}  // namespace prefusion::nn
