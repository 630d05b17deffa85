#pragma once

#include "kernels/attention/hopper_tiles.h"
#include "kernels/attention/running_softmax.h"

namespace prefusion::kernels::hopper {

// One launch: `Map` is how the hardware (or its emulation) is told of a tensor that it fetches boxes from.
template <typename Element, typename Map>
struct HopperArgs {
  blockwise::AttentionArgs<Element> attention;
  Map own[1];     // queries
  Map walked[2];  // keys and values
};

// softmax(scale query key^T) value of kBlockRows queries of one head: while one group computes exponentials, the other
// multiplies.
template <typename Shape, typename Element, typename Warp>
class HopperForwardBlock {
  static constexpr int kRows = Shape::kTileRows;

 public:
  using Args = HopperArgs<Element, typename Warp::Map>;
  using Memory = BlockMemory<Shape, /*own_tiles=*/1, /*row_numbers=*/0>;

  PREFUSION_HOST_DEVICE HopperForwardBlock(Warp& warp, const Args& args, int batch, int head, int block)
      : warp_(warp),
        args_(args),
        batch_(batch),
        head_(head),
        first_query_(block * kBlockRows),
        tiles_(warp, batch, head, args.attention.num_keys) {}

  PREFUSION_HOST_DEVICE void run() {
    tiles_.share_work([this] { fetch(); }, [this](int group) { multiply(group); });
  }

 private:
  PREFUSION_HOST_DEVICE void fetch() {
    tiles_.fetch_own(args_.own, first_query_);
    tiles_.fetch_tiles(args_.walked);
  }

  PREFUSION_HOST_DEVICE void multiply(int group) {
    const auto& attention = args_.attention;
    blockwise::RunningSoftmax<Shape, Warp> softmax;
    const uint32_t queries = tiles_.own(0, group);
    tiles_.use_tiles([&](int tile, int stage) {
      blockwise::Accumulator<Warp> scores[kRows / 8];
      blockwise::clear(scores);
      warp_.begin_products(scores);
      add_by_rows<Shape, Element>(warp_, scores, queries, tiles_.tile(stage, 0));
      warp_.finish_products(scores);
      softmax.weigh(warp_, scores, attention.scale_log2, tile, tiles_.is_last(tile), attention.num_keys - tile * kRows);
      const auto weights = round_weights<Shape, Element>(scores);
      warp_.begin_products(softmax.sums());
      add_by_columns<Shape, Element>(warp_, softmax.sums(), weights, tiles_.tile(stage, 1));
      warp_.finish_products(softmax.sums());
    });
    Element* output = attention.output + attention.output_layout.offset(batch_, head_);
    float* log_sum = attention.log_sum + (batch_ * attention.num_heads + head_) * attention.num_queries;
    softmax.store(warp_, output, attention.output_layout.row, log_sum,
                  first_query_ + warp_.index() * blockwise::kWarpRows, attention.num_queries, attention.scale_log2);
  }

  Warp& warp_;
  const Args& args_;
  int batch_, head_, first_query_;
  TileWalk<Shape, Memory, Warp> tiles_;
};

}  // namespace prefusion::kernels::hopper
