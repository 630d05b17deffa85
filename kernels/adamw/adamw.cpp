#include "kernels/adamw/adamw.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "kernels/dispatch.h"

namespace prefusion::kernels {
namespace {

constexpr const char* kName = "adamw_step";

bool is_half(at::ScalarType dtype) {
  return dtype == at::kBFloat16 || dtype == at::kHalf;
}

void check_arguments(const detail::AdamWArgs& args) {
  const at::Tensor& parameter = args.parameter;
  check_run(is_half(parameter.scalar_type()) && args.gradient.scalar_type() == parameter.scalar_type(), kName,
            ": expected parameter and gradient in bf16 or both in fp16, found ", c10::toString(parameter.scalar_type()),
            " and ", c10::toString(args.gradient.scalar_type()));
  check_run(args.gradient.sizes() == parameter.sizes() && args.gradient.device() == parameter.device(), kName,
            ": the gradient is ", shape_text(args.gradient.sizes()), " on ", args.gradient.device().str(),
            ", the parameter ", shape_text(parameter.sizes()), " on ", parameter.device().str());
  check_run(parameter.is_non_overlapping_and_dense(), kName, ": the parameter must be dense in memory");
  for (const at::Tensor* state : {&args.master, &args.exp_avg, &args.exp_avg_sq}) {
    check_run(state->scalar_type() == at::kFloat && state->device() == parameter.device() &&
                  state->sizes() == parameter.sizes() && state->strides() == parameter.strides(),
              kName, ": master and moments must be fp32, in shape, strides and device of the parameter");
  }
  check_run(
      args.count.dim() == 0 && args.count.scalar_type() == at::kFloat && args.count.device() == parameter.device(),
      kName, ": the step count must be one fp32 number on the parameter's device");
}

// In the memory order of `like`.
at::Tensor in_order_of(const at::Tensor& tensor, const at::Tensor& like) {
  if (tensor.strides() == like.strides()) return tensor;
  return at::empty_like(like).copy_(tensor);
}

}  // namespace

void adamw_step(const at::Tensor& parameter, const at::Tensor& master, const at::Tensor& gradient,
                const at::Tensor& exp_avg, const at::Tensor& exp_avg_sq, const at::Tensor& count,
                const AdamWSettings& settings) {
  const at::NoGradGuard no_grad;
  detail::AdamWArgs args{.parameter = parameter.detach(),
                         .master = master,
                         .gradient = gradient,
                         .exp_avg = exp_avg,
                         .exp_avg_sq = exp_avg_sq,
                         .count = count,
                         .settings = settings};
  check_arguments(args);
  if (parameter.numel() == 0) return;
  args.gradient = in_order_of(gradient, args.parameter);
  PREFUSION_CALL_FOR(parameter.device(), kName, adamw_step, args);
}

}  // namespace prefusion::kernels
