#include <ATen/ATen.h>

#include "kernels/adamw/adamw.h"
#include "kernels/adamw_8bit/adamw_8bit.h"
#include "tools/bench_contest.h"
#include "training/dynamic_code.h"

namespace prefusion::tools {

// A step of AdamW on `layers` parameters of `count` weights, in half precision with fp32 masters.
void bench_adamw(std::vector<BenchRow>& rows, int64_t layers, int64_t count, const BenchOptions& options) {
  const auto like = at::TensorOptions().device(options.device);
  const bool has_masters = options.dtype != at::kFloat;
  const at::Tensor steps = at::ones({}, like);
  std::vector<kernels::AdamWTensors> tensors;
  std::vector<at::Tensor> masters, exp_avgs, exp_avg_sqs;
  for (int64_t i = 0; i < layers; ++i) {
    const at::Tensor master = at::randn({count}, like);
    tensors.push_back({.parameter = has_masters ? master.to(options.dtype) : at::Tensor(),
                       .master = master,
                       .gradient = at::randn({count}, like).to(options.dtype),
                       .exp_avg = at::zeros({count}, like),
                       .exp_avg_sq = at::zeros({count}, like),
                       .count = steps});
    masters.push_back(master);
    exp_avgs.push_back(tensors.back().exp_avg);
    exp_avg_sqs.push_back(tensors.back().exp_avg_sq);
  }
  const kernels::AdamWSettings s;
  const auto theirs = [=]() mutable {
    std::vector<at::Tensor> gradients;
    for (const auto& one : tensors) gradients.push_back(one.gradient.to(at::kFloat));
    at::_fused_adamw_(masters, gradients, exp_avgs, exp_avg_sqs, {}, std::vector<at::Tensor>(tensors.size(), steps),
                      s.lr, s.beta1, s.beta2, s.weight_decay, s.eps, /*amsgrad=*/false, /*maximize=*/false);
    for (const auto& one : tensors) {
      if (one.parameter.defined()) one.parameter.copy_(one.master);
    }
  };
  const double bytes = 28.0;  // a weight: master and moments twice, then its gradient or gradient and rounding
  add_contest(rows,
              {.name = std::string(has_masters ? "adamw with masters, " : "adamw, ") + std::to_string(layers) + " x " +
                       std::to_string(count) + " weights",
               .ours = [=] { kernels::adamw_step(tensors, s); },
               .theirs = theirs,
               .bytes = bytes * static_cast<double>(layers * count)},
              options);
}

// The same with moments in bytes, beside training's composition of it.
void bench_adamw_8bit(std::vector<BenchRow>& rows, int64_t count, const BenchOptions& options) {
  const auto like = at::TensorOptions().device(options.device);
  const at::Tensor master = at::randn({count}, like), gradient = at::randn({count}, like).to(options.dtype);
  const at::Tensor parameter = options.dtype == at::kFloat ? at::Tensor() : master.to(options.dtype);
  training::DynamicTensor exp_avg(count, /*is_signed=*/true, options.device),
      exp_avg_sq(count, /*is_signed=*/false, options.device);
  const at::Tensor step = at::ones({}, like);
  const kernels::AdamWSettings s;
  const auto composed = [=]() mutable {
    const at::Tensor g = gradient.to(at::kFloat), m = exp_avg.read(0, count), v = exp_avg_sq.read(0, count);
    std::vector<at::Tensor> w = {master}, gs = {g}, ms = {m}, vs = {v};
    at::_fused_adamw_(w, gs, ms, vs, {}, {step}, s.lr, s.beta1, s.beta2, s.weight_decay, s.eps,
                      /*amsgrad=*/false, /*maximize=*/false);
    exp_avg.write(0, m);
    exp_avg_sq.write(0, v);
    if (parameter.defined()) parameter.copy_(master);
  };
  add_contest(
      rows,
      {.name = "adamw with moments in bytes, " + std::to_string(count) + " weights",
       .ours =
           [=] { kernels::adamw_8bit_step(parameter, master, gradient, exp_avg.bytes(), exp_avg_sq.bytes(), step, s); },
       .theirs = composed,
       .bytes = 2.0 * static_cast<double>(master.nbytes()) + static_cast<double>(gradient.nbytes()) +
                (parameter.defined() ? static_cast<double>(parameter.nbytes()) : 0.0) +
                4.0 * static_cast<double>(count)},
      options);
}

}  // namespace prefusion::tools
