#include "schedulers/per_item.h"

#include <ATen/ATen.h>

#include "core/error.h"

namespace prefusion::schedulers {

at::Tensor align_to(const at::Tensor& numbers, const at::Tensor& like) {
  check_run(numbers.dim() <= like.dim(), "timesteps of shape ", shape_text(numbers.sizes()),
            " do not belong to latents of shape ", shape_text(like.sizes()));
  std::vector<int64_t> shape = numbers.sizes().vec();
  shape.resize(static_cast<size_t>(like.dim()), 1);
  return numbers.reshape(shape);
}

at::Tensor alphas_at(const at::Tensor& alphas_cumprod, const at::Tensor& timesteps, const at::Tensor& end,
                     const at::Tensor& like) {
  const at::Device device = timesteps.device();
  const at::Tensor inside =
      alphas_cumprod.to(device).index_select(0, timesteps.reshape({-1}).clamp_min(0)).reshape(timesteps.sizes());
  return align_to(at::where(timesteps < 0, end.to(device), inside), like).to(like.scalar_type());
}

void select_items(at::Tensor& remembered, const at::Tensor& items) {
  if (remembered.defined()) remembered = remembered.index_select(0, items);
}

at::ScalarType wide_type(const at::Tensor& prediction) {
  return prediction.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

}  // namespace prefusion::schedulers
