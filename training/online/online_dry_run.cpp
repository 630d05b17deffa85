#include "training/online/online_dry_run.h"

#include <ATen/ATen.h>

#include <chrono>
#include <cmath>
#include <cstdio>

#include "core/device.h"
#include "core/error.h"
#include "core/progress.h"
#include "training/dry_run.h"

namespace prefusion::training {
namespace {

using Clock = std::chrono::steady_clock;

template <typename Function>
double seconds_of(Function&& function) {
  const auto began = Clock::now();
  function();
  return std::chrono::duration<double>(Clock::now() - began).count();
}

// Waits for the device: the norm is read.
void optimizer_step(OnlineMethod& method, Optimizer& optimizer, int64_t accumulate) {
  for (int64_t micro = 0; micro < accumulate; ++micro) {
    method.micro_step(micro % method.num_micro_steps(), nullptr).loss.backward();
  }
  optimizer.grad_norm().item<double>();
  optimizer.step(/*lr=*/0.0);
  optimizer.zero_grad();
}

}  // namespace

void online_dry_run(OnlineMethod& method, Optimizer& optimizer, const Policy& policy, const AlignOptions& options,
                    const std::string& objective, const ReferenceSpec& reference, at::Device device) {
  const double round_seconds = seconds_of([&] { method.begin_round(0, /*steps_done=*/0); });
  check_run(method.num_micro_steps() > 0,
            "--dry-run: the first round has no two samples of different reward; try another --seed");
  double step_seconds = 0;
  constexpr int kSteps = 2;  // the first one allocates, the second is measured
  for (int i = 0; i < kSteps; ++i) {
    step_seconds = seconds_of([&] { optimizer_step(method, optimizer, options.accumulate); });
  }
  const double steps_per_round =
      static_cast<double>(method.num_micro_steps()) / static_cast<double>(options.accumulate);
  const double rounds = std::ceil(static_cast<double>(options.steps) / steps_per_round);
  const auto num_samples = static_cast<long long>(method.num_samples());
  print_parameters(objective, optimizer);
  if (num_samples > 0) {
    std::printf("a round              %lld samples, %lld micro-steps, %.4g optimizer steps\n", num_samples,
                static_cast<long long>(method.num_micro_steps()), steps_per_round);
  }
  const size_t bytes = denoiser_bytes(policy, device);
  print_memory(optimizer, bytes, reference.kind == ReferenceKind::kFrozen ? bytes : 0, device);
  if (num_samples > 0) {
    std::printf("seconds per sample   %.3f measured, with judging\n", round_seconds / static_cast<double>(num_samples));
    std::printf("seconds per round    %.3f measured, of sampling\n", round_seconds);
  }
  std::printf("seconds per step     %.3f measured\n", step_seconds);
  std::printf("steps                %lld, about %s\n", static_cast<long long>(options.steps),
              duration_text(step_seconds * static_cast<double>(options.steps) + round_seconds * rounds).c_str());
}

}  // namespace prefusion::training
