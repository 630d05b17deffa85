#include "losses/dgpo.h"

#include <ATen/ATen.h>

#include "losses/group_math.h"

namespace prefusion::losses {

at::Tensor dgpo_loss(const GroupErrors& errors, const ObjectiveParams& params) {
  const at::Tensor reward = preference(errors);
  const at::Tensor centred = reward - reward.mean(1, /*keepdim=*/true);
  const at::Tensor advantage = centred / (centred.square().mean(1, /*keepdim=*/true).sqrt() + 1e-4);
  const at::Tensor learned = (advantage * improvement(errors).detach()).mean(1);
  return at::sigmoid(-params.kappa * learned) * (advantage * errors.error).mean(1);
}

}  // namespace prefusion::losses
