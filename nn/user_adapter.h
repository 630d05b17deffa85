#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/safetensors.h"
#include "core/weights.h"
#include "nn/attention.h"

// Adapters that know users ("Personalized Preference Fine-tuning of Diffusion Models", arXiv 2501.06655): every
// cross-attention of a network attends to the states of a user as well, with keys and values of their own.
namespace prefusion::nn {

struct UserAdapterConfig {
  int64_t num_tokens = 4;  // states of a user
  int64_t width = 64;      // of each
};

// A user and their share in a mixture.
struct WeightedUser {
  std::string name;
  double weight = 1.0;
};

// The projections of one network and a table of users. The user without a name is the empty user: who is asked for when
// nobody is known. A pass sees the users whose states its conditioning holds; without any the network answers as if it
// had no adapter. All tensors are fp32 on the device of the network.
class UserAdapter {
 public:
  static constexpr const char* kEmptyUser = "";

  // A new adapter on all cross-attentions: keys uniform within 1 / sqrt(width), values zero, so that no user changes
  // anything yet; the empty user's states near zero. Drawn on the CPU, so that every device starts alike. Usage error
  // for a network without cross-attention, and for one that has a user adapter already.
  static std::shared_ptr<UserAdapter> create(torch::nn::Module& network, const UserAdapterConfig& config,
                                             at::Generator generator);

  // The adapter of a file that save() wrote. Input error when it is none, is damaged, or does not fit the network.
  static std::shared_ptr<UserAdapter> load(torch::nn::Module& network, const std::filesystem::path& path);
  void save(const std::filesystem::path& path) const;

  // Adds users who are not in the table yet: with standard normal states, which depend on seed and name alone, or with
  // those of the empty user.
  void add_users(const std::vector<std::string>& names, uint64_t seed);
  void add_users_like_empty(const std::vector<std::string>& names);

  // Replaces the table by states made elsewhere. The empty user is their mean.
  void set_users(const TensorMap& states);

  // [B, num_tokens, width] of these users, the empty user's where one is not in the table; with gradients.
  at::Tensor states(const std::vector<std::string>& names) const;
  // [num_tokens, width] between users: the mean by weight. Usage error for one who is not in the table, and for weights
  // whose sum is not positive.
  at::Tensor mixture(const std::vector<WeightedUser>& users) const;

  bool has_user(const std::string& name) const { return users_.contains(name); }
  std::vector<std::string> users() const;  // sorted, without the empty one
  const UserAdapterConfig& config() const { return config_; }

  // A factor on what the users' attention adds; 1 after creation.
  void set_scale(double scale);

  // "<path>.to_k_user.weight" and "<path>.to_v_user.weight" in network order; "users.<name>" by name. The live tensors.
  std::vector<NamedTensor> projections() const;
  std::vector<NamedTensor> user_tensors() const;

 private:
  struct Layer {
    std::string path;
    std::shared_ptr<AttentionImpl> attention;
  };

  UserAdapter(torch::nn::Module& network, const UserAdapterConfig& config);

  at::Device device() const;

  UserAdapterConfig config_;
  std::vector<Layer> layers_;
  std::map<std::string, at::Tensor> users_;  // by name, the empty one among them
};

// States of users made elsewhere: a safetensors file with a tensor [width] or [num_tokens, width] a user, all of one
// shape; [num_tokens, width] fp32 by name. Input error when one has another shape, is not finite or has no name.
TensorMap read_user_states(const std::filesystem::path& path);

// Whether a safetensors file says that it is a user adapter.
bool is_user_adapter(const Metadata& metadata);

}  // namespace prefusion::nn
