#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/adamw/adamw.h"

namespace prefusion::kernels {

// A moment in bytes ("8-bit Optimizers via Block-wise Quantization", arXiv 2110.02861): an element is table[code] times
// the scale of its block, the block's largest absolute value.
struct ByteMoment {
  at::Tensor codes;    // [N] uint8
  at::Tensor scales;   // [ceil(N / kByteBlock)] fp32
  at::Tensor table;    // [256] fp32, sorted
  at::Tensor middles;  // [255] fp32, between neighbours of the table
};
constexpr int64_t kByteBlock = 256;  // elements

// One step of AdamW whose moments are bytes, everything in one pass over the memory: both are read into fp32, moved as
// adamw_step moves them, and rounded to the nearest code (one in the middle to the lower). A positive second moment
// never becomes 0: what is divided by its root would explode.
//   parameter  [N] bf16 or fp16, the master rounded; undefined where the master is all there is
//   master     [N] fp32
//   gradient   [N] fp32, bf16 or fp16
//   count      [] fp32, from 1
// All dense, on one device; the gate is that of adamw_step. Run error when something does not fit, or for CUDA tensors
// in a build without CUDA.
void adamw_8bit_step(const at::Tensor& parameter, const at::Tensor& master, const at::Tensor& gradient,
                     const ByteMoment& exp_avg, const ByteMoment& exp_avg_sq, const at::Tensor& count,
                     const AdamWSettings& settings, const StepGate& gate = {});

// Per-device implementations; adamw_8bit.cpp checks.
namespace detail {

struct AdamW8bitArgs {
  at::Tensor parameter, master, gradient;
  ByteMoment exp_avg, exp_avg_sq;
  at::Tensor count;
  AdamWSettings settings;
  StepGate gate;
};

void adamw_8bit_step_cpu(const AdamW8bitArgs& args);
void adamw_8bit_step_cuda(const AdamW8bitArgs& args);

}  // namespace detail
}  // namespace prefusion::kernels
