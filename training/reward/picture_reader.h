#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <future>
#include <string>
#include <vector>

#include "core/content_hash.h"
#include "reward_models/picture_preparation.h"
#include "training/reward/reward_data.h"

namespace prefusion::training {

// A group's pictures, read by PictureReader.
struct ReadGroup {
  std::vector<ContentHash> hashes;   // k, of the encoded bytes
  std::vector<at::Tensor> prepared;  // k; undefined where it was not wanted
  double weight = 1;                 // the row's own
  std::string problem;               // why it cannot be read; empty: it was
};

// Reads and prepares the pictures of groups on threads of its own.
class PictureReader {
 public:
  // `wants` says whether a picture is to be prepared; called by the threads.
  PictureReader(const RewardData& data, const reward_models::PicturePreparation& preparation, int64_t num_threads,
                std::function<bool(const ContentHash&)> wants);

  // In the order asked for. Trouble with a file ends up in `problem`.
  std::future<std::vector<ReadGroup>> read(std::vector<RewardGroup> groups) const;

 private:
  ReadGroup read_one(const RewardGroup& group) const;

  const RewardData& data_;
  reward_models::PicturePreparation preparation_;
  int64_t num_threads_;
  std::function<bool(const ContentHash&)> wants_;
};

// Counts groups that cannot be read, and says so. Input error when there are more than the limit allows.
class BadGroups {
 public:
  BadGroups(double max_bad, int64_t total) : limit_{.count = 0, .fraction = max_bad}, total_(total) {}
  void add(const std::string& problem);
  int64_t count() const { return count_; }

 private:
  data::BadLimit limit_;
  int64_t total_;
  int64_t count_ = 0;
};

}  // namespace prefusion::training
