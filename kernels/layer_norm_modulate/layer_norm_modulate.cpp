#include "kernels/layer_norm_modulate/layer_norm_modulate.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstdint>
#include <limits>

#include "core/error.h"
#include "kernels/dispatch.h"

namespace prefusion::kernels {
namespace {

constexpr const char* kName = "layer_norm_modulate";

void check_modulation(const at::Tensor& input, const at::Tensor& modulation, const char* what) {
  check_run(modulation.dim() == 2 && modulation.size(0) == input.size(0) && modulation.size(1) == input.size(2), kName,
            ": ", what, " must be [", input.size(0), ", ", input.size(2), "], found ", shape_text(modulation.sizes()));
  check_run(modulation.scalar_type() == input.scalar_type(), kName, ": ", what, " is ",
            c10::toString(modulation.scalar_type()), ", the input ", c10::toString(input.scalar_type()));
  check_run(modulation.device() == input.device(), kName, ": ", what, " and input are on different devices");
}

void check_arguments(const at::Tensor& input, const at::Tensor& scale, const at::Tensor& shift) {
  check_run(input.defined() && scale.defined() && shift.defined() && input.dim() == 3, kName,
            ": input must be [B, N, D], scale and shift [B, D]");
  check_float_type(input.scalar_type(), kName, "input");
  check_run(input.size(2) > 0 && input.size(2) <= std::numeric_limits<int32_t>::max(), kName, ": rows of ",
            input.size(2), " elements have no layer norm");
  check_modulation(input, scale, "scale");
  check_modulation(input, shift, "shift");
}

void forward_dense(const detail::LayerNormModulateArgs& args) {
  if (args.input.numel() == 0) return;
  PREFUSION_CALL_FOR(args.input.device(), kName, layer_norm_modulate, args);
}

void backward_dense(const detail::LayerNormModulateGradArgs& args) {
  PREFUSION_CALL_FOR(args.forward.input.device(), kName, layer_norm_modulate_backward, args);
}

class LayerNormModulate : public torch::autograd::Function<LayerNormModulate> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& input, const at::Tensor& scale,
                            const at::Tensor& shift, double eps) {
    const auto acc = input.options().dtype(input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
    const detail::LayerNormModulateArgs args{.input = input.contiguous(),
                                             .scale = with_dense_rows(scale),
                                             .shift = with_dense_rows(shift),
                                             .output = at::empty(input.sizes(), input.options()),
                                             .mean = at::empty({input.size(0), input.size(1)}, acc),
                                             .rstd = at::empty({input.size(0), input.size(1)}, acc),
                                             .eps = eps};
    forward_dense(args);
    context->save_for_backward({args.input, args.scale, args.mean, args.rstd});
    return args.output;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    check_run(!at::GradMode::is_enabled(), kName, ": second derivatives are not available");
    const auto saved = context->get_saved_variables();
    const at::Tensor &input = saved[0], &mean = saved[2];
    const int64_t batch = input.size(0), rows = input.size(1), width = input.size(2);
    detail::LayerNormModulateGradArgs args{
        .forward = {.input = input, .scale = saved[1], .mean = mean, .rstd = saved[3]},
        .grad_output = grads[0].contiguous(),
        .grad_input = at::empty(input.sizes(), input.options())};
    if (context->needs_input_grad(1) || context->needs_input_grad(2)) {
      // Zeros where there are no rows to sum.
      args.grad_scale = at::zeros({batch, width}, mean.options());
      args.grad_shift = at::zeros({batch, width}, mean.options());
      const int64_t chunks = (rows + detail::kModulateChunk - 1) / detail::kModulateChunk;
      args.partial = at::empty({batch, chunks, 2, width}, mean.options());
    }
    if (input.numel() > 0) backward_dense(args);
    if (!args.partial.defined()) return {args.grad_input, {}, {}, {}};
    return {args.grad_input, args.grad_scale.to(input.scalar_type()), args.grad_shift.to(input.scalar_type()), {}};
  }
};

}  // namespace

at::Tensor layer_norm_modulate(const at::Tensor& input, const at::Tensor& scale, const at::Tensor& shift, double eps) {
  check_arguments(input, scale, shift);
  return LayerNormModulate::apply(input, scale, shift, eps);
}

}  // namespace prefusion::kernels
