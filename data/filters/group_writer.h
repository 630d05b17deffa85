#pragma once

#include <filesystem>
#include <memory>
#include <span>

#include "data/filters/group_set.h"

namespace prefusion::data::filters {

enum class GroupShape { kPairs, kLists, kUnpaired };

// Writes groups with all that the format can carry of users, weights, scores, further columns, generators and seeds:
//   pairs     Pick-a-Pic Parquet, with prompts of each picture and masks
//   lists     ranked-list Parquet, without prompts of each picture and masks
//   unpaired  JSONL, its pictures beside it in the folder STEM-pictures under the hash of their bytes, with masks
class GroupWriter {
 public:
  virtual ~GroupWriter() = default;

  // Reads the group's pictures and writes it. Input error when one cannot be read; then nothing of it is written.
  virtual void add(const Group& group) = 0;
  // The file appears, whole.
  virtual void finish() = 0;
};

// For the groups `kept` of the set, all of the shape. Usage error when a score or column has the name of something else
// in the format.
std::unique_ptr<GroupWriter> make_group_writer(const GroupSet& set, std::span<const int64_t> kept, GroupShape shape,
                                               const std::filesystem::path& path);

}  // namespace prefusion::data::filters
