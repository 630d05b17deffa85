#include "data/group_rules.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace prefusion::data {
namespace {

GroupPlan make_pair(uint16_t chosen, uint16_t rejected, float chosen_label) {
  const bool is_tie = chosen_label == 0.5f;
  return {GroupItem{.item = chosen, .label = chosen_label, .rank = is_tie ? 0.5f : 0.0f},
          GroupItem{.item = rejected, .label = 1.0f - chosen_label, .rank = is_tie ? 0.5f : 1.0f}};
}

// Labels that are the probabilities of a pair stay as they are; scores and ranks become 1 / 0.
float pair_label(const ScannedRow& row, uint16_t best, uint16_t other, bool is_tie) {
  if (is_tie) return 0.5f;
  return row.labels_are_probabilities && row.labels.size() == 2 ? static_cast<float>(row.labels[best]) : 1.0f;
}

void add_pair(const ScannedRow& row, const std::vector<double>& badness, uint16_t best, uint16_t other,
              const DatasetOptions& options, RowPlan& plan) {
  const bool is_tie = badness[best] == badness[other];
  plan.has_tie = plan.has_tie || is_tie;
  if (is_tie && !options.keep_ties) return;
  plan.groups.push_back(make_pair(best, other, pair_label(row, best, other, is_tie)));
}

void plan_pairs(const ScannedRow& row, const std::vector<double>& badness, const std::vector<uint16_t>& order,
                const DatasetOptions& options, RowPlan& plan) {
  if (order.size() < 2) {
    plan.outcome = PlanOutcome::kTooShort;
    return;
  }
  if (options.list_pairs == ListPairs::kBestWorst || order.size() == 2) {
    add_pair(row, badness, order.front(), order.back(), options, plan);
  } else {
    for (size_t i = 0; i + 1 < order.size(); ++i) add_pair(row, badness, order[i], order[i + 1], options, plan);
  }
  if (plan.groups.empty()) plan.outcome = PlanOutcome::kTie;
}

void plan_list(const ScannedRow& row, const std::vector<double>& badness, const std::vector<uint16_t>& order,
               const DatasetOptions& options, RowPlan& plan) {
  if (order.size() < 2 || static_cast<int64_t>(order.size()) < options.list_size) {
    plan.outcome = PlanOutcome::kTooShort;
    return;
  }
  plan.has_tie = badness[order.front()] == badness[order.back()];
  if (plan.has_tie && !options.keep_ties) {  // nothing is preferred to anything
    plan.outcome = PlanOutcome::kTie;
    return;
  }
  const std::vector<double> ranks = average_ranks(badness);
  GroupPlan group;
  for (const uint16_t item : order) {
    group.push_back(GroupItem{
        .item = item, .label = static_cast<float>(row.labels[item]), .rank = static_cast<float>(ranks[item])});
  }
  if (options.list_size > 0) thin_group(group, static_cast<size_t>(options.list_size));
  plan.groups.push_back(std::move(group));
}

void add_single(uint16_t item, double label, RowPlan& plan) {
  plan.groups.push_back({GroupItem{.item = item, .label = static_cast<float>(label)}});
}

void plan_unpaired(const ScannedRow& row, const std::vector<double>& badness, const std::vector<uint16_t>& order,
                   const DatasetOptions& options, RowPlan& plan) {
  if (order.size() == 1) {
    plan.has_tie = row.labels_are_probabilities && row.labels[0] == 0.5;
    if (plan.has_tie && !options.keep_ties) {
      plan.outcome = PlanOutcome::kTie;
    } else {
      add_single(0, row.labels[0], plan);
    }
    return;
  }
  const double best = badness[order.front()];
  const double worst = badness[order.back()];
  plan.has_tie = best == worst;
  if (plan.has_tie && !options.keep_ties) {
    plan.outcome = PlanOutcome::kTie;
    return;
  }
  for (const uint16_t item : order) {
    if (plan.has_tie) {
      add_single(item, 0.5, plan);
    } else if (badness[item] == best || badness[item] == worst) {
      add_single(item, badness[item] == best ? 1.0 : 0.0, plan);
    }
  }
}

// For each item the share of rivals it strictly beats, over all scores: phi of RankDPO (arXiv 2410.18013), in which
// equal scores are a win for neither.
std::vector<double> strict_win_shares(const NamedScores& scores) {
  const size_t count = scores.begin()->second.size();
  std::vector<double> shares(count, 0.0);
  for (const auto& [name, values] : scores) {
    for (size_t i = 0; i < count; ++i) {
      for (const double rival : values) shares[i] += values[i] > rival ? 1.0 : 0.0;
    }
  }
  const size_t contests = scores.size() * (count > 1 ? count - 1 : 1);
  for (double& share : shares) share /= static_cast<double>(contests);
  return shares;
}

// Whether no item of a better rank has a lower label.
bool agree(const std::vector<double>& labels, const std::vector<double>& ranks) {
  for (size_t i = 0; i < ranks.size(); ++i) {
    for (size_t j = 0; j < ranks.size(); ++j) {
      if (ranks[i] < ranks[j] && labels[i] < labels[j]) return false;
    }
  }
  return true;
}

}  // namespace

