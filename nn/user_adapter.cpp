#include "nn/user_adapter.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "core/content_hash.h"
#include "core/error.h"
#include "core/rng.h"

namespace prefusion::nn {
namespace {

constexpr const char* kKindKey = "prefusion_adapter";
constexpr const char* kKind = "user";
constexpr const char* kUserPrefix = "users.";

// The states of a user as the file holds them, checked.
at::Tensor checked_states(const at::Tensor& tensor, const UserAdapterConfig& config, const std::string& where) {
  check_input(at::isFloatingType(tensor.scalar_type()), where, " has type ",
              safetensors_dtype_name(tensor.scalar_type()), ", expected a floating type");
  const std::vector<int64_t> shape = {config.num_tokens, config.width};
  const bool is_one_state = tensor.dim() == 1 && config.num_tokens == 1;
  const at::Tensor states = is_one_state ? tensor.unsqueeze(0) : tensor;
  check_input(states.sizes() == at::IntArrayRef(shape), where, " has shape ", shape_text(tensor.sizes()), ", expected ",
              shape_text(shape));
  check_input(states.isfinite().all().item<bool>(), where, " holds values that are not finite");
  return states.to(at::kFloat);
}

// [states, width] of a tensor that says how large a user is.
UserAdapterConfig config_of(const at::Tensor& states, const std::string& where) {
  const bool is_table = (states.dim() == 1 || states.dim() == 2) && states.numel() > 0;
  check_input(is_table, where, " has shape ", shape_text(states.sizes()), ", expected [width] or [states, width]");
  return {.num_tokens = states.dim() == 1 ? 1 : states.size(0), .width = states.size(-1)};
}

std::string some_of(const std::vector<std::string>& names) {
  constexpr size_t kShown = 10;
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kShown); ++i) text += (i ? ", " : "") + names[i];
  if (names.size() > kShown) text += concat(" and ", names.size() - kShown, " more");
  return text.empty() ? "none" : text;
}

}  // namespace

UserAdapter::UserAdapter(torch::nn::Module& network, const UserAdapterConfig& config) : config_(config) {
  for (const auto& item : network.named_modules("", /*include_self=*/false)) {
    auto attention = std::dynamic_pointer_cast<AttentionImpl>(item.value());
    if (!attention || !attention->is_cross_attention()) continue;
    check_usage(!attention->user_branch.to_k.defined(), "the network has a user adapter already; give one");
    layers_.push_back({item.key(), std::move(attention)});
  }
  check_usage(!layers_.empty(), "the network has no cross-attention that a user adapter could be attached to");
  for (const Layer& layer : layers_) {
    const int64_t width = layer.attention->to_q->weight.size(0);
    const auto options = at::TensorOptions().dtype(at::kFloat).device(layer.attention->to_q->compute_device());
    layer.attention->user_branch.to_k = at::zeros({width, config_.width}, options);
    layer.attention->user_branch.to_v = at::zeros({width, config_.width}, options);
  }
}

std::shared_ptr<UserAdapter> UserAdapter::create(torch::nn::Module& network, const UserAdapterConfig& config,
                                                 at::Generator generator) {
  check_usage(config.num_tokens > 0 && config.width > 0, "a user needs states: found ", config.num_tokens, " of width ",
              config.width);
  at::NoGradGuard no_grad;
  std::shared_ptr<UserAdapter> adapter(new UserAdapter(network, config));
  const double bound = 1.0 / std::sqrt(static_cast<double>(config.width));
  for (const Layer& layer : adapter->layers_) {
    at::Tensor& to_k = layer.attention->user_branch.to_k;
    to_k.copy_(at::empty(to_k.sizes(), at::kFloat).uniform_(-bound, bound, generator));
  }
  constexpr double kSmall = 0.02;
  const at::Tensor empty = at::empty({config.num_tokens, config.width}, at::kFloat).normal_(0.0, kSmall, generator);
  adapter->users_[kEmptyUser] = empty.to(adapter->device());
  return adapter;
}

std::shared_ptr<UserAdapter> UserAdapter::load(torch::nn::Module& network, const std::filesystem::path& path) {
  at::NoGradGuard no_grad;
  const std::string where = path.string();
  Metadata metadata;
  TensorMap tensors = read_safetensors(path, &metadata);
  check_input(is_user_adapter(metadata), where, ": is no user adapter: its header lacks ", kKindKey, " = ", kKind);
  const std::string empty = std::string(kUserPrefix) + kEmptyUser;
  check_input(tensors.contains(empty), where, ": the states of the empty user, '", empty, "', are missing");
  const UserAdapterConfig config = config_of(tensors.at(empty), where + ": '" + empty + "'");
  std::shared_ptr<UserAdapter> adapter(new UserAdapter(network, config));
  for (auto entry = tensors.begin(); entry != tensors.end();) {
    if (!entry->first.starts_with(kUserPrefix)) {
      ++entry;
      continue;
    }
    const at::Tensor states = checked_states(entry->second, config, where + ": '" + entry->first + "'");
    adapter->users_[entry->first.substr(empty.size())] = states.to(adapter->device()).clone();
    entry = tensors.erase(entry);
  }
  load_weights_strict(adapter->projections(), tensors, at::kFloat, adapter->device(), where);
  for (const auto& [name, tensor] : adapter->projections()) {
    check_input(tensor.isfinite().all().item<bool>(), where, ": '", name, "' holds values that are not finite");
  }
  return adapter;
}

