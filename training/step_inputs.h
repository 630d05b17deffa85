#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "losses/group_errors.h"
#include "training/group_inputs.h"

namespace prefusion::training {

// All that a micro-step is given before a network predicts: every draw is made, everything is on the device.
struct StepInputs {
  GroupInputs groups;
  at::Tensor masks;           // [B, k, 1, h, w] or undefined
  losses::GroupErrors known;  // what the data says and the options draw; error_ref where it is known already
};

// Its tensors, in one order, those that are undefined as well.
std::vector<at::Tensor*> tensors_of(StepInputs& inputs);

}  // namespace prefusion::training
