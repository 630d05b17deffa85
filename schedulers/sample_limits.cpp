#include "schedulers/sample_limits.h"

#include <ATen/ATen.h>

namespace prefusion::schedulers {

at::Tensor threshold_sample(const SchedulerConfig& resolved, const at::Tensor& sample) {
  at::Tensor flat = sample.reshape({sample.size(0), -1});
  if (flat.scalar_type() != at::kDouble) flat = flat.to(at::kFloat);
  at::Tensor limit = at::quantile(flat.abs(), resolved.dynamic_thresholding_ratio, 1);
  limit = at::clamp(limit, 1, resolved.sample_max_value).unsqueeze(1);
  return (at::clamp(flat, -limit, limit) / limit).reshape(sample.sizes()).to(sample.scalar_type());
}

at::Tensor limit_sample(const SchedulerConfig& resolved, const at::Tensor& sample) {
  if (resolved.thresholding) return threshold_sample(resolved, sample);
  if (*resolved.clip_sample) return at::clamp(sample, -resolved.clip_sample_range, resolved.clip_sample_range);
  return sample;
}

}  // namespace prefusion::schedulers
