#include "kernels/group_norm/group_norm.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "core/error.h"
#include "kernels/dispatch.h"

namespace prefusion::kernels {
namespace {

constexpr const char* kName = "group_norm";

void check_channels(const at::Tensor& input, const at::Tensor& tensor, at::IntArrayRef shape, const char* what) {
  check_run(tensor.defined() && tensor.sizes() == shape, kName, ": ", what, " must be ", shape_text(shape), ", found ",
            tensor.defined() ? shape_text(tensor.sizes()) : "nothing");
  check_run(tensor.scalar_type() == input.scalar_type(), kName, ": ", what, " is ", c10::toString(tensor.scalar_type()),
            ", the input ", c10::toString(input.scalar_type()));
  check_run(tensor.device() == input.device(), kName, ": ", what, " and input are on different devices");
}

void check_arguments(const at::Tensor& input, const at::Tensor& shift, const at::Tensor& weight, const at::Tensor& bias,
                     int64_t num_groups) {
  check_run(input.defined() && input.dim() == 4, kName, ": input must be [B, C, H, W]");
  check_float_type(input.scalar_type(), kName, "input");
  const int64_t channels = input.size(1);
  check_run(num_groups > 0 && channels > 0 && channels % num_groups == 0, kName, ": ", channels,
            " channels do not divide into ", num_groups, " groups");
  check_run(input.size(2) > 0 && input.size(3) > 0, kName, ": pictures of no pixels have no norm, found ",
            shape_text(input.sizes()));
  check_channels(input, weight, {channels}, "weight");
  check_channels(input, bias, {channels}, "bias");
  if (shift.defined()) check_channels(input, shift, {input.size(0), channels}, "shift");
}

// [B, C, H, W] -> [B, P, C], dense; a view where memory is channels-last.
at::Tensor pixel_rows(const at::Tensor& pictures) {
  return pictures.permute({0, 2, 3, 1}).contiguous().flatten(1, 2);
}

at::Tensor pictures_of(const at::Tensor& rows, int64_t height, int64_t width) {
  return rows.unflatten(1, {height, width}).permute({0, 3, 1, 2});
}

int64_t num_chunks(const at::Tensor& rows) {
  return (rows.size(1) + detail::kGroupNormChunk - 1) / detail::kGroupNormChunk;
}

void forward_dense(const detail::GroupNormArgs& args) {
  if (args.input.numel() == 0) return;
  PREFUSION_CALL_FOR(args.input.device(), kName, group_norm, args);
}

void backward_dense(const detail::GroupNormGradArgs& args) {
  if (args.forward.input.numel() == 0) return;
  PREFUSION_CALL_FOR(args.forward.input.device(), kName, group_norm_backward, args);
}

class GroupNorm : public torch::autograd::Function<GroupNorm> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& input, const at::Tensor& shift,
                            const at::Tensor& weight, const at::Tensor& bias, const GroupNormOptions& options) {
    const auto acc = input.options().dtype(input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
    const at::Tensor rows = pixel_rows(input);
    const at::Tensor output = at::empty(input.sizes(), input.options().memory_format(at::MemoryFormat::ChannelsLast));
    const detail::GroupNormArgs args{.input = rows,
                                     .shift = with_dense_rows(shift),
                                     .weight = weight.contiguous(),
                                     .bias = bias.contiguous(),
                                     .output = pixel_rows(output),
                                     .mean = at::empty({rows.size(0), options.num_groups}, acc),
                                     .rstd = at::empty({rows.size(0), options.num_groups}, acc),
                                     .partial = at::empty({rows.size(0), num_chunks(rows), 2, rows.size(2)}, acc),
                                     .eps = options.eps,
                                     .with_silu = options.with_silu};
    forward_dense(args);
    // The input itself is kept, not a view of it, so that it is known to be the same tensor that others keep.
    const bool is_view = rows.storage().is_alias_of(input.storage());
    context->save_for_backward({is_view ? input : pictures_of(rows, input.size(2), input.size(3)), args.shift,
                                args.weight, args.bias, args.mean, args.rstd});
    context->saved_data["with_silu"] = options.with_silu;
    return output;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    check_run(!at::GradMode::is_enabled(), kName, ": second derivatives are not available");
    const auto saved = context->get_saved_variables();
    const at::Tensor &input = saved[0], &mean = saved[4];
    const at::Tensor rows = pixel_rows(input);
    const int64_t batch = rows.size(0), channels = rows.size(2);
    // Zeros where there are no items to sum.
    const detail::GroupNormGradArgs args{
        .forward = {.input = rows,
                    .shift = saved[1],
                    .weight = saved[2],
                    .bias = saved[3],
                    .mean = mean,
                    .rstd = saved[5],
                    .partial = at::empty({batch, num_chunks(rows), 3, channels}, mean.options()),
                    .with_silu = context->saved_data["with_silu"].toBool()},
        .grad_output = pixel_rows(grads[0]),
        .grad_input = at::empty(rows.sizes(), rows.options()),
        .totals = at::zeros({batch, 3, channels}, mean.options()),
        .group_means = at::empty({batch, 2, mean.size(1)}, mean.options()),
        .grad_shift = at::empty({batch, channels}, mean.options())};
    backward_dense(args);
    const auto items_sum = [&](int64_t which) { return args.totals.select(1, which).sum(0).to(input.scalar_type()); };
    return {pictures_of(args.grad_input, input.size(2), input.size(3)),
            context->needs_input_grad(1) ? args.grad_shift.to(input.scalar_type()) : at::Tensor(),
            context->needs_input_grad(2) ? items_sum(1) : at::Tensor(),
            context->needs_input_grad(3) ? items_sum(0) : at::Tensor(),
            {}};
  }
};

}  // namespace

at::Tensor group_norm(const at::Tensor& input, const at::Tensor& shift, const at::Tensor& weight,
                      const at::Tensor& bias, const GroupNormOptions& options) {
  check_arguments(input, shift, weight, bias, options.num_groups);
  const at::Tensor added = shift.defined() ? shift : at::zeros({input.size(0), input.size(1)}, input.options());
  return GroupNorm::apply(input, added, weight, bias, options);
}

}  // namespace prefusion::kernels