std::vector<double> badness_of(const ScannedRow& row) {
  if (!row.ranks.empty()) return row.ranks;
  std::vector<double> badness = row.labels;
  for (double& value : badness) value = -value;
  return badness;
}

RowPlan plan_groups(const ScannedRow& row, const DatasetOptions& options) {
  RowPlan plan;
  const std::vector<double> badness = badness_of(row);
  if (row.labels.empty()) {
    plan.outcome = PlanOutcome::kTooShort;
    return plan;
  }
  for (const double value : badness) {
    if (!std::isfinite(value)) {
      plan.outcome = PlanOutcome::kMissingLabel;
      return plan;
    }
  }
  std::vector<uint16_t> order(badness.size());
  std::iota(order.begin(), order.end(), uint16_t{0});
  std::stable_sort(order.begin(), order.end(), [&](uint16_t a, uint16_t b) { return badness[a] < badness[b]; });
  switch (options.group) {
    case GroupKind::kPair: plan_pairs(row, badness, order, options, plan); break;
    case GroupKind::kList: plan_list(row, badness, order, options, plan); break;
    case GroupKind::kUnpaired: plan_unpaired(row, badness, order, options, plan); break;
  }
  return plan;
}

void judge_by_scores(std::vector<double> ranks, const std::string& score_name, ScannedRow& row) {
  const NamedScores& scores = row.scores;
  if (!score_name.empty()) {
    // A row without the score is dropped for that by the data set.
    if (const auto found = scores.find(score_name); found != scores.end()) row.labels = found->second;
    return;
  }
  if (scores.empty() && ranks.empty()) {
    row.status = RowStatus::kMissingLabel;
    return;
  }
  if (const auto phi = scores.find(kPhiScore); phi != scores.end()) {
    row.labels = phi->second;
  } else if (scores.size() == 1 && scores.contains(kUnnamedScore)) {
    row.labels = scores.at(kUnnamedScore);
  } else {
    row.labels = scores.empty() ? win_shares(ranks) : strict_win_shares(scores);
  }
  if (!agree(row.labels, ranks)) row.labels = win_shares(ranks);
  row.ranks = std::move(ranks);
}

void judge_by_ranks(std::vector<double> ranks, ScannedRow& row) {
  row.labels = win_shares(ranks);
  row.ranks = std::move(ranks);
}

void judge_by_mean_score(ScannedRow& row) {
  if (row.scores.empty()) {
    row.status = RowStatus::kMissingLabel;
    return;
  }
  row.labels.assign(row.scores.begin()->second.size(), 0.0);
  for (const auto& [name, values] : row.scores) {
    for (size_t i = 0; i < values.size(); ++i) row.labels[i] += values[i] / static_cast<double>(row.scores.size());
  }
}

void thin_group(GroupPlan& group, size_t size) {
  const size_t count = group.size();
  if (size < 2 || count <= size) return;
  GroupPlan thinned;
  std::vector<double> old_ranks;
  for (size_t i = 0; i < size; ++i) {
    thinned.push_back(group[(i * (count - 1) + (size - 1) / 2) / (size - 1)]);
    old_ranks.push_back(thinned.back().rank);
  }
  const std::vector<double> ranks = average_ranks(old_ranks);
  for (size_t i = 0; i < size; ++i) thinned[i].rank = static_cast<float>(ranks[i]);
  group = std::move(thinned);
}

std::vector<double> average_ranks(const std::vector<double>& badness) {
  std::vector<double> ranks;
  for (const double own : badness) {
    double better = 0;
    double equal = 0;
    for (const double other : badness) {
      better += other < own ? 1 : 0;
      equal += other == own ? 1 : 0;
    }
    ranks.push_back(better + (equal - 1) / 2);
  }
  return ranks;
}

std::vector<double> win_shares(const std::vector<double>& badness) {
  std::vector<double> shares = average_ranks(badness);
  const double rivals = std::max<double>(1, static_cast<double>(badness.size()) - 1);
  for (double& share : shares) share = (rivals - share) / rivals;
  return shares;
}

}  // namespace prefusion::data
