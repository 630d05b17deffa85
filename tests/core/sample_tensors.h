#pragma once

#include <ATen/ATen.h>

#include <cstring>

#include "core/safetensors.h"

namespace prefusion::tests {

// One tensor of every dtype of the format, with odd sizes, an empty one and a scalar.
inline TensorMap sample_tensors() {
  TensorMap tensors;
  const at::Tensor bytes = at::arange(15 * 8, at::kInt).mul(37).remainder(120).to(at::kByte);
  for (const at::ScalarType dtype :
       {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kFloat8_e4m3fn, at::kFloat8_e5m2, at::kFloat8_e4m3fnuz,
        at::kFloat8_e5m2fnuz, at::kLong, at::kInt, at::kShort, at::kChar, at::kByte, at::kUInt64, at::kUInt32,
        at::kUInt16, at::kComplexFloat}) {
    const auto size = static_cast<int64_t>(c10::elementSize(dtype));
    tensors[c10::toString(dtype)] = bytes.slice(0, 0, 15 * size).clone().view(dtype).view({3, 5});
  }
  tensors["bool"] = at::tensor({1, 0, 1, 1, 0}, at::kInt).to(at::kBool);
  tensors["scalar"] = at::scalar_tensor(2.5, at::kFloat);
  tensors["empty"] = at::empty({0, 3}, at::kFloat);
  return tensors;
}

// Same dtype, shape and bytes (NaN equal to itself).
inline bool same_bytes(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         (a.numel() == 0 || std::memcmp(a.contiguous().data_ptr(), b.contiguous().data_ptr(), a.nbytes()) == 0);
}

}  // namespace prefusion::tests
