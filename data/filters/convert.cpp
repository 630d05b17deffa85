#include "data/filters/convert.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "core/error.h"
#include "data/group_rules.h"

namespace prefusion::data::filters {
namespace {

// Everything of a group but its items.
Group without_items(const Group& group) {
  Group copy = group;
  copy.items.clear();
  return copy;
}

std::vector<size_t> best_first(const Group& group) {
  std::vector<size_t> order(group.items.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return group.items[a].rank < group.items[b].rank; });
  return order;
}

// The probability that the first of two items is preferred.
double preference(const Group& pair) {
  const Item& first = pair.items[0];
  const Item& second = pair.items[1];
  if (pair.labels_are_probabilities) return first.label;
  return first.rank == second.rank ? 0.5 : first.rank < second.rank ? 1.0 : 0.0;
}

void set_pair_labels(double first, Group& pair) {
  pair.labels_are_probabilities = true;
  pair.items[0].label = first;
  pair.items[1].label = 1 - first;
  pair.items[0].rank = first == 0.5 ? 0.5 : first > 0.5 ? 0.0 : 1.0;
  pair.items[1].rank = 1 - pair.items[0].rank;
}

void add_pair(const Group& list, size_t a, size_t b, bool keep_ties, Conversion& made) {
  const auto [first, second] = std::minmax(a, b);
  if (list.items[first].rank == list.items[second].rank && !keep_ties) {
    ++made.ties;
    return;
  }
  Group pair = without_items(list);
  pair.items = {list.items[first], list.items[second]};
  const bool is_pair = list.items.size() == 2 && list.labels_are_probabilities;
  pair.labels_are_probabilities = is_pair;
  set_pair_labels(preference(pair), pair);
  made.groups.push_back(std::move(pair));
}

// Pairs of one prompt as a graph: pictures are nodes, comparisons join them.
class ComparisonGraph {
 public:
  // False for a picture compared with itself.
  bool add(const GroupSet& set, const Group& pair, size_t pair_number) {
    const size_t first = node_of(set, pair.items[0]);
    const size_t second = node_of(set, pair.items[1]);
    if (first == second) return false;
    const double won = preference(pair);
    nodes_[first].wins += won;
    nodes_[second].wins += 1 - won;
    ++nodes_[first].comparisons;
    ++nodes_[second].comparisons;
    parents_[root_of(second)] = root_of(first);
    pairs_.push_back({pair_number, first});
    return true;
  }

  // The lists, by the first of their pictures.
  std::vector<Group> lists(const std::vector<Group>& pairs) {
    std::map<size_t, Group> by_root;
    std::map<size_t, std::vector<const Group*>> pairs_of;
    for (const auto& [number, node] : pairs_) pairs_of[root_of(node)].push_back(&pairs[number]);
    std::vector<size_t> roots;
    for (size_t i = 0; i < nodes_.size(); ++i) {
      if (nodes_[i].comparisons == 0) continue;
      const size_t root = root_of(i);
      const auto [entry, is_new] = by_root.try_emplace(root);
      if (is_new) {
        entry->second = joined(pairs_of[root]);
        roots.push_back(root);
      }
      Item item = nodes_[i].item;
      item.prompt = -1;
      item.label = nodes_[i].wins / nodes_[i].comparisons;
      entry->second.items.push_back(std::move(item));
    }
    std::vector<Group> lists;
    for (const size_t root : roots) {
      rank(by_root[root]);
      lists.push_back(std::move(by_root[root]));
    }
    return lists;
  }

 private:
  struct Node {
    Item item;
    double wins = 0;
    double comparisons = 0;
  };

  size_t node_of(const GroupSet& set, const Item& item) {
    const PictureFacts& picture = set.pictures[item.picture];
    check_usage(picture.is_known, "pictures must be looked at before pairs are joined");
    const auto [entry, is_new] = numbers_.try_emplace(picture.content, nodes_.size());
    if (is_new) {
      nodes_.push_back(Node{.item = item});
      parents_.push_back(parents_.size());
    }
    return entry->second;
  }

  size_t root_of(size_t node) {
    while (parents_[node] != node) node = parents_[node] = parents_[parents_[node]];
    return node;
  }

  static Group joined(const std::vector<const Group*>& pairs) {
    Group list = without_items(*pairs.front());
    list.labels_are_probabilities = false;
    double weights = 0;
    for (const Group* pair : pairs) {
      weights += pair->weight;
      if (pair->user != list.user) list.user = 0;
    }
    list.weight = weights / static_cast<double>(pairs.size());
    return list;
  }

