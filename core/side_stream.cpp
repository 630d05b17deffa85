#include "core/side_stream.h"

#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <memory>
#include <utility>

namespace prefusion {

SideStream::SideStream(at::Device device) {
  if (!device.is_cpu()) stream_ = c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device);
}

SideStream::Work SideStream::beside(Work work) const {
  if (!stream_) return [done = work()] { return done; };
  // Functions are copied, events are not.
  const auto given = std::make_shared<c10::Event>(stream_->device_type());
  given->record(c10::impl::VirtualGuardImpl(stream_->device_type()).getStream(stream_->device()));
  return [stream = *stream_, given, work = std::move(work)] {
    const c10::StreamGuard on_side(stream);
    given->block(stream);
    return work();
  };
}

}  // namespace prefusion
