#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/content_hash.h"
#include "reward_models/scorer.h"
#include "tools/score_row.h"

namespace prefusion::tools {

// A picture on its way to a score.
struct ScoreJob {
  std::string image;
  std::optional<std::string> prompt;
  int64_t row = 0;
  int64_t item = 0;
  reward_models::PreparedPicture prepared;
  ContentHash hash;     // of the encoded picture
  std::string problem;  // why it cannot be scored
};

// Decodes and prepares a job's picture; what goes wrong becomes its problem. Safe to call from several threads.
void prepare_job(const std::string& encoded, const reward_models::Scorer& scorer, const images::ImageLimits& limits,
                 ScoreJob& job);

// From here on tensor operations of the calling thread run on it alone: threads that work on a picture each would only
// get in each other's way with helpers of their own. Other threads keep theirs.
void use_one_thread_here();

// The layout of a scorer's rows.
ScoreLayout score_layout(const reward_models::Scorer& scorer, bool details);

// Scores a batch: jobs that share a picture share its tower pass; those with a problem, or whose prompt has one, become
// rows with an error.
std::vector<ScoreRow> score_jobs(reward_models::Scorer& scorer, std::vector<ScoreJob> jobs, const ScoreLayout& layout);

}  // namespace prefusion::tools
