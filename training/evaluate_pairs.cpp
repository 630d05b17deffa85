#include "training/evaluate_pairs.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>

#include "core/error.h"
#include "core/statistics.h"

namespace prefusion::training {
namespace {

using OrderedJson = nlohmann::ordered_json;

// The intervals of a finished evaluation do not depend on the seed of the pictures.
constexpr uint64_t kBootstrapSeed = 0;

struct Columns {
  std::vector<double> baseline, model, difference;
  std::vector<int64_t> clusters;
};

Interval share_interval(std::span<const double> values) {
  double successes = 0;
  for (const double value : values) successes += value != 0;
  const Proportion share = wilson_proportion(successes, static_cast<double>(values.size()));
  return {.value = share.rate, .low = share.low, .high = share.high};
}

shapes::WinRate axis_win_rate(const std::vector<double>& differences, double margin) {
  std::vector<shapes::Verdict> verdicts;
  for (const double difference : differences) {
    verdicts.push_back(difference > margin    ? shapes::Verdict::kFirst
                       : difference < -margin ? shapes::Verdict::kSecond
                                              : shapes::Verdict::kTie);
  }
  return shapes::win_rate(verdicts);
}

AxisSummary summarize_axis(const JudgeAxis& axis, const Columns& columns) {
  AxisSummary summary{.name = axis.name,
                      .is_share = axis.is_share,
                      .higher_is_better = axis.higher_is_better,
                      .count = static_cast<int64_t>(columns.model.size())};
  if (axis.is_share) {
    summary.baseline = share_interval(columns.baseline);
    summary.model = share_interval(columns.model);
    summary.shares = compare_shares(columns.baseline, columns.model);
    summary.difference = summary.shares->difference;
  } else {
    summary.baseline = bootstrap_mean(columns.baseline, columns.clusters, kBootstrapSeed);
    summary.model = bootstrap_mean(columns.model, columns.clusters, kBootstrapSeed);
    summary.difference = bootstrap_mean(columns.difference, columns.clusters, kBootstrapSeed);
  }
  if (axis.margin) summary.win_rate = axis_win_rate(columns.difference, *axis.margin);
  return summary;
}

// Numbers the distinct prompts.
std::vector<int64_t> prompt_clusters(const std::vector<JudgedPair>& pairs) {
  std::map<std::string, int64_t> numbers;
  std::vector<int64_t> clusters;
  for (const JudgedPair& pair : pairs) {
    clusters.push_back(numbers.try_emplace(pair.prompt, static_cast<int64_t>(numbers.size())).first->second);
  }
  return clusters;
}

void append(Columns& columns, const JudgedPair& pair, size_t axis, int64_t cluster) {
  columns.baseline.push_back(pair.baseline.at(axis));
  columns.model.push_back(pair.model.at(axis));
  columns.difference.push_back(pair.model.at(axis) - pair.baseline.at(axis));
  columns.clusters.push_back(cluster);
}

std::string interval_text(const Interval& interval, bool is_share, bool with_sign) {
  // One number of digits for all three: that of the largest.
  const double scale = is_share ? 100 : 1;
  const double largest = std::max({std::abs(interval.value), std::abs(interval.low), std::abs(interval.high)}) * scale;
  const int digits = is_share || largest >= 10 ? 1 : 3;
  char text[96];
  std::snprintf(text, sizeof text, with_sign ? "%+.*f%s [%+.*f, %+.*f]" : "%.*f%s [%.*f, %.*f]", digits,
                interval.value * scale, is_share ? " %" : "", digits, interval.low * scale, digits,
                interval.high * scale);
  return text;
}

std::string axis_line(const std::string& name, const AxisSummary& axis) {
  char text[256];
  std::snprintf(text, sizeof text, "%-22s %-24s %-24s %-26s", name.c_str(),
                interval_text(axis.baseline, axis.is_share, /*with_sign=*/false).c_str(),
                interval_text(axis.model, axis.is_share, /*with_sign=*/false).c_str(),
                interval_text(axis.difference, axis.is_share, /*with_sign=*/true).c_str());
  std::string line = text;
  if (axis.shares) {
    std::snprintf(text, sizeof text, "%lld gained, %lld lost, p %.3g", static_cast<long long>(axis.shares->gained),
                  static_cast<long long>(axis.shares->lost), axis.shares->p_value);
    line += text;
  }
  if (axis.win_rate) {
    std::snprintf(text, sizeof text, "wins %.1f %% [%.1f, %.1f]", 100 * axis.win_rate->rate, 100 * axis.win_rate->low,
                  100 * axis.win_rate->high);
    line += text;
  }
  while (line.ends_with(' ')) line.pop_back();
  return line + "\n";
}

OrderedJson win_rate_json(const shapes::WinRate& wins) {
  return {{"value", wins.rate}, {"low", wins.low},       {"high", wins.high},
          {"wins", wins.wins},  {"losses", wins.losses}, {"ties", wins.ties}};
}

// Error differences are small numbers.
std::string margin_text(const Interval& margin) {
  char text[96];
  std::snprintf(text, sizeof text, "%+.2e [%+.2e, %+.2e]", margin.value, margin.low, margin.high);
  return text;
}

OrderedJson interval_json(const Interval& interval) {
  return {{"value", interval.value}, {"low", interval.low}, {"high", interval.high}};
}

OrderedJson axis_json(const AxisSummary& axis) {
  OrderedJson json = {{"name", axis.name},
                      {"count", axis.count},
                      {"higher_is_better", axis.higher_is_better},
                      {"baseline", interval_json(axis.baseline)},
                      {"model", interval_json(axis.model)},
                      {"difference", interval_json(axis.difference)}};
  if (axis.shares) {
    json["gained"] = axis.shares->gained;
    json["lost"] = axis.shares->lost;
    json["p_value"] = axis.shares->p_value;
  }
  if (axis.win_rate) json["win_rate"] = win_rate_json(*axis.win_rate);
  return json;
}

const char* verdict_name(shapes::Verdict verdict) {
  switch (verdict) {
    case shapes::Verdict::kFirst: return "model";
    case shapes::Verdict::kSecond: return "baseline";
    case shapes::Verdict::kTie: break;
  }
  return "tie";
}

}  // namespace

EvaluationSummary summarize(const std::vector<JudgedPair>& pairs, const PictureJudge& judge) {
  check_usage(!pairs.empty(), "there is no pair of pictures to evaluate");
  const std::vector<int64_t> clusters = prompt_clusters(pairs);
  EvaluationSummary summary{.num_pairs = static_cast<int64_t>(pairs.size()),
                            .num_prompts = *std::max_element(clusters.begin(), clusters.end()) + 1};
  const std::vector<JudgeAxis>& axes = judge.axes();
  std::vector<Columns> columns(axes.size());
  std::map<std::string, Columns> kinds;
  std::vector<shapes::Verdict> verdicts;
  for (size_t i = 0; i < pairs.size(); ++i) {
    for (size_t axis = 0; axis < axes.size(); ++axis) append(columns[axis], pairs[i], axis, clusters[i]);
    append(kinds[judge.prompt_kind(pairs[i].prompt)], pairs[i], 0, clusters[i]);
    verdicts.push_back(pairs[i].verdict);
  }
  for (size_t axis = 0; axis < axes.size(); ++axis) summary.axes.push_back(summarize_axis(axes[axis], columns[axis]));
  for (const auto& [kind, values] : kinds) {
    if (kind.empty()) continue;
    JudgeAxis axis = axes.front();
    axis.name = kind;
    summary.kinds.push_back(summarize_axis(axis, values));
  }
  summary.win_rate = shapes::win_rate(verdicts);
  return summary;
}

std::string summary_table(const EvaluationSummary& summary) {
  std::string table = concat(summary.num_pairs, " pairs of pictures, ", summary.num_prompts,
                             " prompts, same seeds; 95 % intervals in brackets\n\n");
  char header[128];
  std::snprintf(header, sizeof header, "%-22s %-24s %-24s %s\n", "", "baseline", "model", "difference");
  table += header;
  for (size_t i = 0; i < summary.axes.size(); ++i) {
    table += axis_line(summary.axes[i].name, summary.axes[i]);
    if (i > 0) continue;
    for (const AxisSummary& kind : summary.kinds) {
      table += axis_line(concat("  ", kind.name, " (", kind.count, ")"), kind);
    }
  }
  const shapes::WinRate& wins = summary.win_rate;
  char line[192];
  std::snprintf(line, sizeof line,
                "\nwin rate %.1f %% [%.1f, %.1f]: %lld wins, %lld losses, %lld ties (a tie counts half)\n",
                100 * wins.rate, 100 * wins.low, 100 * wins.high, static_cast<long long>(wins.wins),
                static_cast<long long>(wins.losses), static_cast<long long>(wins.ties));
  table += line;
  if (summary.implicit) {
    table += concat("implicit preference accuracy ", interval_text(summary.implicit->accuracy, true, false), " on ",
                    summary.implicit->num_pairs, " labelled pairs, mean margin ", margin_text(summary.implicit->margin),
                    "\n");
  }
  return table;
}

OrderedJson summary_json(const EvaluationSummary& summary) {
  OrderedJson axes = OrderedJson::array(), kinds = OrderedJson::array();
  for (const AxisSummary& axis : summary.axes) axes.push_back(axis_json(axis));
  for (const AxisSummary& kind : summary.kinds) kinds.push_back(axis_json(kind));
  OrderedJson json = {{"num_pairs", summary.num_pairs},
                      {"num_prompts", summary.num_prompts},
                      {"win_rate", win_rate_json(summary.win_rate)},
                      {"axes", axes},
                      {"prompt_kinds", kinds}};
  if (summary.implicit) {
    json["implicit_preference"] = {{"num_pairs", summary.implicit->num_pairs},
                                   {"accuracy", interval_json(summary.implicit->accuracy)},
                                   {"margin", interval_json(summary.implicit->margin)}};
  }
  return json;
}

OrderedJson pair_json(const JudgedPair& pair, const std::vector<JudgeAxis>& axes) {
  OrderedJson baseline, model;
  for (size_t axis = 0; axis < axes.size(); ++axis) {
    baseline[axes[axis].name] = pair.baseline[axis];
    model[axes[axis].name] = pair.model[axis];
  }
  return {{"prompt", pair.prompt},
          {"seed", pair.seed},
          {"verdict", verdict_name(pair.verdict)},
          {"baseline", baseline},
          {"model", model}};
}

}  // namespace prefusion::training
