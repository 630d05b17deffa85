#pragma once

#include "kernels/attention/running_softmax.h"

namespace prefusion::kernels::blockwise {

// softmax(scale query key^T) value of kBlockRows queries of one head, tile by tile of its keys. Warps that own no query
// keep company: copies and barriers are of the whole block.
template <typename Shape, typename Element, typename Warp>
class ForwardBlock {
  static constexpr int kRows = Shape::kTileRows;

 public:
  PREFUSION_HOST_DEVICE ForwardBlock(Warp& warp, const AttentionArgs<Element>& args, int64_t batch, int64_t head,
                                     int block)
      : warp_(warp),
        args_(args),
        key_(args.key + args.key_layout.offset(batch, head)),
        value_(args.value + args.value_layout.offset(batch, head)),
        query_(args.query + args.query_layout.offset(batch, head)),
        output_(args.output + args.output_layout.offset(batch, head)),
        log_sum_(args.log_sum + (batch * args.num_heads + head) * args.num_queries),
        first_query_(block * kBlockRows) {}

  PREFUSION_HOST_DEVICE void run() {
    const int num_tiles = static_cast<int>(divide_up(args_.num_keys, kRows));
    copy_rows<Shape, kBlockRows>(warp_, kQueries, query_, args_.query_layout.row, first_query_, args_.num_queries);
    walk_tiles(
        warp_, num_tiles, [this](int tile) { copy_tile(tile); },
        [this, num_tiles](int tile) { add_tile(tile, num_tiles); });
    softmax_.store(warp_, output_, args_.output_layout.row, log_sum_, first_query_ + warp_.index() * kWarpRows,
                   args_.num_queries, args_.scale_log2);
  }

 private:
  static constexpr int kQueries = 0;
  PREFUSION_HOST_DEVICE static constexpr int keys_of(int tile) {
    return Shape::kOwnElements + (tile % kStages) * 2 * Shape::kTileElements;
  }
  PREFUSION_HOST_DEVICE static constexpr int values_of(int tile) { return keys_of(tile) + Shape::kTileElements; }

  PREFUSION_HOST_DEVICE void copy_tile(int tile) {
    const int first = tile * kRows;
    copy_rows<Shape, kRows>(warp_, keys_of(tile), key_, args_.key_layout.row, first, args_.num_keys);
    copy_rows<Shape, kRows>(warp_, values_of(tile), value_, args_.value_layout.row, first, args_.num_keys);
  }

  PREFUSION_HOST_DEVICE void add_tile(int tile, int num_tiles) {
    Accumulator<Warp> scores[kRows / 8];
    multiply_by_rows<Shape, Element, kRows>(warp_, scores, kQueries, warp_.index() * kWarpRows, keys_of(tile));
    softmax_.weigh(warp_, scores, args_.scale_log2, tile, tile + 1 == num_tiles, args_.num_keys - tile * kRows);
    multiply_by_columns<Shape, Element, kRows>(warp_, softmax_.sums(), scores, values_of(tile));
  }

  Warp& warp_;
  const AttentionArgs<Element>& args_;
  const Element* key_;
  const Element* value_;
  const Element* query_;
  Element* output_;
  float* log_sum_;
  int first_query_;
  RunningSoftmax<Shape, Warp> softmax_;
};

}  // namespace prefusion::kernels::blockwise
