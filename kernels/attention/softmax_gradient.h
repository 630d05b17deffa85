#pragma once

#include "kernels/attention/fragments.h"

// What the backward pass computes between its products, by lanes. The softmax p is recomputed from the logarithm of its
// sum; with d = p (grad_output value^T - row_product):
//   grad_query = scale d key, grad_key = scale d^T query, grad_value = p^T grad_output
namespace prefusion::kernels::blockwise {

template <typename Warp>
struct QueryNumbers {
  typename Warp::Float log_sum, row_product;
};

// Of queries of a head; one that does not exist has an infinite sum: its weights are zero.
template <typename Warp, typename Element, typename Int, typename Mask>
PREFUSION_HOST_DEVICE QueryNumbers<Warp> load_numbers(const AttentionGradArgs<Element>& args, int64_t batch,
                                                      int64_t head, const Int& query, const Mask& exists) {
  const auto& forward = args.forward;
  const int64_t rows = (batch * forward.num_heads + head) * forward.num_queries;
  return {Warp::load_float(forward.log_sum + rows, query, exists, Warp::kInfinity),
          Warp::load_float(args.row_product + rows, query, exists, 0.0f)};
}

// Of a lane's two queries, where a warp's 16 rows are queries from `first_query` on.
template <typename Warp, typename Element>
PREFUSION_HOST_DEVICE void load_numbers_of_rows(QueryNumbers<Warp> (&numbers)[2], const Warp& warp,
                                                const AttentionGradArgs<Element>& args, int64_t batch, int64_t head,
                                                int first_query) {
  PREFUSION_UNROLL
  for (int half = 0; half < 2; ++half) {
    const auto query = (warp.lane() >> 2) + first_query + 8 * half;
    numbers[half] = load_numbers<Warp>(args, batch, head, query, query < args.forward.num_queries);
  }
}

// In shared memory, `rows` logarithms and then as many products begin at `place`.
template <typename Warp, typename Int, typename Mask>
PREFUSION_HOST_DEVICE void store_numbers(Warp& warp, int place, int rows, const Int& row, const Mask& is_of_tile,
                                         const QueryNumbers<Warp>& numbers) {
  warp.store_shared(place, row, numbers.log_sum, is_of_tile);
  warp.store_shared(place + rows, row, numbers.row_product, is_of_tile);
}

// A score becomes p, the number of grad_output value^T beside it d.
template <typename Warp>
PREFUSION_HOST_DEVICE void differentiate(typename Warp::Float& score, typename Warp::Float& grad,
                                         const QueryNumbers<Warp>& numbers, float scale_log2) {
  score = Warp::exp2(score * scale_log2 - numbers.log_sum);
  grad = score * (grad - numbers.row_product);
}

// The same of 16 queries by all keys of a tile.
template <typename Warp, int count>
PREFUSION_HOST_DEVICE void differentiate_rows(Accumulator<Warp> (&scores)[count], Accumulator<Warp> (&grads)[count],
                                              const QueryNumbers<Warp> (&numbers)[2], float scale_log2) {
  PREFUSION_UNROLL
  for (int block = 0; block < count; ++block) {
    PREFUSION_UNROLL
    for (int i = 0; i < 4; ++i) {
      differentiate<Warp>(scores[block].values[i], grads[block].values[i], numbers[i / 2], scale_log2);
    }
  }
}

// Transposed, 16 keys by all queries of a tile, whose numbers begin at `place` in shared memory.
template <typename Warp, int count>
PREFUSION_HOST_DEVICE void differentiate_columns(const Warp& warp, Accumulator<Warp> (&scores)[count],
                                                 Accumulator<Warp> (&grads)[count], int place, float scale_log2) {
  PREFUSION_UNROLL
  for (int block = 0; block < count; ++block) {
    PREFUSION_UNROLL
    for (int i = 0; i < 2; ++i) {  // a lane's two queries of the block
      const auto column = (warp.lane() & 3) * 2 + 8 * block + i;
      const QueryNumbers<Warp> numbers{warp.load_shared(place, column), warp.load_shared(place + 8 * count, column)};
      PREFUSION_UNROLL
      for (int j = i; j < 4; j += 2) {  // of each of its two keys
        differentiate<Warp>(scores[block].values[j], grads[block].values[j], numbers, scale_log2);
      }
    }
  }
}

}  // namespace prefusion::kernels::blockwise
