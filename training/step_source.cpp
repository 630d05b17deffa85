#include "training/step_source.h"

#include <ATen/ATen.h>

#include "core/step_clock.h"

namespace prefusion::training {

void differentiate(const at::Tensor& loss, double share) {
  const TimedPart backward(StepPart::kBackward);
  (loss * share).backward();
}

}  // namespace prefusion::training
