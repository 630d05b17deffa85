#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "pipelines/sampling_run.h"
#include "reward_models/scorer.h"
#include "tools/group_ranking.h"
#include "tools/sampling_counts.h"

namespace prefusion::tools {

// After so many denoiser calls the pictures-to-be of a group are decoded and scored, and the weaker ones are dropped.
struct PruneRule {
  size_t call = 1;
  double share = 0.5;  // of those still there
};

// CALL or CALL:SHARE. Usage error for another form.
PruneRule parse_prune_rule(const std::string& text);

enum class StoredFormat { kPng, kJpeg, kWebp };

struct CandidateOptions {
  pipelines::GenerateOptions sampling;
  int64_t batch_size = 32;  // pictures at a time
  size_t group_size = 1;    // candidates of one prompt
  size_t keep = 1;          // of a group, that pruning leaves at least
  std::vector<PruneRule> prunes;
  bool checks_pruning = false;  // also makes what pruning drops, to compare the winners
  GroupRanking ranking;
  StoredFormat format = StoredFormat::kPng;
  int quality = 95;  // of JPEG and WebP
};

// A picture that was made to the end.
struct Candidate {
  size_t request = 0;
  std::string encoded;         // as it is stored
  std::vector<double> scores;  // of the stored picture, in the scorer's order
};

// Makes and scores groups of candidates of one model. A picture depends on its request alone; which others share its
// batch, and which are dropped, is nothing to it.
class CandidateSampler {
 public:
  // All three must outlive this. Usage error for a rule that the sampler has too few calls for.
  CandidateSampler(pipelines::TextToImage& pipeline, reward_models::Scorer& scorer, const CandidateOptions& options);

  // The candidates that are not dropped, in the order of the requests, which are whole groups. `progress` hears how
  // many requests are done.
  std::vector<Candidate> sample(std::span<const pipelines::ImageRequest> requests,
                                const std::function<void(size_t done)>& progress);

  // Of the last sample().
  const SamplingCounts& counts() const { return counts_; }

 private:
  struct Batch;
  struct Cohort;
  std::vector<Candidate> sample_cohort(std::span<const pipelines::ImageRequest> requests, size_t first);
  void advance(Cohort& cohort, size_t call);
  void prune(Cohort& cohort, double share);
  void finish(Cohort& cohort, size_t first, std::vector<Candidate>& candidates);
  void compare_winners(const Cohort& cohort);

  pipelines::TextToImage& pipeline_;
  reward_models::Scorer& scorer_;
  const CandidateOptions& options_;
  SamplingCounts counts_;
};

}  // namespace prefusion::tools
