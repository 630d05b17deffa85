#pragma once

#include <ATen/core/Tensor.h>

namespace prefusion::schedulers {

// Numbers of the leading dimensions of `like` ([B], or [B, k] for groups) -> the same with ones appended up to its
// rank. Run error when there are more of them.
at::Tensor align_to(const at::Tensor& numbers, const at::Tensor& like);

// abar at int64 timesteps of items, `end` (fp32 scalar) where they are negative; aligned to `like`, in its dtype.
at::Tensor alphas_at(const at::Tensor& alphas_cumprod, const at::Tensor& timesteps, const at::Tensor& end,
                     const at::Tensor& like);

// The rows `items` (int64 [M], on the same device) of what a sampler remembers [B, ...]; undefined stays so.
void select_items(at::Tensor& remembered, const at::Tensor& items);

// fp32, or fp64 for fp64 input: what arithmetic on predictions is done in.
at::ScalarType wide_type(const at::Tensor& prediction);

}  // namespace prefusion::schedulers
