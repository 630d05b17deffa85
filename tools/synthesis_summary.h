#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/json_config.h"
#include "reward_models/ensemble.h"
#include "tools/sampling_counts.h"

namespace prefusion::tools {

// What the lists of one model are like.
struct ModelSummary {
  std::string name;
  int64_t pictures = 0;
  std::map<std::string, double> scores;  // means, by reward
  double phi = 0;                        // mean
  double first_share = 0;                // of the lists it has the best picture of; a shared place counts in parts
};

struct ListsSummary {
  int64_t lists = 0;
  int64_t pictures = 0;
  std::string aggregate;
  std::vector<ModelSummary> models;
  double tie_share = 0;     // of the pairs within lists
  double disagreement = 0;  // mean deviation over the rewards of a picture's z-scores
  reward_models::Discordance discordance;
  std::map<std::string, std::pair<double, double>> statistics;  // column -> mean, deviation
  int64_t judged_lists = 0;
  int64_t judgements = 0;
  int64_t used_judgements = 0;
  bool is_pruned = false;
  SamplingCounts counts;
};

// For people, and for programs (docs/formats.md).
std::string summary_text(const ListsSummary& summary);
Json summary_json(const ListsSummary& summary);

}  // namespace prefusion::tools
