#include "kernels/geglu/geglu.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstdint>
#include <limits>
#include <vector>

#include "core/error.h"
#include "kernels/dispatch.h"

namespace prefusion::kernels {
namespace {

constexpr const char* kName = "geglu";

void check_arguments(const at::Tensor& input) {
  check_run(input.defined() && input.dim() >= 1 && input.size(-1) % 2 == 0, kName, ": input must be [..., 2 D], found ",
            input.defined() ? shape_text(input.sizes()) : "nothing");
  check_float_type(input.scalar_type(), kName, "input");
  check_run(input.size(-1) <= std::numeric_limits<int32_t>::max(), kName, ": rows of ", input.size(-1),
            " elements are too long");
}

at::Tensor forward_dense(const at::Tensor& input) {
  std::vector<int64_t> sizes = input.sizes().vec();
  sizes.back() /= 2;
  at::Tensor output = at::empty(sizes, input.options());
  if (output.numel() == 0) return output;
  PREFUSION_CALL_FOR(input.device(), kName, geglu, input, output);
  return output;
}

at::Tensor backward_dense(const at::Tensor& input, const at::Tensor& grad_output) {
  at::Tensor grad_input = at::empty(input.sizes(), input.options());
  if (grad_input.numel() == 0) return grad_input;
  PREFUSION_CALL_FOR(input.device(), kName, geglu_backward, input, grad_output, grad_input);
  return grad_input;
}

class Geglu : public torch::autograd::Function<Geglu> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& input) {
    const at::Tensor dense = input.contiguous();
    context->save_for_backward({dense});
    return forward_dense(dense);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    check_run(!at::GradMode::is_enabled(), kName, ": second derivatives are not available");
    return {backward_dense(context->get_saved_variables()[0], grads[0].contiguous())};
  }
};

}  // namespace

at::Tensor geglu(const at::Tensor& input) {
  check_arguments(input);
  return Geglu::apply(input);
}

}  // namespace prefusion::kernels
