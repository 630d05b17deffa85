#include "losses/online/longalign.h"

#include <ATen/ATen.h>

namespace prefusion::losses {

at::Tensor common_direction(const at::Tensor& text) {
  const at::Tensor mean = text.detach().mean(0);
  return mean / mean.norm().clamp_min(1e-12);
}

at::Tensor decomposed_score(const at::Tensor& text, const at::Tensor& image, const at::Tensor& direction,
                            double weight) {
  const at::Tensor own = text.detach();
  const at::Tensor common = (own * direction.detach()).sum(1, /*keepdim=*/true) * direction.detach();
  return ((own - (1 - weight) * common) * image).sum(1);
}

at::Tensor longalign_loss(const at::Tensor& score, const ObjectiveParams& params) {
  return (1 - score) / 2 - 0.09 * (1 - params.get("weight"));
}

}  // namespace prefusion::losses
