#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/content_hash.h"
#include "data/bad_limit.h"
#include "data/dataset.h"
#include "data/transform.h"
#include "images/image_decode.h"

namespace prefusion::data {

// One group to load: which, and which of its draws (usually the epoch).
struct LoadRequest {
  int64_t index = 0;
  uint64_t draw = 0;
};

// One group as a loader thread makes it.
struct LoadedGroup {
  int64_t index = 0;
  uint64_t draw = 0;
  std::string id;
  std::string prompt;
  std::string user;                       // as PreferenceRecord::user
  std::vector<std::string> item_prompts;  // k, as PreferenceItem::prompt, or none
  images::PictureSize size;               // that its pictures are cut to
  at::Tensor pixel_values;                // float [k, 3, H, W] in [-1, 1]; undefined where no pixels were wanted
  at::Tensor masks;                       // uint8 [k, H, W] where the data set gives masks and pixels were wanted
  std::vector<double> labels;             // k, as PreferenceItem::label
  std::vector<double> ranks;              // k, as PreferenceItem::rank
  std::vector<double> scores;             // k, as PreferenceItem::score; empty where the data has none
  std::vector<ImageGeometry> geometry;    // k; empty where no pixels were wanted
  std::optional<double> weight;           // as PreferenceRecord::weight
  std::vector<ContentHash> image_hashes;  // k, of the encoded bytes
  std::vector<ContentHash> mask_hashes;   // k, or none
  bool is_flipped = false;
};

// B groups in the order asked for.
struct GroupBatch {
  std::vector<LoadedGroup> groups;  // their pixel_values are views of the batch's
  at::Tensor pixel_values;          // float [B, k, 3, H, W]; undefined unless every group has pixels
  at::Tensor labels;                // double [B, k]
  at::Tensor ranks;                 // double [B, k]
  // Requests used up so far, skipped ones included: where to go on after a restart.
  int64_t next_position = 0;

  int64_t size() const { return static_cast<int64_t>(groups.size()); }
  std::vector<std::string> prompts() const;
  std::vector<std::string> ids() const;
};

struct LoaderOptions {
  int64_t batch_size = 1;
  int num_threads = 2;
  // Groups being loaded or waiting, at most; 0 takes four batches.
  int64_t max_pending = 0;
  // How many requests each batch is made of, where that is fixed (those of a bucket): a broken group is then not
  // replaced by the next request, and a batch without groups is left out. Empty: batch_size groups each.
  std::vector<int64_t> batch_requests;
  bool drop_last = false;  // leave out a last batch that is not full
  uint64_t seed = 0;       // of flips and crops: DrawKey{seed, index, draw}
  TransformOptions transform;
  images::ImageLimits image_limits;
  BadLimit max_bad;
  int64_t num_bad = 0;  // broken rows already counted, after a restart
  // Says whether a group (everything but its pixels is filled in) is to be decoded; absent: always. Called by the
  // loader threads, for latents that are cached already.
  std::function<bool(const LoadedGroup&)> wants_pixels;
};

// Reads, decodes and transforms groups ahead of the consumer on threads of its own, and gives them in exactly the order
// of the requests, whatever the number of threads. A group that cannot be read is logged with its id, counted and left
// out; more of them than max_bad allows is an input error. Other errors of a thread come out of next(). The data set
// must outlive the loader.
class PairLoader {
 public:
  PairLoader(const PreferenceDataset& dataset, std::vector<LoadRequest> requests, LoaderOptions options);
  ~PairLoader();
  PairLoader(const PairLoader&) = delete;
  PairLoader& operator=(const PairLoader&) = delete;

  // The next batch, the last one may be smaller; nothing when the requests are used up.
  std::optional<GroupBatch> next();
  int64_t num_bad() const;

 private:
  struct Queue;
  std::vector<LoadedGroup> take_requests(int64_t count);
  std::vector<LoadedGroup> take_groups(int64_t count);
  void take_one(std::vector<LoadedGroup>& groups);
  bool is_through() const;

  std::unique_ptr<Queue> queue_;
  size_t next_batch_ = 0;  // of batch_requests
};

// One group, read and transformed: what the loader's threads do.
LoadedGroup load_group(const PreferenceDataset& dataset, const LoadRequest& request, const LoaderOptions& options);

// The requests of an epoch from `position` on: epoch_order() with the epoch as draw.
std::vector<LoadRequest> epoch_requests(const PreferenceDataset& dataset, uint64_t seed, uint64_t epoch,
                                        int64_t position = 0);

}  // namespace prefusion::data
