#include "kernels/adamw_8bit/adamw_8bit.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "kernels/dispatch.h"

namespace prefusion::kernels {
namespace {

constexpr const char* kName = "adamw_8bit_step";

void check_vector(const at::Tensor& tensor, int64_t length, at::ScalarType dtype, at::Device device, const char* what) {
  check_run(tensor.defined() && tensor.dim() == 1 && tensor.size(0) == length && tensor.scalar_type() == dtype &&
                tensor.is_contiguous() && tensor.device() == device,
            kName, ": ", what, " must be ", c10::toString(dtype), " [", length, "], dense, on ", device.str());
}

void check_moment(const ByteMoment& moment, int64_t length, at::Device device, const char* what) {
  check_vector(moment.codes, length, at::kByte, device, what);
  check_vector(moment.scales, (length + kByteBlock - 1) / kByteBlock, at::kFloat, device, what);
  check_vector(moment.table, 256, at::kFloat, device, what);
  check_vector(moment.middles, 255, at::kFloat, device, what);
}

void check_arguments(const detail::AdamW8bitArgs& args) {
  const at::Tensor &master = args.master, &gradient = args.gradient;
  check_run(master.defined() && gradient.defined(), kName, ": master and gradient are needed");
  const int64_t length = master.numel();
  check_vector(master, length, at::kFloat, master.device(), "master");
  const at::ScalarType dtype = gradient.scalar_type();
  check_run(dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf, kName,
            ": the gradient must be fp32, bf16 or fp16, found ", c10::toString(dtype));
  check_vector(gradient, length, dtype, master.device(), "gradient");
  if (args.parameter.defined()) {
    check_run(dtype != at::kFloat, kName, ": an fp32 parameter is its own master");
    check_vector(args.parameter, length, dtype, master.device(), "parameter");
  }
  check_moment(args.exp_avg, length, master.device(), "exp_avg");
  check_moment(args.exp_avg_sq, length, master.device(), "exp_avg_sq");
  check_run(args.count.dim() == 0 && args.count.scalar_type() == at::kFloat && args.count.device() == master.device(),
            kName, ": the step count must be one fp32 number on the master's device");
  check_gate(args.gate, master.device(), kName);
}

}  // namespace

void adamw_8bit_step(const at::Tensor& parameter, const at::Tensor& master, const at::Tensor& gradient,
                     const ByteMoment& exp_avg, const ByteMoment& exp_avg_sq, const at::Tensor& count,
                     const AdamWSettings& settings, const StepGate& gate) {
  const at::NoGradGuard no_grad;
  const detail::AdamW8bitArgs args{.parameter = parameter.defined() ? parameter.detach() : parameter,
                                   .master = master,
                                   .gradient = gradient,
                                   .exp_avg = exp_avg,
                                   .exp_avg_sq = exp_avg_sq,
                                   .count = count,
                                   .settings = settings,
                                   .gate = gate};
  check_arguments(args);
  if (master.numel() == 0) return;
  PREFUSION_CALL_FOR(master.device(), kName, adamw_8bit_step, args);
}

}  // namespace prefusion::kernels
