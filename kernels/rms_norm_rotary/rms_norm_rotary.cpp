#include "kernels/rms_norm_rotary/rms_norm_rotary.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstdint>

#include "core/error.h"
#include "kernels/dispatch.h"

namespace prefusion::kernels {
namespace {

constexpr const char* kName = "rms_norm_rotary";

void check_angles(const at::Tensor& states, const at::Tensor& angles, const char* what) {
  check_run(angles.defined() && angles.dim() == 2 && angles.size(0) == states.size(2) &&
                2 * angles.size(1) == states.size(3) && angles.scalar_type() == at::kFloat,
            kName, ": ", what, " must be fp32 [", states.size(2), ", ", states.size(3) / 2, "], found ",
            angles.defined() ? shape_text(angles.sizes()) : "nothing");
  check_run(angles.device() == states.device(), kName, ": ", what, " and states are on different devices");
}

void check_arguments(const at::Tensor& states, const at::Tensor& weight, const RotaryAngles& angles) {
  check_run(states.defined() && states.dim() == 4, kName, ": states must be [B, heads, N, d]");
  const at::ScalarType dtype = states.scalar_type();
  check_float_type(dtype, kName, "states");
  check_run(states.size(3) > 0 && states.size(3) % 2 == 0, kName, ": heads of ", states.size(3),
            " channels have no pairs of neighbours");
  if (weight.defined()) {
    check_run(weight.dim() == 1 && weight.size(0) == states.size(3) && weight.scalar_type() == dtype &&
                  weight.device() == states.device(),
              kName, ": weight must be [", states.size(3), "] in dtype and device of the states, found ",
              shape_text(weight.sizes()), " ", c10::toString(weight.scalar_type()));
  }
  if (!angles.cosines.defined() && !angles.sines.defined()) return;
  check_angles(states, angles.cosines, "cosines");
  check_angles(states, angles.sines, "sines");
}

void forward_dense(const detail::RmsNormRotaryArgs& args) {
  if (args.states.numel() == 0) return;
  PREFUSION_CALL_FOR(args.states.device(), kName, rms_norm_rotary, args);
}

void backward_dense(const detail::RmsNormRotaryGradArgs& args) {
  if (args.forward.states.numel() == 0) return;
  PREFUSION_CALL_FOR(args.forward.states.device(), kName, rms_norm_rotary_backward, args);
}

// Whether the heads of a token are neighbours in memory, as a projection writes them.
bool has_tokens_outside(const at::Tensor& states) {
  return !states.is_contiguous() && states.transpose(1, 2).is_contiguous();
}

// GPUs load two neighbours at once.
at::Tensor with_aligned_pairs(const at::Tensor& tensor) {
  const auto address = reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
  return address % (2 * tensor.element_size()) == 0 ? tensor : tensor.clone();
}

class RmsNormRotary : public torch::autograd::Function<RmsNormRotary> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& states,
                            const at::Tensor& weight, double eps, const RotaryAngles& angles) {
    const bool tokens_outside = has_tokens_outside(states);
    const auto acc = states.options().dtype(states.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
    // In the memory order of the states.
    const at::Tensor ordered = with_aligned_pairs(tokens_outside ? states.transpose(1, 2) : states.contiguous());
    const at::Tensor output = at::empty(ordered.sizes(), ordered.options());
    const auto dense = [](const at::Tensor& tensor) { return tensor.defined() ? tensor.contiguous() : tensor; };
    const detail::RmsNormRotaryArgs args{.states = ordered.view({-1, states.size(3)}),
                                         .weight = weight.to(acc.dtype()).contiguous(),
                                         .cosines = dense(angles.cosines),
                                         .sines = dense(angles.sines),
                                         .output = output.view({-1, states.size(3)}),
                                         .rstd = at::empty({states.numel() / states.size(3)}, acc),
                                         .rows_per_token = tokens_outside ? states.size(1) : 1,
                                         .eps = eps};
    forward_dense(args);
    context->save_for_backward({ordered, args.weight, args.cosines, args.sines, args.rstd});
    context->saved_data["tokens_outside"] = tokens_outside;
    return tokens_outside ? output.transpose(1, 2) : output;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    check_run(!at::GradMode::is_enabled(), kName, ": second derivatives are not available");
    const auto saved = context->get_saved_variables();
    const at::Tensor& ordered = saved[0];
    const bool tokens_outside = context->saved_data["tokens_outside"].toBool();
    const auto in_order = [&](const at::Tensor& tensor) { return tokens_outside ? tensor.transpose(1, 2) : tensor; };
    const int64_t width = ordered.size(3), rows = ordered.numel() / width;
    const at::Tensor grad_states = at::empty(ordered.sizes(), ordered.options());
    detail::RmsNormRotaryGradArgs args{
        .forward = {.states = ordered.view({-1, width}),
                    .weight = saved[1],
                    .cosines = saved[2],
                    .sines = saved[3],
                    .output = grad_states.view({-1, width}),
                    .rstd = saved[4],
                    .rows_per_token = tokens_outside ? ordered.size(2) : 1},
        .grad_output = with_aligned_pairs(in_order(grads[0]).contiguous()).view({-1, width})};
    if (context->needs_input_grad(1)) {
      args.grad_weight = at::zeros({width}, saved[1].options());
      const int64_t chunks = (rows + detail::kHeadRowsChunk - 1) / detail::kHeadRowsChunk;
      args.partial = at::empty({chunks, width}, saved[1].options());
    }
    backward_dense(args);
    return {in_order(grad_states),
            args.grad_weight.defined() ? args.grad_weight.to(ordered.scalar_type()) : at::Tensor(),
            {},
            {}};
  }
};

}  // namespace

at::Tensor rms_norm_rotary(const at::Tensor& states, const at::Tensor& weight, double eps, const RotaryAngles& angles) {
  check_arguments(states, weight, angles);
  const at::Tensor given = weight.defined() ? weight : at::ones({states.size(3)}, states.options());
  return RmsNormRotary::apply(states, given, eps, angles);
}

}  // namespace prefusion::kernels
