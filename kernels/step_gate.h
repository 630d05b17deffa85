#pragma once

#include <ATen/core/Tensor.h>

#include "core/error.h"
#include "core/philox.h"

namespace prefusion::kernels {

// What an optimizer step is told on its own device, so that the host need not wait for a norm before it asks for one.
struct StepGate {
  at::Tensor takes;            // [] fp32: 1, or 0 and the step does nothing; undefined: 1
  at::Tensor gradient_factor;  // [] fp32 that gradients are multiplied by; undefined: 1
};

// Run error where something does not fit.
inline void check_gate(const StepGate& gate, at::Device device, const char* op) {
  for (const at::Tensor* value : {&gate.takes, &gate.gradient_factor}) {
    check_run(
        !value->defined() || (value->dim() == 0 && value->scalar_type() == at::kFloat && value->device() == device), op,
        ": a gate must be fp32 [] on ", device.str());
  }
}

// A gate as kernels read it; null where there is nothing to read.
struct GatePointers {
  const float* takes = nullptr;
  const float* factor = nullptr;

  PREFUSION_HOST_DEVICE bool is_shut() const { return takes != nullptr && *takes == 0.0F; }
  PREFUSION_HOST_DEVICE float gradient_factor() const { return factor == nullptr ? 1.0F : *factor; }
};

inline GatePointers gate_pointers(const StepGate& gate) {
  const auto pointer = [](const at::Tensor& t) { return t.defined() ? t.const_data_ptr<float>() : nullptr; };
  return {pointer(gate.takes), pointer(gate.gradient_factor)};
}

}  // namespace prefusion::kernels
