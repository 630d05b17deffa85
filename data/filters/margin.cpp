#include "data/filters/margin.h"

#include <cmath>

#include "core/error.h"

namespace prefusion::data::filters {
namespace {

std::string title(const std::string& score) {
  return score.empty() ? "label" : score;
}

std::optional<size_t> number_of(const GroupSet& set, const std::string& score) {
  if (score.empty()) return std::nullopt;
  return set.score(score);
}

std::vector<size_t> numbers_of(const GroupSet& set, const std::vector<std::string>& scores) {
  check_usage(!scores.empty(), "no score was named");
  std::vector<size_t> numbers;
  for (const std::string& score : scores) numbers.push_back(set.score(score));
  return numbers;
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

Rule bound_rule(const GroupSet& set, const MarginBound& bound, bool is_min) {
  const std::optional<size_t> score = number_of(set, bound.score);
  const std::string name = title(bound.score);
  const auto why = [=](const GroupSet&, const Group& group) -> std::string {
    const double value = margin(group, score);
    if (std::isnan(value)) return concat("no margin by ", name);
    if (is_min ? value >= bound.value : value <= bound.value) return "";
    return concat("margin by ", name, " is ", value);
  };
  return each_group(is_min ? "min-margin" : "max-margin",
                    concat("margin by ", name, is_min ? " at least " : " at most ", bound.value), why);
}

std::vector<double> flip_limits(const GroupSet& set, const std::vector<size_t>& scores, double strength) {
  std::vector<double> limits;
  for (const size_t score : scores) limits.push_back(-strength * margin_scale(set, score));
  return limits;
}

}  // namespace

double margin(const Group& group, std::optional<size_t> score) {
  if (group.items.size() < 2 || is_tied(group)) return kMissing;
  const auto [best, worst] = extremes(group);
  const auto value = [&](size_t item) { return score ? group.items[item].scores[*score] : group.items[item].label; };
  return value(best) - value(worst);
}

double agreement(const Group& group, size_t score) {
  double agreed = 0;
  double compared = 0;
  for (const Item& better : group.items) {
    if (std::isnan(better.scores[score])) return kMissing;
    for (const Item& worse : group.items) {
      if (better.rank >= worse.rank) continue;
      ++compared;
      const double difference = better.scores[score] - worse.scores[score];
      agreed += difference > 0 ? 1.0 : difference == 0 ? 0.5 : 0.0;
    }
  }
  return compared == 0 ? 1.0 : agreed / compared;
}

double margin_scale(const GroupSet& set, size_t score) {
  double squares = 0;
  double count = 0;
  for (const Group& group : set.groups) {
    const double value = margin(group, score);
    if (std::isnan(value)) continue;
    squares += value * value;
    ++count;
  }
  return count == 0 ? 0.0 : std::sqrt(squares / count);
}

MarginBound parse_margin_bound(const std::string& text) {
  const size_t sign = text.rfind('=');
  MarginBound bound{.score = sign == std::string::npos ? "" : text.substr(0, sign)};
  const std::string number = sign == std::string::npos ? text : text.substr(sign + 1);
  char* end = nullptr;
  bound.value = std::strtod(number.c_str(), &end);
  const bool is_number = !number.empty() && *end == '\0' && std::isfinite(bound.value);
  check_usage(is_number && sign != 0, "'", text, "' is no bound: give a number, or NAME=number such as pickscore=0.5");
  return bound;
}

Rule min_margin_rule(const GroupSet& set, const MarginBound& bound) {
  return bound_rule(set, bound, /*is_min=*/true);
}

Rule max_margin_rule(const GroupSet& set, const MarginBound& bound) {
  return bound_rule(set, bound, /*is_min=*/false);
}

Rule agreement_rule(const GroupSet& set, const std::vector<std::string>& scores, double min_agreement) {
  const std::vector<size_t> numbers = numbers_of(set, scores);
  const auto why = [=](const GroupSet&, const Group& group) -> std::string {
    for (size_t i = 0; i < numbers.size(); ++i) {
      const double share = agreement(group, numbers[i]);
      if (std::isnan(share)) return concat("no score ", scores[i]);
      if (share < min_agreement) return concat(scores[i], " agrees on ", share, " of the order");
    }
    return "";
  };
  return each_group("agree", concat("the label's order by ", joined(scores), " in at least ", min_agreement, " of it"),
                    why);
}

bool looks_flipped(const GroupSet&, const Group& group, const std::vector<size_t>& scores,
                   const std::vector<double>& limits) {
  for (size_t i = 0; i < scores.size(); ++i) {
    const double value = margin(group, scores[i]);
    if (std::isnan(value) || value >= limits[i] || value >= 0) return false;
  }
  return true;
}

Rule drop_flips_rule(const GroupSet& set, const std::vector<std::string>& scores, double strength) {
  const std::vector<size_t> numbers = numbers_of(set, scores);
  const std::vector<double> limits = flip_limits(set, numbers, strength);
  const auto why = [=](const GroupSet& all, const Group& group) -> std::string {
    if (!looks_flipped(all, group, numbers, limits)) return "";
    return concat(joined(scores), " contradict the label; margin by ", scores[0], " is ", margin(group, numbers[0]));
  };
  return each_group(
      "flips",
      concat("labels that ", joined(scores), " do not contradict by more than ", strength, " times their scale"), why);
}

std::vector<int64_t> relabel_flips(GroupSet& set, std::span<const int64_t> alive,
                                   const std::vector<std::string>& scores, double strength) {
  const std::vector<size_t> numbers = numbers_of(set, scores);
  const std::vector<double> limits = flip_limits(set, numbers, strength);
  std::vector<int64_t> flipped;
  for (const int64_t index : alive) {
    Group& group = set.groups[index];
    if (group.items.size() != 2 || !looks_flipped(set, group, numbers, limits)) continue;
    std::swap(group.items[0].label, group.items[1].label);
    std::swap(group.items[0].rank, group.items[1].rank);
    flipped.push_back(index);
  }
  return flipped;
}

}  // namespace prefusion::data::filters
