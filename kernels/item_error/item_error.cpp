#include "kernels/item_error/item_error.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "core/error.h"
#include "kernels/dispatch.h"

namespace prefusion::kernels {
namespace {

constexpr const char* kName = "item_error";

void check_arguments(const at::Tensor& prediction, const at::Tensor& target) {
  check_run(prediction.defined() && target.defined() && prediction.dim() >= 1, kName,
            ": prediction and target must be [N, ...]");
  check_float_type(prediction.scalar_type(), kName, "prediction");
  check_run(at::isFloatingType(target.scalar_type()), kName, ": target must be floating point, found ",
            c10::toString(target.scalar_type()));
  check_run(prediction.sizes() == target.sizes(), kName, ": prediction ", shape_text(prediction.sizes()),
            " and target ", shape_text(target.sizes()), " differ in shape");
  check_run(prediction.device() == target.device(), kName, ": prediction and target are on different devices");
  check_run(prediction.size(0) == 0 || prediction.numel() > 0, kName, ": items of shape ",
            shape_text(prediction.sizes()), " are empty, their mean is undefined");
  check_run(!(target.requires_grad() && at::GradMode::is_enabled()), kName,
            ": the target requires a gradient; only the prediction can");
}

int64_t elements_per_item(const at::Tensor& tensor) {
  return tensor.numel() / std::max<int64_t>(1, tensor.size(0));
}

at::Tensor forward_dense(const at::Tensor& prediction, const at::Tensor& target) {
  at::Tensor error = at::empty({prediction.size(0)}, target.options());
  if (error.numel() == 0) return error;
  PREFUSION_CALL_FOR(prediction.device(), kName, item_error, prediction, target, error, elements_per_item(prediction));
  return error;
}

at::Tensor backward_dense(const at::Tensor& prediction, const at::Tensor& target, const at::Tensor& grad_error) {
  at::Tensor grad_prediction = at::empty_like(prediction);
  if (grad_prediction.numel() == 0) return grad_prediction;
  PREFUSION_CALL_FOR(prediction.device(), kName, item_error_backward, prediction, target, grad_error, grad_prediction,
                     elements_per_item(prediction));
  return grad_prediction;
}

class ItemError : public torch::autograd::Function<ItemError> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& prediction,
                            const at::Tensor& target) {
    // Both in the prediction's memory format: the mean does not mind the order, and channels-last outputs of a denoiser
    // need no copy of their own.
    const at::MemoryFormat format = prediction.suggest_memory_format();
    const at::ScalarType acc = prediction.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const at::Tensor dense_prediction = prediction.contiguous(format);
    const at::Tensor dense_target = target.to(acc).contiguous(format);
    context->save_for_backward({dense_prediction, dense_target});
    return forward_dense(dense_prediction, dense_target);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    check_run(!at::GradMode::is_enabled(), kName, ": second derivatives are not available");
    const auto saved = context->get_saved_variables();
    return {backward_dense(saved[0], saved[1], grads[0].to(saved[1].scalar_type()).contiguous()), at::Tensor()};
  }
};

}  // namespace

at::Tensor item_error(const at::Tensor& prediction, const at::Tensor& target) {
  check_arguments(prediction, target);
  return ItemError::apply(prediction, target.detach());
}

}  // namespace prefusion::kernels
