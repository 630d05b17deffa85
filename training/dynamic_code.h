#pragma once

#include <ATen/core/Tensor.h>

#include <array>

#include "kernels/adamw_8bit/adamw_8bit.h"

namespace prefusion::training {

// Numbers of [-1, 1] (or [0, 1]) in a byte, with a dynamic exponent (arXiv 1511.04561, 2110.02861): seven decades, the
// larger ones in finer steps. A decade 10^e, e = -6 .. 0, is cut into 2^(e + 6) equal parts (twice as many where there
// is no sign) whose middles are the values; 0 and 1 complete the 256. Sorted.
std::array<float, 256> dynamic_code(bool is_signed);

// A tensor in blocks of 256 elements, each scaled by its largest absolute value and rounded to the nearest of
// dynamic_code. It begins as zeros. read and write say in plain operations what kernels/adamw_8bit does in one pass.
class DynamicTensor {
 public:
  static constexpr int64_t kBlock = kernels::kByteBlock;  // elements

  DynamicTensor(int64_t num_elements, bool is_signed, at::Device device);

  // The elements [begin, begin + length), begin a multiple of kBlock. fp32
  at::Tensor read(int64_t begin, int64_t length) const;
  // Rounds them into place. Of a tensor without a sign a positive value never becomes 0: what is divided by its root
  // would explode.
  void write(int64_t begin, const at::Tensor& values);

  const at::Tensor& codes() const { return codes_; }    // [N] uint8
  const at::Tensor& scales() const { return scales_; }  // [ceil(N / kBlock)] fp32
  kernels::ByteMoment bytes() const { return {codes_, scales_, table_, middles_}; }

 private:
  bool is_signed_;
  at::Tensor table_;    // [256] fp32
  at::Tensor middles_;  // [255] between neighbours
  at::Tensor codes_, scales_;
};

}  // namespace prefusion::training
