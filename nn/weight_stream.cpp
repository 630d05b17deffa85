#include "nn/weight_stream.h"

#include <ATen/ATen.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <utility>

namespace prefusion::nn {
namespace {

c10::Stream stream_of_computation(at::Device device) {
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device);
}

}  // namespace

WeightStream::WeightStream(at::Device device) : device_(device) {
  if (!device.is_cpu()) copies_ = c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device);
}

size_t WeightStream::add(const at::Tensor& stored) {
  stored_.push_back(stored);
  return stored_.size() - 1;
}

at::Tensor WeightStream::fetch(size_t number) {
  if (!copies_) return stored_.at(number);
  order_.used(number);
  auto found = underway_.extract(number);
  Copy copy = found.empty() ? start_copy(number) : std::move(found.mapped());
  look_ahead();
  return wait_for(std::move(copy));
}

WeightStream::Copy WeightStream::start_copy(size_t number) {
  const c10::StreamGuard on_copies(*copies_);
  Copy copy{.tensor = stored_.at(number).to(device_, /*non_blocking=*/true), .arrived = c10::Event(device_.type())};
  copy.arrived.record(*copies_);
  return copy;
}

// The memory goes back to the stream of the copies: it must not be written to before the computation has read it.
at::Tensor WeightStream::wait_for(Copy copy) {
  const c10::Stream computation = stream_of_computation(device_);
  copy.arrived.block(computation);
  copy.tensor.record_stream(computation);
  return copy.tensor;
}

void WeightStream::look_ahead() {
  const std::vector<size_t> next = order_.next(kAhead);
  const auto is_wanted = [&](size_t number) { return std::find(next.begin(), next.end(), number) != next.end(); };
  std::erase_if(underway_, [&](const auto& entry) { return !is_wanted(entry.first); });
  for (const size_t number : next) {
    if (!underway_.contains(number)) underway_.emplace(number, start_copy(number));
  }
}

}  // namespace prefusion::nn
