#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "reward_models/scorer.h"

namespace prefusion::tools {

struct ScoreServerOptions {
  int port = 8420;             // 0: any that is free
  std::string allowed_folder;  // requests may name pictures below it; empty: they may not
  int max_request_mb = 32;
  int max_items = 256;
  int max_megapixels = 50;
  int max_queue = 1024;
  int max_wait_ms = 5;
  int workers = 0;  // requests whose pictures are decoded at the same time; 0: one a CPU
};

// Answers HTTP requests on 127.0.0.1 (docs/scoring.md) until SIGINT or SIGTERM, then finishes what it has taken and
// returns. Prints "listening on http://127.0.0.1:PORT" to standard output. Run error when the port cannot be had.
void serve_scores(const std::vector<reward_models::RewardSpec>& rewards, const reward_models::ScorerOptions& scoring,
                  const ScoreServerOptions& options);

}  // namespace prefusion::tools
