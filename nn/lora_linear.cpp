#include "nn/lora_linear.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>

#include "core/error.h"

namespace prefusion::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor rows_of(const at::Tensor& tensor) {
  return tensor.reshape({-1, tensor.size(-1)});
}

class LoraLinear : public torch::autograd::Function<LoraLinear> {
 public:
  // The bias last: an absent one has no number among the inputs.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, const at::Tensor& weight,
                            const at::Tensor& A, const at::Tensor& B, double scale,
                            const std::optional<at::Tensor>& bias) {
    at::Tensor output = at::linear(input, weight, bias).contiguous();
    const at::Tensor low = at::linear(rows_of(input), A);  // [N, r]
    output.view({-1, output.size(-1)}).addmm_(low, B.t(), /*beta=*/1, scale);
    // A branch that is not trained keeps nothing.
    context->save_for_backward(
        {A.requires_grad() ? input : at::Tensor(), weight, A, B, B.requires_grad() ? low : at::Tensor()});
    context->saved_data["sizes"] = input.sizes().vec();
    context->saved_data["scale"] = scale;
    return output;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    check_run(!at::GradMode::is_enabled(), "a low-rank branch: second derivatives are not available");
    const auto saved = context->get_saved_variables();
    const at::Tensor &input = saved[0], &weight = saved[1], &A = saved[2], &B = saved[3], &low = saved[4];
    const double scale = context->saved_data["scale"].toDouble();
    const at::Tensor grad = rows_of(grads[0]);
    const at::Tensor grad_low = at::mm(grad, B).mul_(scale);  // [N, r]
    variable_list results(6);
    if (context->needs_input_grad(0)) {
      results[0] = at::mm(grad, weight).addmm_(grad_low, A).view(context->saved_data["sizes"].toIntVector());
    }
    if (context->needs_input_grad(2)) results[2] = at::mm(grad_low.t(), rows_of(input));
    if (context->needs_input_grad(3)) results[3] = at::mm(grad.t(), low).mul_(scale);
    return results;
  }
};

}  // namespace

at::Tensor lora_linear(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& A,
                       const at::Tensor& B, double scale) {
  check_run(!weight.requires_grad() && !(bias.defined() && bias.requires_grad()),
            "a low-rank branch beside a weight in training");
  const auto given_bias = bias.defined() ? std::optional(bias) : std::nullopt;
  return LoraLinear::apply(input, weight, A, B, scale, given_bias);
}

}  // namespace prefusion::nn
