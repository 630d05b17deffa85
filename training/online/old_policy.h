#pragma once

#include <functional>
#include <vector>

#include "core/weights.h"
#include "training/policy.h"

namespace prefusion::training {

// The policy that samples in DiffusionNFT: it follows the trained weights at a distance. Costs one fp32 copy of them.
class OldPolicy {
 public:
  // Starts at the policy's weights. `policy` must outlive it.
  explicit OldPolicy(const Policy& policy);

  // Calls `use` while the network has the old weights, without autograd.
  void with_network(const std::function<void(unet::Denoiser&)>& use);

  // old = decay * old + (1 - decay) * policy; exact at 0 and 1.
  void follow(double decay);

  // For checkpoints, names beginning with "old.".
  TensorMap state() const;
  void load_state(const TensorMap& state, const std::string& where);

 private:
  const Policy& policy_;
  std::vector<NamedTensor> values_;
};

}  // namespace prefusion::training
