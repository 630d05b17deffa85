#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <cudaTypedefs.h>

#include "core/error.h"
#include "kernels/attention/attention.h"
#include "kernels/attention/attention_args.h"
#include "kernels/attention/hopper_forward_block.h"
#include "kernels/attention/hopper_launch.cuh"

namespace prefusion::kernels::hopper {
namespace {

// The function that describes tensors to the hardware is the driver's, which may be missing where prefusion is built.
PFN_cuTensorMapEncodeTiled_v12000 encode_function() {
  static const auto function = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
    C10_CUDA_CHECK(
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result));
    check_run(result == cudaDriverEntryPointSuccess && found,
              "attention: the CUDA driver is too old for sm_90's kernels");
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(found);
  }();
  return function;
}

template <int head_size, int tile_rows, typename Element>
void launch_tiles(const detail::AttentionForward& tensors) {
  using Block = HopperForwardBlock<HopperShape<head_size, tile_rows>, Element, HopperWarp>;
  launch_blocks<Block>({detail::args_of<Element>(tensors),
                        {map_of(tensors.query, kBlockRows)},
                        {map_of(tensors.key, tile_rows), map_of(tensors.value, tile_rows)}},
                       tensors.query);
}

template <int head_size, typename Element>
void launch(const detail::AttentionForward& tensors) {
  if (tensors.key.size(2) <= kPromptKeys) return launch_tiles<head_size, kPromptKeys, Element>(tensors);
  launch_tiles<head_size, forward_rows(head_size), Element>(tensors);
}

template <typename Element>
void launch_any(const detail::AttentionForward& tensors) {
  switch (tensors.query.size(3)) {
#define PREFUSION_CASE(size) \
  case size: return launch<size, Element>(tensors);
    PREFUSION_ATTENTION_HEADS(PREFUSION_CASE)
#undef PREFUSION_CASE
  }
}

}  // namespace

CUtensorMap map_of(const at::Tensor& tensor, int box_rows) {
  CUtensorMap map;
  const bool is_bf16 = tensor.scalar_type() == at::kBFloat16;
  cuuint64_t sizes[4], strides[3];
  cuuint64_t dense = 2;  // bytes to the next of a dimension, for one of size 1, whose stride means nothing
  for (int i = 0; i < 4; ++i) {
    const int dim = 3 - i;
    sizes[i] = static_cast<cuuint64_t>(tensor.size(dim));
    const cuuint64_t stride = tensor.size(dim) > 1 ? 2 * static_cast<cuuint64_t>(tensor.stride(dim)) : dense;
    if (i > 0) strides[i - 1] = stride;
    dense = stride * sizes[i];
  }
  const cuuint32_t box[4] = {kPanelElements, static_cast<cuuint32_t>(box_rows), 1, 1};
  const cuuint32_t steps[4] = {1, 1, 1, 1};
  const CUresult result = encode_function()(
      &map, is_bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 4, tensor.mutable_data_ptr(),
      sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  check_run(result == CUDA_SUCCESS, "attention: the driver refuses a tensor map (", static_cast<int>(result), ")");
  return map;
}

}  // namespace prefusion::kernels::hopper

namespace prefusion::kernels::detail {

void attention_forward_hopper(const AttentionForward& tensors) {
  const c10::cuda::CUDAGuard device(tensors.query.device());
  if (tensors.query.scalar_type() == at::kBFloat16) return hopper::launch_any<c10::BFloat16>(tensors);
  hopper::launch_any<c10::Half>(tensors);
}

bool is_hopper_device(at::Device device) {
  if (!device.is_cuda()) return false;
  int major = 0, minor = 0;
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device.index()));
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device.index()));
  return major == 9 && minor == 0;
}

}  // namespace prefusion::kernels::detail
