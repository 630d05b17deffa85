#include "kernels/guided_step/guided_step.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "kernels/dispatch.h"

namespace prefusion::kernels {
namespace {

constexpr const char* kName = "guided_step";

void check_arguments(const at::Tensor& both, const at::Tensor& sample) {
  const bool fits = both.dim() == sample.dim() && both.dim() >= 1 && both.size(0) == 2 * sample.size(0) &&
                    both.sizes().slice(1) == sample.sizes().slice(1);
  check_run(fits, kName, ": predictions ", shape_text(both.sizes()), " and sample ", shape_text(sample.sizes()),
            " do not fit; expected [2 B, ...] and [B, ...]");
  check_float_type(both.scalar_type(), kName, "the predictions");
  check_run(both.scalar_type() == sample.scalar_type() && both.device() == sample.device(), kName,
            ": predictions and sample differ in dtype or device");
  check_run(!at::GradMode::is_enabled() || !(both.requires_grad() || sample.requires_grad()), kName,
            ": there is no gradient");
}

}  // namespace

GuidedStep guided_step(const at::Tensor& both, const at::Tensor& sample, double scale, const LinearStep& step) {
  check_arguments(both, sample);
  const at::MemoryFormat order = both.suggest_memory_format();
  detail::GuidedStepTensors tensors{.both = both.contiguous(order),
                                    .sample = sample.contiguous(order),
                                    .guided = at::empty(sample.sizes(), both.options(), order),
                                    .next = at::empty(sample.sizes(), both.options(), order),
                                    .scale = scale,
                                    .step = step};
  if (sample.numel() == 0) return {tensors.guided, tensors.next};
  PREFUSION_CALL_FOR(both.device(), kName, guided_step, tensors);
  return {tensors.guided, tensors.next};
}

}  // namespace prefusion::kernels
