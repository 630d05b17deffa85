#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAGuard.h>

#include "kernels/attention/attention.h"
#include "kernels/attention/attention_args.h"
#include "kernels/attention/hopper_backward_block.h"
#include "kernels/attention/hopper_launch.cuh"

namespace prefusion::kernels::hopper {
namespace {

template <int head_size, int tile_rows, typename Element>
void launch_query_grad(const detail::AttentionBackward& tensors,
                       const blockwise::AttentionGradArgs<Element>& attention) {
  const auto& forward = tensors.forward;
  using Block = HopperQueryGradBlock<HopperShape<head_size, tile_rows>, Element, HopperWarp>;
  launch_blocks<Block>({attention,
                        {map_of(forward.query, kBlockRows), map_of(tensors.grad_output, kBlockRows)},
                        {map_of(forward.key, tile_rows), map_of(forward.value, tile_rows)}},
                       forward.query);
}

template <int head_size, int tile_rows, typename Element>
void launch_key_grad(const detail::AttentionBackward& tensors, const blockwise::AttentionGradArgs<Element>& attention) {
  const auto& forward = tensors.forward;
  using Block = HopperKeyGradBlock<HopperShape<head_size, tile_rows>, Element, HopperWarp>;
  launch_blocks<Block>({attention,
                        {map_of(forward.key, kBlockRows), map_of(forward.value, kBlockRows)},
                        {map_of(forward.query, tile_rows), map_of(tensors.grad_output, tile_rows)}},
                       forward.key);
}

template <int head_size, typename Element>
void launch(const detail::AttentionBackward& tensors, const blockwise::AttentionGradArgs<Element>& attention) {
  if (attention.forward.num_keys <= kPromptKeys) {
    launch_query_grad<head_size, kPromptKeys>(tensors, attention);
  } else {
    launch_query_grad<head_size, query_grad_rows(head_size)>(tensors, attention);
  }
  launch_key_grad<head_size, key_grad_rows(head_size)>(tensors, attention);
}

template <typename Element>
void launch_any(const detail::AttentionBackward& tensors) {
  const at::Tensor row_product = detail::row_product_of(tensors);
  const auto attention = detail::grad_args_of<Element>(tensors, row_product);
  switch (tensors.forward.query.size(3)) {
#define PREFUSION_CASE(size) \
  case size: return launch<size>(tensors, attention);
    PREFUSION_ATTENTION_HEADS(PREFUSION_CASE)
#undef PREFUSION_CASE
  }
}

}  // namespace
}  // namespace prefusion::kernels::hopper

namespace prefusion::kernels::detail {

void attention_backward_hopper(const AttentionBackward& tensors) {
  const c10::cuda::CUDAGuard device(tensors.forward.query.device());
  if (tensors.forward.query.scalar_type() == at::kBFloat16) return hopper::launch_any<c10::BFloat16>(tensors);
  hopper::launch_any<c10::Half>(tensors);
}

}  // namespace prefusion::kernels::detail
