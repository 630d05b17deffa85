#include "training/bucket_order.h"

#include <algorithm>
#include <map>

#include "core/error.h"
#include "core/logging.h"
#include "data/buckets.h"

namespace prefusion::training {
namespace {

std::vector<RequestBatch> deal(const std::vector<data::LoadRequest>& requests, const SizeOfGroup& size_of,
                               int64_t batch_size, bool keeps_rest) {
  std::map<images::PictureSize, RequestBatch> waiting;
  std::vector<RequestBatch> batches;
  for (const auto& request : requests) {
    const auto size = size_of(request.index);
    if (!size) continue;
    RequestBatch& batch = waiting[*size];
    batch.push_back(request);
    if (static_cast<int64_t>(batch.size()) < batch_size) continue;
    batches.push_back(std::move(batch));
    batch.clear();
  }
  if (!keeps_rest) return batches;
  for (auto& [size, batch] : waiting) {
    if (!batch.empty()) batches.push_back(std::move(batch));
  }
  return batches;
}

}  // namespace

std::vector<RequestBatch> full_bucket_batches(const std::vector<data::LoadRequest>& requests,
                                              const SizeOfGroup& size_of, int64_t batch_size) {
  return deal(requests, size_of, batch_size, /*keeps_rest=*/false);
}

std::vector<RequestBatch> all_bucket_batches(const std::vector<data::LoadRequest>& requests, const SizeOfGroup& size_of,
                                             int64_t batch_size) {
  return deal(requests, size_of, batch_size, /*keeps_rest=*/true);
}

std::vector<data::LoadRequest> joined(const std::vector<RequestBatch>& batches) {
  std::vector<data::LoadRequest> requests;
  for (const auto& batch : batches) requests.insert(requests.end(), batch.begin(), batch.end());
  return requests;
}

int64_t num_waiting_at_most(const data::TransformOptions& transform, int64_t batch_size) {
  return static_cast<int64_t>(transform.buckets.size()) * (batch_size - 1);
}

void log_buckets(const std::vector<images::PictureSize>& sizes_of_groups, int64_t batch_size) {
  std::map<images::PictureSize, int64_t> counts;
  for (const auto& size : sizes_of_groups) ++counts[size];
  // Wide to tall, as the set is ordered.
  std::vector<std::pair<images::PictureSize, int64_t>> sorted(counts.begin(), counts.end());
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
    return a.first.height * b.first.width < b.first.height * a.first.width;
  });
  std::string text, rare;
  for (const auto& [size, count] : sorted) {
    text += concat(text.empty() ? "" : ", ", data::size_text(size), ": ", count);
    if (count < batch_size) rare += concat(rare.empty() ? "" : ", ", data::size_text(size));
  }
  log_info("buckets (width x height: groups): ", text);
  if (!rare.empty()) {
    log_warn("buckets of fewer groups than a batch (", batch_size, ") train only every few passes: ", rare);
  }
}

}  // namespace prefusion::training
