#include "nn/lora_linear.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include <utility>

#include "core/error.h"

namespace prefusion::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// What a graph keeps of a layer.
struct Handle : torch::CustomClassHolder {
  explicit Handle(FrozenLinear l) : layer(std::move(l)) {}
  FrozenLinear layer;
};

at::Tensor rows_of(const at::Tensor& tensor) {
  return tensor.reshape({-1, tensor.size(-1)});
}

class LoraLinear : public torch::autograd::Function<LoraLinear> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, const at::Tensor& A, const at::Tensor& B,
                            const c10::intrusive_ptr<Handle>& handle, double scale) {
    const FrozenLinear& layer = handle->layer;
    at::Tensor output = at::linear(input, layer.value(input.scalar_type()), layer.bias).contiguous();
    const at::Tensor low = at::linear(rows_of(input), A);  // [N, r]
    output.view({-1, output.size(-1)}).addmm_(low, B.t(), /*beta=*/1, scale);
    // A branch that is not trained keeps nothing.
    context->save_for_backward(
        {A.requires_grad() ? input : at::Tensor(), A, B, B.requires_grad() ? low : at::Tensor()});
    context->saved_data["layer"] = c10::IValue::make_capsule(handle);
    context->saved_data["sizes"] = input.sizes().vec();
    context->saved_data["scale"] = scale;
    return output;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    check_run(!at::GradMode::is_enabled(), "a low-rank branch: second derivatives are not available");
    const auto saved = context->get_saved_variables();
    const at::Tensor &input = saved[0], &A = saved[1], &B = saved[2], &low = saved[3];
    const double scale = context->saved_data["scale"].toDouble();
    const at::Tensor grad = rows_of(grads[0]);
    const at::Tensor grad_low = at::mm(grad, B).mul_(scale);  // [N, r]
    variable_list results(5);
    if (context->needs_input_grad(0)) {
      const auto capsule = context->saved_data["layer"].toCapsule();
      const at::Tensor weight = static_cast<const Handle&>(*capsule).layer.value(grad.scalar_type());
      results[0] = at::mm(grad, weight).addmm_(grad_low, A).view(context->saved_data["sizes"].toIntVector());
    }
    if (context->needs_input_grad(1)) results[1] = at::mm(grad_low.t(), rows_of(input));
    if (context->needs_input_grad(2)) results[2] = at::mm(grad.t(), low).mul_(scale);
    return results;
  }
};

}  // namespace

at::Tensor lora_linear(const at::Tensor& input, const FrozenLinear& layer, const at::Tensor& A, const at::Tensor& B,
                       double scale) {
  for (const at::Tensor* tensor : {&layer.weight, &layer.bias}) {
    check_run(!tensor->defined() || !tensor->requires_grad(), "a low-rank branch beside a weight in training");
  }
  return LoraLinear::apply(input, A, B, c10::make_intrusive<Handle>(layer), scale);
}

}  // namespace prefusion::nn
