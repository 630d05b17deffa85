#include "training/reward/picture_reader.h"

#include <algorithm>
#include <atomic>
#include <thread>

#include "core/error.h"
#include "core/logging.h"
#include "images/image_decode.h"

namespace prefusion::training {

PictureReader::PictureReader(const RewardData& data, const reward_models::PicturePreparation& preparation,
                             int64_t num_threads, std::function<bool(const ContentHash&)> wants)
    : data_(data), preparation_(preparation), num_threads_(num_threads), wants_(std::move(wants)) {}

ReadGroup PictureReader::read_one(const RewardGroup& group) const {
  ReadGroup result;
  try {
    const data::PreferenceRecord record = data_.source(group).read(group.index);
    result.weight = record.weight.value_or(1);
    for (const data::PreferenceItem& item : record.items) {
      result.hashes.push_back(hash_content(item.encoded));
      result.prepared.emplace_back();
      if (!wants_(result.hashes.back())) continue;
      const images::Picture picture = images::rgb_picture(images::decode_image(item.encoded));
      result.prepared.back() = reward_models::prepare_picture(picture, preparation_);
    }
  } catch (const Error& error) {
    if (error.error_class() != ErrorClass::kInput) throw;
    result.problem = concat(data_.source(group).id(group.index), ": ", error.what());
  }
  return result;
}

std::future<std::vector<ReadGroup>> PictureReader::read(std::vector<RewardGroup> groups) const {
  return std::async(std::launch::async, [this, groups = std::move(groups)] {
    std::vector<ReadGroup> results(groups.size());
    std::atomic<size_t> next = 0;
    const auto work = [&] {
      for (size_t i = next++; i < groups.size(); i = next++) results[i] = read_one(groups[i]);
    };
    std::vector<std::future<void>> helpers;
    for (int64_t i = 1; i < num_threads_; ++i) helpers.push_back(std::async(std::launch::async, work));
    work();
    for (auto& helper : helpers) helper.get();
    return results;
  });
}

void BadGroups::add(const std::string& problem) {
  log_warn("skipped: ", problem);
  ++count_;
  check_input(!limit_.is_exceeded(count_, total_), problem, " (more groups are unreadable than --max-bad allows)");
}

}  // namespace prefusion::training
