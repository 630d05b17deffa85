#include "nn/lora_gate.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "core/error.h"
#include "core/json_config.h"
#include "nn/timestep_embedding.h"

namespace prefusion::nn {
namespace {

constexpr const char* kKindKey = "prefusion_adapter";
constexpr const char* kKind = "lora-gate";
constexpr const char* kExpertsKey = "prefusion_experts";  // [{"name": ..., "timestep_range": "LOW:HIGH" or null}, ...]
constexpr int64_t kSinusoids = 64;

std::string expert_prefix(size_t expert) {
  return concat("experts.", expert, ".");
}

std::vector<std::string> layers_of(const std::vector<LoraExpert>& experts) {
  std::set<std::string> paths;
  for (const LoraExpert& expert : experts) {
    for (const LoraEntry& entry : expert.adapter->entries()) paths.insert(entry.path);
  }
  return {paths.begin(), paths.end()};
}

Json describe(const std::vector<LoraExpert>& experts) {
  Json list = Json::array();
  for (const auto& [name, adapter] : experts) {
    const auto& range = adapter->config().timestep_range;
    list.push_back({{"name", name}, {"timestep_range", range ? Json(range->text()) : Json()}});
  }
  return list;
}

// What a file says of an expert besides its tensors.
struct ExpertFacts {
  std::string name;
  std::optional<TimestepRange> range;
};

ExpertFacts read_facts(const Json& json, const std::string& where) {
  check_input(json.is_object() && json.contains("name") && json["name"].is_string(), where, ": ", kExpertsKey,
              " must list experts with a name, found ", json.dump());
  ExpertFacts facts{.name = json["name"].get<std::string>(), .range = {}};
  const Json range = json.value("timestep_range", Json());
  if (range.is_null()) return facts;
  if (range.is_string()) facts.range = parse_timestep_range(range.get<std::string>());
  check_input(facts.range.has_value(), where, ": ", kExpertsKey, ": the timestep range ", range.dump(),
              " must be LOW:HIGH");
  return facts;
}

std::vector<ExpertFacts> read_experts(const Metadata& metadata, const std::string& where) {
  const auto header = metadata.find(kExpertsKey);
  check_input(header != metadata.end(), where, ": its header lacks ", kExpertsKey);
  const Json list = parse_json(header->second, where + ": " + kExpertsKey);
  check_input(list.is_array() && list.size() > 1, where, ": ", kExpertsKey, " must list two experts or more");
  std::vector<ExpertFacts> experts;
  for (const Json& json : list) experts.push_back(read_facts(json, where));
  return experts;
}

// The tensors whose names begin with the prefix, without it; they leave `tensors`.
TensorMap take_part(TensorMap& tensors, const std::string& prefix) {
  TensorMap part;
  for (auto entry = tensors.lower_bound(prefix); entry != tensors.end() && entry->first.starts_with(prefix);) {
    part[entry->first.substr(prefix.size())] = entry->second;
    entry = tensors.erase(entry);
  }
  return part;
}

LoraEntry read_entry(const std::string& path, const LoraLayer& layer, const TensorMap& part, const std::string& where) {
  const auto tensor = [&](const char* suffix) {
    const auto found = part.find(path + suffix);
    check_input(found != part.end(), where, "'", path, suffix, "' is missing");
    check_input(at::isFloatingType(found->second.scalar_type()) && found->second.isfinite().all().item<bool>(), where,
                "'", path, suffix, "' must be finite floating numbers");
    return found->second.to(layer.target->compute_device(), at::kFloat, /*non_blocking=*/false, /*copy=*/true);
  };
  const at::Tensor& weight = layer.target->base_weight();
  LoraEntry entry{path, layer.layer, tensor(".lora_A.weight"), tensor(".lora_B.weight"), 1.0};
  std::vector<int64_t> a_shape = weight.sizes().vec();
  a_shape[0] = entry.A.dim() > 0 ? entry.A.size(0) : 0;
  std::vector<int64_t> b_shape(weight.dim(), 1);
  b_shape[0] = weight.size(0);
  b_shape[1] = a_shape[0];
  check_input(
      a_shape[0] > 0 && entry.A.sizes() == at::IntArrayRef(a_shape) && entry.B.sizes() == at::IntArrayRef(b_shape),
      where, "'", path, "': A ", shape_text(entry.A.sizes()), " and B ", shape_text(entry.B.sizes()),
      " do not fit the layer's weight ", shape_text(weight.sizes()));
  const at::Tensor alpha = tensor(".alpha");
  check_input(alpha.numel() == 1, where, "'", path, ".alpha' must be a single number");
  entry.alpha = alpha.item<double>();
  return entry;
}

std::shared_ptr<LoraAdapter> read_expert(torch::nn::Module& network, TensorMap& tensors, size_t number,
                                         const std::string& file) {
  const std::string prefix = expert_prefix(number);
  const std::string where = concat(file, ": expert ", number, ": ");
  TensorMap part = take_part(tensors, prefix);
  std::vector<LoraEntry> entries;
  for (const LoraLayer& layer : lora_layers(network)) {
    if (!part.contains(layer.path + ".lora_A.weight")) continue;
    entries.push_back(read_entry(layer.path, layer, part, where));
    for (const char* suffix : {".lora_A.weight", ".lora_B.weight", ".alpha"}) part.erase(layer.path + suffix);
  }
  check_input(part.empty(), where, "'", part.empty() ? "" : part.begin()->first, "' fits no layer of the model (",
              part.size(), " such tensors)");
  check_input(!entries.empty(), where, "has no layer");
  LoraConfig config{.rank = entries.front().rank(), .alpha = entries.front().alpha, .target_modules = {}};
  for (const LoraEntry& entry : entries) config.target_modules.push_back(entry.path);
  return LoraAdapter::attach(std::move(entries), std::move(config));
}

}  // namespace

std::shared_ptr<LoraGate> LoraGate::create(torch::nn::Module& network, std::vector<LoraExpert> experts, int64_t width,
                                           at::Generator generator) {
  check_usage(experts.size() > 1, "a gate needs two experts or more, found ", experts.size());
  check_usage(width > 0, "a gate needs hidden units, found ", width);
  at::NoGradGuard no_grad;
  std::shared_ptr<LoraGate> gate(new LoraGate);
  gate->experts_ = std::move(experts);
  gate->layers_ = layers_of(gate->experts_);
  const auto num_layers = static_cast<int64_t>(gate->layers_.size());
  const auto num_experts = static_cast<int64_t>(gate->experts_.size());
  const auto options = gate->experts_.front().adapter->entries().front().A.options().requires_grad(false);
  const double bound = 1.0 / std::sqrt(static_cast<double>(kSinusoids));
  gate->hidden_weight_ = at::empty({width, kSinusoids}, at::kFloat).uniform_(-bound, bound, generator).to(options);
  gate->hidden_bias_ = at::zeros({width}, options);
  gate->heads_weight_ = at::zeros({num_layers * num_experts, width}, options);
  gate->heads_bias_ = at::zeros({num_layers * num_experts}, options);
  gate->has_layer_ = at::zeros({num_layers, num_experts}, at::kBool);
  hang_on(gate, network);
  gate->has_layer_ = gate->has_layer_.to(options.device());
  return gate;
}

void LoraGate::hang_on(const std::shared_ptr<LoraGate>& gate, torch::nn::Module& network) {
  auto* announcer = dynamic_cast<TimestepAnnouncer*>(&network);
  check_usage(announcer != nullptr, "the network does not announce timesteps, which a gate depends on");
  using Slot = std::shared_ptr<at::Tensor>;
  std::map<std::pair<int64_t, int64_t>, Slot> slots;  // by layer and expert
  const std::vector<std::string>& layers = gate->layers_;
  for (size_t k = 0; k < gate->experts_.size(); ++k) {
    const LoraAdapter& adapter = *gate->experts_[k].adapter;
    for (const LoraEntry& entry : adapter.entries()) {
      const auto layer = std::lower_bound(layers.begin(), layers.end(), entry.path) - layers.begin();
      gate->has_layer_[layer][static_cast<int64_t>(k)] = true;
      const Slot slot = slots[{layer, static_cast<int64_t>(k)}] = std::make_shared<at::Tensor>();
      for (auto& branch : dynamic_cast<LoraTarget&>(*entry.layer).lora_branches()) {
        if (branch.adapter == adapter.id()) branch.item_weights = slot;
      }
    }
  }
  announcer->on_timesteps([gate, slots](const at::Tensor& timesteps) {
    const at::Tensor all = gate->weights(timesteps);
    for (const auto& [place, slot] : slots) *slot = all.select(1, place.first).select(1, place.second);
  });
}

at::Tensor LoraGate::weights(const at::Tensor& timesteps) const {
  const at::Tensor sinusoids = sinusoidal_embedding(timesteps, {.dim = kSinusoids}).to(hidden_weight_.options());
  const at::Tensor hidden = at::silu(at::linear(sinusoids, hidden_weight_, hidden_bias_));
  const at::Tensor logits =
      at::linear(hidden, heads_weight_, heads_bias_).view({-1, has_layer_.size(0), has_layer_.size(1)});
  std::vector<at::Tensor> acts;
  for (const auto& [name, adapter] : experts_) {
    const auto& range = adapter->config().timestep_range;
    acts.push_back(range ? range->contains(timesteps).to(at::kBool) : at::ones_like(timesteps, at::kBool));
  }
  const at::Tensor allowed = at::logical_and(has_layer_.unsqueeze(0), at::stack(acts, 1).unsqueeze(1));
  constexpr double kNever = -1e30;  // and not -inf, which gives NaN where no expert is allowed
  return at::softmax(logits.masked_fill(allowed.logical_not(), kNever), -1) * allowed.to(at::kFloat);
}

std::vector<NamedTensor> LoraGate::parameters() const {
  return {{"gate.hidden.weight", hidden_weight_},
          {"gate.hidden.bias", hidden_bias_},
          {"gate.heads.weight", heads_weight_},
          {"gate.heads.bias", heads_bias_}};
}

void LoraGate::save(const std::filesystem::path& path) const {
  TensorMap tensors;
  for (const auto& [name, tensor] : parameters()) tensors[name] = tensor.detach();
  for (size_t k = 0; k < experts_.size(); ++k) {
    for (const LoraEntry& entry : experts_[k].adapter->entries()) {
      const std::string name = expert_prefix(k) + entry.path;
      tensors[name + ".lora_A.weight"] = entry.A.detach();
      tensors[name + ".lora_B.weight"] = entry.B.detach();
      tensors[name + ".alpha"] = at::scalar_tensor(entry.alpha, at::kFloat);
    }
  }
  write_safetensors(path, tensors,
                    {{"format", "pt"}, {kKindKey, kKind}, {kExpertsKey, describe(experts_).dump(-1, ' ', true)}});
}

std::shared_ptr<LoraGate> LoraGate::load(torch::nn::Module& network, const std::filesystem::path& path,
                                         double user_scale) {
  at::NoGradGuard no_grad;
  const std::string where = path.string();
  Metadata metadata;
  TensorMap tensors = read_safetensors(path, &metadata);
  check_input(is_lora_gate(metadata), where, ": is no gated LoRA: its header lacks ", kKindKey, " = ", kKind);
  const std::vector<ExpertFacts> described = read_experts(metadata, where);
  const auto width = tensors.find("gate.hidden.bias");
  check_input(width != tensors.end() && width->second.dim() == 1 && width->second.numel() > 0, where,
              ": 'gate.hidden.bias' must be there and have one dimension");
  const int64_t hidden_units = width->second.size(0);
  std::vector<LoraExpert> experts;
  try {
    for (size_t k = 0; k < described.size(); ++k) {
      const ExpertFacts& facts = described[k];
      experts.push_back({facts.name, read_expert(network, tensors, k, where)});
      experts.back().adapter->set_scale(user_scale);
      auto* announcer = dynamic_cast<TimestepAnnouncer*>(&network);
      if (facts.range && announcer) experts.back().adapter->restrict_to(*facts.range, *announcer);
    }
    auto gate = create(network, experts, hidden_units, at::Generator());
    load_weights_strict(gate->parameters(), tensors, at::kFloat, gate->hidden_weight_.device(), where);
    for (const auto& [name, tensor] : gate->parameters()) {
      check_input(tensor.isfinite().all().item<bool>(), where, ": '", name, "' holds values that are not finite");
    }
    return gate;
  } catch (...) {
    for (const auto& expert : experts) expert.adapter->remove();
    throw;
  }
}

std::vector<std::string> expert_names(const Metadata& metadata, const std::string& where) {
  std::vector<std::string> names;
  for (const auto& [name, range] : read_experts(metadata, where)) {
    names.push_back(range ? name + " at " + range->text() : name);
  }
  return names;
}

bool is_lora_gate(const Metadata& metadata) {
  const auto found = metadata.find(kKindKey);
  return found != metadata.end() && found->second == kKind;
}

}  // namespace prefusion::nn
