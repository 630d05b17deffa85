#include "kernels/gated_residual/gated_residual.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "core/error.h"
#include "kernels/dispatch.h"

namespace prefusion::kernels {
namespace {

constexpr const char* kName = "gated_residual";

void check_arguments(const at::Tensor& states, const at::Tensor& output, const at::Tensor& gate) {
  check_run(states.defined() && output.defined() && gate.defined(), kName, ": states, output and gate are needed");
  check_float_type(states.scalar_type(), kName, "states");
  check_run(states.dim() == 3 && output.sizes() == states.sizes(), kName, ": states ", shape_text(states.sizes()),
            " and output ", shape_text(output.sizes()), " do not fit; expected twice [B, N, D]");
  check_run(gate.sizes() == at::IntArrayRef({states.size(0), states.size(2)}), kName, ": gate ",
            shape_text(gate.sizes()), " does not fit ", shape_text(states.sizes()), "; expected [B, D]");
  for (const at::Tensor* other : {&output, &gate}) {
    check_run(other->scalar_type() == states.scalar_type() && other->device() == states.device(), kName,
              ": states, output and gate differ in dtype or device");
  }
}

class GatedResidual : public torch::autograd::Function<GatedResidual> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& states,
                            const at::Tensor& output, const at::Tensor& gate) {
    context->save_for_backward({output, gate});
    return at::addcmul(states, gate.unsqueeze(1), output);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    check_run(!at::GradMode::is_enabled(), kName, ": second derivatives are not available");
    const auto saved = context->get_saved_variables();
    const at::Tensor &output = saved[0], &gate = saved[1];
    const int64_t chunks = (output.size(1) + detail::kGateChunk - 1) / detail::kGateChunk;
    const auto acc = output.options().dtype(output.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
    const detail::GatedResidualGradArgs args{.grad = grads[0].contiguous(),
                                             .output = output.contiguous(),
                                             .gate = with_dense_rows(gate),
                                             .grad_output = at::empty(output.sizes(), output.options()),
                                             .partial = at::empty({output.size(0), chunks, output.size(2)}, acc)};
    if (output.numel() > 0) PREFUSION_CALL_FOR(output.device(), kName, gated_residual_backward, args);
    return {grads[0], args.grad_output, args.partial.sum(1).to(output.scalar_type())};
  }
};

}  // namespace

at::Tensor gated_residual(const at::Tensor& states, const at::Tensor& output, const at::Tensor& gate) {
  check_arguments(states, output, gate);
  if (at::GradMode::is_enabled() && gate.requires_grad()) return GatedResidual::apply(states, output, gate);
  return at::addcmul(states, gate.unsqueeze(1), output);
}

}  // namespace prefusion::kernels
