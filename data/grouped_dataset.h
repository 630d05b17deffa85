#pragma once

#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "data/dataset.h"
#include "data/group_rules.h"
#include "data/source.h"

namespace prefusion::data {

// The groups of several sources, kept as small fixed records: about 80 bytes a pair plus each distinct prompt once.
class GroupedDataset : public PreferenceDataset {
 public:
  explicit GroupedDataset(DatasetOptions options) : options_(std::move(options)) {
    summary_.ties_are_kept = options_.keep_ties;
    summary_.score_name = options_.score_name;
  }

  // Scans the source and adds its groups. Input error when the source cannot be read; then nothing of it is added.
  void add(std::unique_ptr<PreferenceSource> source);
  void count_bad_file() { ++summary_.bad_files; }
  // Call once after the last add(): fixes k and checks that something usable is there.
  // `where` names the data in messages.
  void finish(const std::string& where);

  int64_t size() const override { return static_cast<int64_t>(groups_.size()); }
  int64_t group_size() const override { return summary_.group_size; }
  const DatasetSummary& summary() const override { return summary_; }
  const std::string& prompt(int64_t index) const override { return prompts_[groups_.at(index).prompt]; }
  std::string id(int64_t index) const override;
  std::vector<double> labels(int64_t index) const override;
  std::vector<double> scores(int64_t index) const override;
  std::string user(int64_t index) const override;
  PreferenceRecord read(int64_t index) const override;
  std::vector<int64_t> epoch_order(uint64_t seed, uint64_t epoch) const override;

 private:
  struct Group {
    int64_t row;
    int64_t first;  // its items begin here in items_
    uint32_t source;
    uint32_t prompt;
    uint32_t count;
    float weight;
    uint32_t user;  // number among the prompts
  };

  void add_row(uint32_t source, const ScannedRow& row);
  void skip_malformed(const ScannedRow& row, const std::string& problem);
  int64_t* missing_part(const ScannedRow& row);
  void add_group(uint32_t source, const ScannedRow& row, const GroupPlan& plan);
  std::span<const GroupItem> items_of(const Group& group) const { return {items_.data() + group.first, group.count}; }
  uint32_t intern(std::string_view text);
  void thin_lists();
  void choose_score();
  std::string why_nothing_is_usable() const;

  DatasetOptions options_;
  DatasetSummary summary_;
  std::vector<std::unique_ptr<PreferenceSource>> sources_;
  std::vector<Group> groups_;
  std::vector<GroupItem> items_;
  std::vector<std::string> prompts_;  // and users
  std::unordered_map<std::string, uint32_t> prompt_numbers_;
  std::string last_problem_;  // of a malformed row
  bool has_one_picture_rows_ = false;
};

}  // namespace prefusion::data
