#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "training/implicit_preference.h"
#include "training/paired_statistics.h"
#include "training/picture_judge.h"

namespace prefusion::training {

// Two pictures of one prompt from the same seed, measured by a judge.
struct JudgedPair {
  std::string prompt;
  uint64_t seed = 0;
  std::vector<double> baseline;  // a value an axis
  std::vector<double> model;
  shapes::Verdict verdict = shapes::Verdict::kTie;  // kFirst: the model's picture won
  double advantage = 0;                             // of the model's picture
};

// One axis (or the first axis on one kind of prompts) over all pairs.
struct AxisSummary {
  std::string name;
  bool is_share = false;
  bool higher_is_better = true;
  int64_t count = 0;
  Interval baseline;
  Interval model;
  Interval difference;                      // model minus baseline, paired
  std::optional<PairedShares> shares;       // where the axis is a share
  std::optional<shapes::WinRate> win_rate;  // of the model on this axis alone, where the axis has a margin
};

struct EvaluationSummary {
  int64_t num_pairs = 0;
  int64_t num_prompts = 0;                     // distinct ones
  std::vector<AxisSummary> axes;               // as the judge orders them
  std::vector<AxisSummary> kinds;              // the first axis by kind of prompt, sorted by name
  shapes::WinRate win_rate;                    // of the model against the baseline
  std::optional<ImplicitPreference> implicit;  // where labelled pairs were given
};

// Means, paired differences and the win rate. Shares have Wilson and Newcombe intervals, other axes bootstrap intervals
// over prompts; all at 95 %. Usage error without pairs.
EvaluationSummary summarize(const std::vector<JudgedPair>& pairs, const PictureJudge& judge);

// The table that `prefusion evaluate` prints.
std::string summary_table(const EvaluationSummary& summary);

nlohmann::ordered_json summary_json(const EvaluationSummary& summary);

// A row of results.jsonl.
nlohmann::ordered_json pair_json(const JudgedPair& pair, const std::vector<JudgeAxis>& axes);

}  // namespace prefusion::training
