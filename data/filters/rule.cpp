#include "data/filters/rule.h"

#include <algorithm>

#include "core/interrupt.h"

namespace prefusion::data::filters {

Rule each_group(std::string name, std::string says,
                std::function<std::string(const GroupSet& set, const Group& group)> why) {
  const auto apply = [why = std::move(why)](const GroupSet& set, std::span<const int64_t> alive) {
    std::vector<Dropped> dropped;
    for (const int64_t index : alive) {
      std::string reason = why(set, set.groups[index]);
      if (!reason.empty()) dropped.push_back({.group = index, .why = std::move(reason)});
    }
    return dropped;
  };
  return Rule{.name = std::move(name), .says = std::move(says), .apply = apply};
}

std::vector<RuleOutcome> apply_rules(const GroupSet& set, const std::vector<Rule>& rules, std::vector<int64_t>& alive) {
  std::vector<RuleOutcome> outcomes;
  for (const Rule& rule : rules) {
    throw_if_interrupted();
    RuleOutcome outcome{.name = rule.name, .says = rule.says, .before = static_cast<int64_t>(alive.size())};
    outcome.dropped = rule.apply(set, alive);
    std::vector<bool> leaves(set.groups.size());
    for (const Dropped& dropped : outcome.dropped) leaves[dropped.group] = true;
    std::erase_if(alive, [&](int64_t index) { return leaves[index]; });
    outcomes.push_back(std::move(outcome));
  }
  return outcomes;
}

}  // namespace prefusion::data::filters
