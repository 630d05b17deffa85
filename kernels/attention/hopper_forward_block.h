#pragma once

#include "kernels/attention/hopper_shape.h"
#include "kernels/attention/running_softmax.h"

namespace prefusion::kernels::hopper {

// One launch: `Map` is how the hardware (or its emulation) is told of a tensor that it fetches boxes from.
template <typename Element, typename Map>
struct HopperArgs {
  blockwise::AttentionArgs<Element> attention;
  Map query, key, value;
};

// softmax(scale query key^T) value of kBlockQueries queries of one head. One warp fetches tiles of keys and values; two
// groups of four warps multiply them, each by 64 queries: while one group computes exponentials, the other multiplies.
template <typename Shape, typename Element, typename Warp>
class HopperForwardBlock {
  static constexpr int kRows = Shape::kTileRows;
  using Args = HopperArgs<Element, typename Warp::Map>;

 public:
  PREFUSION_HOST_DEVICE HopperForwardBlock(Warp& warp, const Args& args, int batch, int head, int block)
      : warp_(warp),
        args_(args),
        batch_(batch),
        head_(head),
        first_query_(block * kBlockQueries),
        num_tiles_(static_cast<int>(blockwise::divide_up(args.attention.num_keys, kRows))) {}

  PREFUSION_HOST_DEVICE void run() {
    const int group = warp_.index() / kGroupWarps;
    if (group == kConsumers) {
      warp_.give_registers();
      if (warp_.index() % kGroupWarps == 0) fetch();
    } else {
      warp_.take_registers();
      multiply(group);
    }
  }

 private:
  PREFUSION_HOST_DEVICE static constexpr int keys_of(int stage) {
    return Shape::kQueryBytes + stage * 2 * Shape::kTileBytes;
  }
  PREFUSION_HOST_DEVICE static constexpr int values_of(int stage) { return keys_of(stage) + Shape::kTileBytes; }
  // Phases of a barrier are told apart by their parity: that of the `round`th time a stage is used.
  PREFUSION_HOST_DEVICE static constexpr int round_of(int tile) { return tile / kStages & 1; }

  PREFUSION_HOST_DEVICE void fetch() {
    warp_.expect(kQueriesArrived, Shape::kQueryBytes);
    fetch_panels(args_.query, Shape::kQueryPanelBytes, first_query_, 0, kQueriesArrived);
    for (int tile = 0; tile < num_tiles_; ++tile) {
      const int stage = tile % kStages;
      warp_.wait(freed(stage), round_of(tile) ^ 1);  // nobody has used it in the first round
      warp_.expect(arrived(stage), 2 * Shape::kTileBytes);
      fetch_panels(args_.key, Shape::kTilePanelBytes, tile * kRows, keys_of(stage), arrived(stage));
      fetch_panels(args_.value, Shape::kTilePanelBytes, tile * kRows, values_of(stage), arrived(stage));
    }
  }

  PREFUSION_HOST_DEVICE void fetch_panels(const typename Warp::Map& map, int panel_bytes, int first_row, int into,
                                          int barrier) {
    PREFUSION_UNROLL
    for (int panel = 0; panel < Shape::kPanels; ++panel) {
      warp_.fetch(map, {panel * kPanelElements, first_row, head_, batch_}, into + panel * panel_bytes, barrier);
    }
  }

  PREFUSION_HOST_DEVICE void multiply(int group) {
    const auto& attention = args_.attention;
    blockwise::RunningSoftmax<Shape, Warp> softmax;
    const uint32_t queries = warp_.address(group * kGroupRows * kPanelRowBytes);
    warp_.wait(kQueriesArrived, 0);
    for (int tile = 0; tile < num_tiles_; ++tile) {
      const int stage = tile % kStages;
      warp_.wait(arrived(stage), round_of(tile));
      blockwise::Accumulator<Warp> scores[kRows / 8];
      multiply_queries(scores, queries, warp_.address(keys_of(stage)));
      softmax.weigh(warp_, scores, attention.scale_log2, tile, tile + 1 == num_tiles_,
                    attention.num_keys - tile * kRows);
      add_values(softmax.sums(), scores, warp_.address(values_of(stage)));
      warp_.arrive(freed(stage));
    }
    Element* output = attention.output + attention.output_layout.offset(batch_, head_);
    float* log_sum = attention.log_sum + (batch_ * attention.num_heads + head_) * attention.num_queries;
    softmax.store(warp_, output, attention.output_layout.row, log_sum,
                  first_query_ + warp_.index() * blockwise::kWarpRows, attention.num_queries, attention.scale_log2);
  }

  PREFUSION_HOST_DEVICE void multiply_queries(blockwise::Accumulator<Warp> (&scores)[kRows / 8], uint32_t queries,
                                              uint32_t keys) {
    PREFUSION_UNROLL
    for (auto& block : scores) blockwise::clear(block);
    warp_.begin_products(scores);
    PREFUSION_UNROLL
    for (int step = 0; step < Shape::kDepthSteps; ++step) {
      warp_.template add_product<Element>(scores, elements_as_depth(queries, Shape::kQueryPanelBytes, step),
                                          elements_as_depth(keys, Shape::kTilePanelBytes, step));
    }
    warp_.finish_products(scores);
  }

  PREFUSION_HOST_DEVICE void add_values(blockwise::Accumulator<Warp> (&sums)[Shape::kPaddedSize / 8],
                                        const blockwise::Accumulator<Warp> (&weights)[kRows / 8], uint32_t values) {
    blockwise::LeftFragment<Warp> left[kRows / 16];
    PREFUSION_UNROLL
    for (int block = 0; block < kRows / 16; ++block) {
      left[block] = blockwise::round_to_left<Element>(weights[2 * block], weights[2 * block + 1]);
    }
    warp_.begin_products(sums);
    PREFUSION_UNROLL
    for (int block = 0; block < kRows / 16; ++block) {
      warp_.template add_product<Element>(sums, left[block], rows_as_depth(values, Shape::kTilePanelBytes, block));
    }
    warp_.finish_products(sums);
  }

  Warp& warp_;
  const Args& args_;
  int batch_, head_, first_query_, num_tiles_;
};

}  // namespace prefusion::kernels::hopper