  static void rank(Group& list) {
    std::vector<double> badness;
    for (const Item& item : list.items) badness.push_back(-item.label);
    const std::vector<double> ranks = average_ranks(badness);
    for (size_t i = 0; i < ranks.size(); ++i) list.items[i].rank = ranks[i];
  }

  std::map<ContentHash, size_t> numbers_;
  std::vector<Node> nodes_;
  std::vector<size_t> parents_;
  std::vector<std::pair<size_t, size_t>> pairs_;  // number of the pair, one of its nodes
};

void add_single(const Group& group, const Item& item, double label, bool is_probability, Conversion& made) {
  Group single = without_items(group);
  single.labels_are_probabilities = is_probability;
  single.items = {item};
  if (item.prompt >= 0) single.prompt = static_cast<uint32_t>(item.prompt);
  single.items[0].prompt = -1;
  single.items[0].label = label;
  single.items[0].rank = 0;
  made.groups.push_back(std::move(single));
}

void add_above_threshold(const GroupSet& set, const Group& group, const Threshold& threshold, Conversion& made) {
  for (const Item& item : group.items) {
    const double value = threshold.score.empty() ? item.label : item.scores[set.score(threshold.score)];
    if (std::isnan(value)) {
      ++made.unused;
    } else {
      add_single(group, item, value >= threshold.value ? 1.0 : 0.0, /*is_probability=*/true, made);
    }
  }
}

}  // namespace

Conversion to_pairs(const std::vector<Group>& groups, PairRule rule, bool keep_ties) {
  Conversion made;
  for (const Group& group : groups) {
    const std::vector<size_t> order = best_first(group);
    if (order.size() < 2) {
      ++made.too_short;
      continue;
    }
    if (rule == PairRule::kBestWorst) {
      add_pair(group, order.front(), order.back(), keep_ties, made);
      made.unused += static_cast<int64_t>(order.size()) - 2;
      continue;
    }
    for (size_t i = 0; i + 1 < order.size(); ++i) {
      const size_t end = rule == PairRule::kAdjacent ? i + 2 : order.size();
      for (size_t j = i + 1; j < end; ++j) add_pair(group, order[i], order[j], keep_ties, made);
    }
  }
  return made;
}

Conversion to_lists(const GroupSet& set, const std::vector<Group>& groups) {
  Conversion made;
  std::map<uint32_t, ComparisonGraph> graphs;
  std::map<uint32_t, size_t> first_pair;
  for (size_t i = 0; i < groups.size(); ++i) {
    if (groups[i].items.size() < 2) ++made.too_short;
    if (groups[i].items.size() != 2) continue;
    if (!graphs[groups[i].prompt].add(set, groups[i], i)) ++made.same_picture;
    first_pair.try_emplace(groups[i].prompt, i);
  }
  for (size_t i = 0; i < groups.size(); ++i) {
    if (groups[i].items.size() > 2) made.groups.push_back(groups[i]);
    if (groups[i].items.size() != 2 || first_pair[groups[i].prompt] != i) continue;
    for (Group& list : graphs[groups[i].prompt].lists(groups)) made.groups.push_back(std::move(list));
  }
  return made;
}

Conversion to_unpaired(const GroupSet& set, const std::vector<Group>& groups, const std::optional<Threshold>& threshold,
                       bool keep_ties) {
  Conversion made;
  for (const Group& group : groups) {
    if (threshold) {
      add_above_threshold(set, group, *threshold, made);
      continue;
    }
    if (group.items.size() == 1) {
      add_single(group, group.items[0], group.items[0].label, group.labels_are_probabilities, made);
      continue;
    }
    const bool tied = is_tied(group);
    if (tied && !keep_ties) {
      ++made.ties;
      continue;
    }
    const auto [best, worst] = extremes(group);
    for (const Item& item : group.items) {
      const bool is_best = item.rank == group.items[best].rank;
      const bool is_worst = item.rank == group.items[worst].rank;
      if (is_best || is_worst) {
        add_single(group, item, tied ? 0.5 : is_best ? 1.0 : 0.0, /*is_probability=*/true, made);
      } else {
        ++made.unused;
      }
    }
  }
  return made;
}

Conversion without_ties(const std::vector<Group>& groups) {
  Conversion made;
  for (const Group& group : groups) {
    if (group.items.size() > 1 && is_tied(group)) {
      ++made.ties;
    } else {
      made.groups.push_back(group);
    }
  }
  return made;
}

}  // namespace prefusion::data::filters
