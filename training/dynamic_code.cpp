#include "training/dynamic_code.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace prefusion::training {
namespace {

constexpr int kDecades = 7;

int64_t num_blocks(int64_t length) {
  return (length + DynamicTensor::kBlock - 1) / DynamicTensor::kBlock;
}

// [N] to [blocks, kBlock], zeros behind the last element.
at::Tensor in_blocks(const at::Tensor& values) {
  const int64_t missing = num_blocks(values.numel()) * DynamicTensor::kBlock - values.numel();
  return (missing > 0 ? at::constant_pad_nd(values, {0, missing}) : values).view({-1, DynamicTensor::kBlock});
}

}  // namespace

std::array<float, 256> dynamic_code(bool is_signed) {
  std::array<float, 256> code{};
  size_t next = 0;
  for (int decade = 0; decade < kDecades; ++decade) {
    const int parts = (is_signed ? 1 : 2) << decade;
    const double scale = std::pow(10.0, decade - (kDecades - 1));
    for (int part = 0; part < parts; ++part) {
      const double middle = scale * (0.1 + 0.9 * (part + 0.5) / parts);
      code[next++] = static_cast<float>(middle);
      if (is_signed) code[next++] = static_cast<float>(-middle);
    }
  }
  code[next++] = 0.0F;
  code[next++] = 1.0F;
  std::sort(code.begin(), code.end());
  return code;
}

DynamicTensor::DynamicTensor(int64_t num_elements, bool is_signed, at::Device device) : is_signed_(is_signed) {
  const auto code = dynamic_code(is_signed);
  std::array<float, 255> middles{};
  for (size_t i = 0; i < middles.size(); ++i) middles[i] = (code[i] + code[i + 1]) / 2;
  table_ = at::tensor(at::ArrayRef<float>(code.data(), code.size())).to(device);
  middles_ = at::tensor(at::ArrayRef<float>(middles.data(), middles.size())).to(device);
  const auto zero = std::lower_bound(code.begin(), code.end(), 0.0F) - code.begin();
  codes_ = at::full({num_elements}, zero, at::TensorOptions().dtype(at::kByte).device(device));
  scales_ = at::zeros({num_blocks(num_elements)}, at::TensorOptions().dtype(at::kFloat).device(device));
}

at::Tensor DynamicTensor::read(int64_t begin, int64_t length) const {
  const at::Tensor values = table_.index_select(0, codes_.narrow(0, begin, length).to(at::kInt));
  const at::Tensor scales = scales_.narrow(0, begin / kBlock, num_blocks(length)).unsqueeze(1);
  return in_blocks(values).mul(scales).view(-1).narrow(0, 0, length);
}

void DynamicTensor::write(int64_t begin, const at::Tensor& values) {
  const int64_t length = values.numel();
  const at::Tensor blocks = in_blocks(values);
  const at::Tensor scales = blocks.abs().amax(1);
  // A block of zeros has no scale: 0 / 1.
  const at::Tensor scaled = blocks / at::where(scales > 0, scales, at::ones_like(scales)).unsqueeze(1);
  at::Tensor codes = at::bucketize(scaled, middles_, /*out_int32=*/true);
  if (!is_signed_) codes = codes.maximum((scaled > 0).to(at::kInt));
  codes_.narrow(0, begin, length).copy_(codes.view(-1).narrow(0, 0, length));
  scales_.narrow(0, begin / kBlock, scales.numel()).copy_(scales);
}

}  // namespace prefusion::training
