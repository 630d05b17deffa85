#include "kernels/adamw/adamw.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <map>
#include <utility>

#include "core/error.h"
#include "kernels/dispatch.h"

namespace prefusion::kernels {
namespace {

constexpr const char* kName = "adamw_step";

bool is_half(at::ScalarType dtype) {
  return dtype == at::kBFloat16 || dtype == at::kHalf;
}

void check_arguments(const AdamWTensors& tensors, at::Device device) {
  const at::Tensor &parameter = tensors.parameter, &master = tensors.master, &gradient = tensors.gradient;
  check_run(master.defined() && gradient.defined(), kName, ": master and gradient are needed");
  if (parameter.defined()) {
    check_run(is_half(parameter.scalar_type()) && gradient.scalar_type() == parameter.scalar_type(), kName,
              ": expected parameter and gradient in bf16 or both in fp16, found ",
              c10::toString(parameter.scalar_type()), " and ", c10::toString(gradient.scalar_type()));
  } else {
    check_run(gradient.scalar_type() == at::kFloat, kName, ": expected the gradient of an fp32 parameter, found ",
              c10::toString(gradient.scalar_type()));
  }
  check_run(gradient.sizes() == master.sizes() && gradient.device() == master.device(), kName, ": the gradient is ",
            shape_text(gradient.sizes()), " on ", gradient.device().str(), ", the parameter ",
            shape_text(master.sizes()), " on ", master.device().str());
  check_run(master.is_non_overlapping_and_dense(), kName, ": the parameter must be dense in memory");
  const auto is_like_master = [&](const at::Tensor& tensor) {
    return tensor.device() == device && tensor.sizes() == master.sizes() && tensor.strides() == master.strides();
  };
  check_run(!parameter.defined() || is_like_master(parameter), kName,
            ": the master must have the parameter's shape, strides and device");
  for (const at::Tensor* state : {&master, &tensors.exp_avg, &tensors.exp_avg_sq}) {
    check_run(state->scalar_type() == at::kFloat && is_like_master(*state), kName,
              ": master and moments must be fp32, in shape, strides and device of the parameter");
  }
  const at::Tensor& count = tensors.count;
  check_run(count.dim() == 0 && count.scalar_type() == at::kFloat && count.device() == device, kName,
            ": the step count must be one fp32 number on the parameter's device");
}

// In the memory order of `like`.
at::Tensor in_order_of(const at::Tensor& tensor, const at::Tensor& like) {
  if (tensor.strides() == like.strides()) return tensor;
  return at::empty_like(like, like.options().dtype(tensor.scalar_type())).copy_(tensor);
}

}  // namespace

void adamw_step(std::vector<AdamWTensors> tensors, const AdamWSettings& settings, const StepGate& gate) {
  const at::NoGradGuard no_grad;
  if (tensors.empty()) return;
  const at::Device device = tensors.front().master.device();
  check_gate(gate, device, kName);
  std::map<at::ScalarType, detail::AdamWArgs> launches;
  for (AdamWTensors& one : tensors) {
    check_arguments(one, device);
    if (one.master.numel() == 0) continue;
    one.gradient = in_order_of(one.gradient, one.master);
    launches[one.gradient.scalar_type()].tensors.push_back(std::move(one));
  }
  for (auto& [dtype, args] : launches) {
    args.settings = settings;
    args.gate = gate;
    PREFUSION_CALL_FOR(device, kName, adamw_step, args);
  }
}

}  // namespace prefusion::kernels
