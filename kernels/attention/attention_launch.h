#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <cuda_runtime_api.h>

#include "kernels/attention/block_shape.h"

namespace prefusion::kernels::blockwise {

// Head sizes the kernels are built for (those of can_attend): Stable Diffusion 1 (40, 80, 160), SDXL, SD 2 and SD3
// (64), PixArt (72), and FLUX (128), with 96 between.
#define PREFUSION_ATTENTION_HEADS(apply) apply(40) apply(64) apply(72) apply(80) apply(96) apply(128) apply(160)

// Defined in attention_small_heads.cu and attention_large_heads.cu, for bf16 and fp16.
template <int head_size, typename Element>
void launch_forward(const AttentionArgs<Element>& args, int64_t num_items, cudaStream_t stream);
template <int head_size, typename Element>
void launch_backward(const AttentionGradArgs<Element>& args, int64_t num_items, cudaStream_t stream);

}  // namespace prefusion::kernels::blockwise
