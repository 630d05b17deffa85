#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "data/filters/group_set.h"

namespace prefusion::data::filters {

// A group that a rule takes out.
struct Dropped {
  int64_t group = 0;
  std::string why;
};

// One rule of curation: of the groups that are still there, in the order of the data, which ones leave.
struct Rule {
  std::string name;
  std::string says;  // what stays, in words
  std::function<std::vector<Dropped>(const GroupSet& set, std::span<const int64_t> alive)> apply;
};

// A rule that judges every group by itself: `why` is empty for those that stay.
Rule each_group(std::string name, std::string says,
                std::function<std::string(const GroupSet& set, const Group& group)> why);

// What a rule did.
struct RuleOutcome {
  std::string name;
  std::string says;
  int64_t before = 0;
  std::vector<Dropped> dropped;
};

// Applies the rules one after the other; each sees what those before it left. Returns what each did, and leaves in
// `alive` the groups that stay, in their order.
std::vector<RuleOutcome> apply_rules(const GroupSet& set, const std::vector<Rule>& rules, std::vector<int64_t>& alive);

}  // namespace prefusion::data::filters
