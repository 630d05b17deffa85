#include "tools/bench_clock.h"

#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include "core/flop_counter.h"
#include "core/interrupt.h"

namespace prefusion::tools {
namespace {

void wait_for(at::Device device) {
  if (!device.is_cpu()) c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
}

double seconds_of(const std::function<void()>& run, at::Device device) {
  wait_for(device);
  const auto began = std::chrono::steady_clock::now();
  run();
  wait_for(device);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

}  // namespace

Timing time_runs(const std::function<void()>& run, at::Device device, const Repeats& repeats) {
  Timing timing;
  for (int64_t i = 0; i < repeats.warmup; ++i) seconds_of(run, device);
  std::vector<double> seconds;
  double spent = 0;
  {
    const FlopCounter counter;
    spent += seconds.emplace_back(seconds_of(run, device));
    timing.flops = static_cast<double>(counter.total());
  }
  while (static_cast<int64_t>(seconds.size()) < repeats.at_least || spent < repeats.seconds) {
    throw_if_interrupted();
    spent += seconds.emplace_back(seconds_of(run, device));
  }
  std::sort(seconds.begin(), seconds.end());
  const size_t middle = seconds.size() / 2;
  timing.median = seconds.size() % 2 == 1 ? seconds[middle] : (seconds[middle - 1] + seconds[middle]) / 2;
  timing.lowest = seconds.front();
  timing.highest = seconds.back();
  timing.repeats = static_cast<int64_t>(seconds.size());
  return timing;
}

MachineRates measure_machine(at::Device device, at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  const int64_t side = device.is_cpu() ? 1536 : 8192;
  const int64_t bytes = device.is_cpu() ? int64_t{1} << 28 : int64_t{1} << 31;
  const auto options = at::TensorOptions().device(device).dtype(dtype);
  const at::Tensor left = at::randn({side, side}, options), right = at::randn({side, side}, options);
  at::Tensor product = at::empty({side, side}, options);
  const Timing matmul = time_runs([&] { at::mm_out(product, left, right); }, device, {.warmup = 2, .at_least = 5});
  const at::Tensor from = at::zeros({bytes}, options.dtype(at::kByte));
  at::Tensor into = at::zeros_like(from);
  const Timing copy = time_runs([&] { into.copy_(from); }, device, {.warmup = 1, .at_least = 5});
  // The fastest run: a yardstick is what the machine can do.
  return {matmul.flops / matmul.lowest, 2.0 * static_cast<double>(bytes) / copy.lowest};
}

}  // namespace prefusion::tools
