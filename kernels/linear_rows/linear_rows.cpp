#include "kernels/linear_rows/linear_rows.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "core/error.h"

namespace prefusion::kernels {

at::Tensor linear_rows(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias) {
  const bool fits = weight.dim() == 2 && input.dim() >= 1 && input.size(-1) == weight.size(1) &&
                    (!bias.defined() || (bias.dim() == 1 && bias.size(0) == weight.size(0)));
  check_usage(fits, "linear_rows: [..., K] and [N, K] expected, found ", shape_text(input.sizes()), " and ",
              shape_text(weight.sizes()));
  for (const at::Tensor& tensor : {input, weight, bias}) {
    if (!tensor.defined()) continue;
    check_usage(tensor.is_cpu() && tensor.scalar_type() == at::kFloat, "linear_rows: fp32 on the CPU expected, found ",
                c10::toString(tensor.scalar_type()), " on ", tensor.device().str());
    check_usage(!tensor.requires_grad() || !c10::GradMode::is_enabled(), "linear_rows has no gradients");
  }
  const at::Tensor rows = input.contiguous();
  const at::Tensor matrix = weight.contiguous();
  const at::Tensor added = bias.defined() ? bias.contiguous() : bias;
  std::vector<int64_t> shape = input.sizes().vec();
  shape.back() = weight.size(0);
  at::Tensor output = at::empty(shape, input.options());
  if (output.numel() == 0) return output;
  detail::linear_rows_cpu(rows.const_data_ptr<float>(), matrix.const_data_ptr<float>(),
                          added.defined() ? added.const_data_ptr<float>() : nullptr, output.mutable_data_ptr<float>(),
                          output.numel() / weight.size(0), weight.size(1), weight.size(0));
  return output;
}

}  // namespace prefusion::kernels
