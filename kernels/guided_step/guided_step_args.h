#pragma once

#include "kernels/guided_step/guided_step.h"
#include "kernels/guided_step/guided_step_packets.h"

namespace prefusion::kernels::detail {

template <typename T, typename Real>
GuidedStepPackets<T, Real> packets_of(const GuidedStepTensors& t) {
  return {.both = t.both.const_data_ptr<T>(),
          .sample = t.sample.const_data_ptr<T>(),
          .guided = t.guided.mutable_data_ptr<T>(),
          .next = t.next.mutable_data_ptr<T>(),
          .count = t.sample.numel(),
          .numbers = {.scale = static_cast<Real>(t.scale),
                      .keep = static_cast<Real>(t.step.keep),
                      .move = static_cast<Real>(t.step.move)}};
}

}  // namespace prefusion::kernels::detail
