#include "training/step_costs.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "core/error.h"
#include "kernels/device_name.h"

namespace prefusion::training {
namespace {

constexpr double kShownShare = 0.1;  // parts below are left out of the progress line

std::string larger_parts(const std::map<StepPart, double>& parts) {
  double whole = 0;
  std::vector<std::pair<double, StepPart>> sorted;
  for (const auto& [part, seconds] : parts) {
    whole += seconds;
    sorted.emplace_back(seconds, part);
  }
  std::sort(sorted.rbegin(), sorted.rend());
  std::string text;
  for (const auto& [seconds, part] : sorted) {
    if (seconds < kShownShare * whole) break;
    text += concat(text.empty() ? "" : ", ", step_part_name(part), " ", std::lround(100 * seconds / whole), " %");
  }
  return text;
}

}  // namespace

StepCosts::StepCosts(at::Device device, at::ScalarType dtype)
    : clock_(device), peak_flops_(kernels::peak_flops(kernels::device_name(device), dtype)) {
  clock_.pause();
}

void StepCosts::begin(bool counts) {
  clock_.resume();
  began_ = std::chrono::steady_clock::now();
  if (counts) counter_ = std::make_unique<FlopCounter>();
}

void StepCosts::end() {
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began_).count();
  clock_.pause();
  seconds_ += seconds;
  ++num_steps_;
  if (!counter_) return;
  counted_flops_ = static_cast<double>(counter_->total());
  counter_.reset();
}

std::string StepCosts::add_to(Metrics& metrics) {
  const auto steps = static_cast<double>(num_steps_);
  metrics["seconds_per_step"] = seconds_ / steps;
  const auto parts = clock_.take();
  for (const auto& [part, seconds] : parts) metrics[std::string("time/") + step_part_name(part)] = seconds / steps;
  if (counted_flops_ > 0) {
    // A GPU works on: the steps take what they take together, one of them tells nothing.
    const double rate = counted_flops_ / metrics["seconds_per_step"];
    metrics["tflops"] = rate / 1e12;
    if (peak_flops_ > 0) metrics["mfu"] = rate / peak_flops_;
  }
  seconds_ = 0;
  num_steps_ = 0;
  return larger_parts(parts);
}

}  // namespace prefusion::training
