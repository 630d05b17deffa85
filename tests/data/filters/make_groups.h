#pragma once

#include <string>
#include <vector>

#include "data/filters/group_set.h"
#include "data/filters/rule.h"
#include "data/group_rules.h"

namespace prefusion::tests {

// Says what row it is, and has nothing to read.
class NamedRows : public data::PreferenceSource {
 public:
  void scan(const std::function<void(const data::ScannedRow&)>&) override {}
  Place place(int64_t) const override { return {}; }
  bool has_random_access() const override { return true; }
  std::vector<data::PreferenceItem> read_items(int64_t, std::span<const uint16_t>) const override { return {}; }
  std::string row_id(int64_t row) const override { return "row " + std::to_string(row); }
};

// A set of groups from labels and scores alone; there is no file behind it. Each picture is its own.
class GroupSetMaker {
 public:
  explicit GroupSetMaker(std::vector<std::string> score_names = {}, std::vector<std::string> columns = {}) {
    set_.texts = {""};
    set_.sources.push_back(std::make_unique<NamedRows>());
    set_.score_names = std::move(score_names);
    set_.columns = std::move(columns);
  }

  // scores: one list an item, in the order of the names.
  GroupSetMaker& add(const std::string& prompt, const std::vector<double>& labels,
                     const std::vector<std::vector<double>>& scores = {}, const std::vector<double>& numbers = {}) {
    data::filters::Group group{.prompt = text(prompt), .labels_are_probabilities = labels.size() <= 2};
    std::vector<double> badness;
    for (const double label : labels) badness.push_back(-label);
    const std::vector<double> ranks = data::average_ranks(badness);
    for (size_t i = 0; i < labels.size(); ++i) {
      group.items.push_back({.item = static_cast<uint16_t>(i),
                             .row = static_cast<int64_t>(set_.groups.size()),
                             .picture = static_cast<int64_t>(set_.pictures.size()),
                             .label = labels[i],
                             .rank = ranks[i]});
      if (!scores.empty()) group.items.back().scores = scores[i];
      set_.pictures.emplace_back();
    }
    group.numbers = numbers;
    set_.groups.push_back(std::move(group));
    return *this;
  }

  // Names the user, or the pictures' contents, of the group added last.
  GroupSetMaker& by(const std::string& user) {
    set_.groups.back().user = text(user);
    return *this;
  }
  GroupSetMaker& showing(const std::vector<std::string>& contents) {
    for (size_t i = 0; i < contents.size(); ++i) {
      auto& facts = set_.pictures[set_.groups.back().items[i].picture];
      facts.is_known = true;
      facts.content = hash_content(contents[i]);
    }
    return *this;
  }
  GroupSetMaker& looking(const std::vector<uint64_t>& hashes) {
    for (size_t i = 0; i < hashes.size(); ++i) {
      auto& facts = set_.pictures[set_.groups.back().items[i].picture];
      facts.is_known = true;
      facts.hash = hashes[i];
      facts.width = facts.height = 64;
    }
    return *this;
  }

  data::filters::GroupSet& set() { return set_; }

 private:
  uint32_t text(const std::string& wanted) {
    for (size_t i = 0; i < set_.texts.size(); ++i) {
      if (set_.texts[i] == wanted) return static_cast<uint32_t>(i);
    }
    set_.texts.push_back(wanted);
    return static_cast<uint32_t>(set_.texts.size() - 1);
  }

  data::filters::GroupSet set_;
};

// The groups that one rule leaves of all.
inline std::vector<int64_t> kept_by(const data::filters::GroupSet& set, const data::filters::Rule& rule) {
  std::vector<int64_t> alive;
  for (size_t i = 0; i < set.groups.size(); ++i) alive.push_back(static_cast<int64_t>(i));
  data::filters::apply_rules(set, {rule}, alive);
  return alive;
}

}  // namespace prefusion::tests