void UserAdapter::save(const std::filesystem::path& path) const {
  TensorMap tensors;
  for (const auto& [name, tensor] : projections()) tensors[name] = tensor.detach();
  for (const auto& [name, tensor] : user_tensors()) tensors[name] = tensor.detach();
  write_safetensors(path, tensors, {{"format", "pt"}, {kKindKey, kKind}});
}

void UserAdapter::add_users(const std::vector<std::string>& names, uint64_t seed) {
  for (const std::string& name : names) {
    if (has_user(name)) continue;
    const uint64_t number = ContentHashHasher()(ContentHasher().add(name).finish());
    const DrawKey key{.seed = seed, .item = number};
    users_[name] = philox_randn({config_.num_tokens, config_.width}, key, RandomPurpose::kInit).to(device());
  }
}

void UserAdapter::add_users_like_empty(const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    if (!has_user(name)) users_[name] = users_.at(kEmptyUser).detach().clone();
  }
}

void UserAdapter::set_users(const TensorMap& states) {
  at::NoGradGuard no_grad;
  std::map<std::string, at::Tensor> users;
  at::Tensor sum = at::zeros_like(users_.at(kEmptyUser));
  for (const auto& [name, tensor] : states) {
    users[name] = tensor.to(device()).clone();
    sum += users[name];
  }
  users[kEmptyUser] = sum / static_cast<double>(states.size());
  users_ = std::move(users);
}

at::Tensor UserAdapter::states(const std::vector<std::string>& names) const {
  std::vector<at::Tensor> states;
  for (const std::string& name : names) {
    const auto found = users_.find(name);
    states.push_back(found == users_.end() ? users_.at(kEmptyUser) : found->second);
  }
  return at::stack(states);
}

at::Tensor UserAdapter::mixture(const std::vector<WeightedUser>& users) const {
  double total = 0;
  for (const auto& [name, weight] : users) {
    check_usage(has_user(name), "user '", name, "' is not known; the adapter's users are ", some_of(this->users()));
    total += weight;
  }
  check_usage(std::isfinite(total) && total > 0, "the weights of the users must have a positive sum, found ", total);
  // The share of a single user is one, so that its states come out to the bit whatever the weight.
  at::Tensor mean = at::zeros_like(users_.at(kEmptyUser));
  for (const auto& [name, weight] : users) mean = mean + (weight / total) * users_.at(name).detach();
  return mean;
}

std::vector<std::string> UserAdapter::users() const {
  std::vector<std::string> names;
  for (const auto& [name, states] : users_) {
    if (name != kEmptyUser) names.push_back(name);
  }
  return names;
}

void UserAdapter::set_scale(double scale) {
  for (const Layer& layer : layers_) layer.attention->user_branch.scale = scale;
}

std::vector<NamedTensor> UserAdapter::projections() const {
  std::vector<NamedTensor> tensors;
  for (const Layer& layer : layers_) {
    tensors.push_back({layer.path + ".to_k_user.weight", layer.attention->user_branch.to_k});
    tensors.push_back({layer.path + ".to_v_user.weight", layer.attention->user_branch.to_v});
  }
  return tensors;
}

std::vector<NamedTensor> UserAdapter::user_tensors() const {
  std::vector<NamedTensor> tensors;
  for (const auto& [name, states] : users_) tensors.push_back({kUserPrefix + name, states});
  return tensors;
}

at::Device UserAdapter::device() const {
  return layers_.front().attention->to_q->compute_device();
}

TensorMap read_user_states(const std::filesystem::path& path) {
  const std::string where = path.string();
  TensorMap states = read_safetensors(path);
  check_input(!states.empty(), where, ": holds no user");
  const UserAdapterConfig config = config_of(states.begin()->second, where + ": user '" + states.begin()->first + "'");
  for (auto& [name, tensor] : states) {
    check_input(!name.empty(), where, ": a user has no name; the empty one is nobody's");
    tensor = checked_states(tensor, config, concat(where, ": user '", name, "'"));
  }
  return states;
}

bool is_user_adapter(const Metadata& metadata) {
  const auto found = metadata.find(kKindKey);
  return found != metadata.end() && found->second == kKind;
}

}  // namespace prefusion::nn
