#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "pipelines/keyed_request.h"

namespace prefusion::training {

// The prompts of an online run, dealt out a round at a time. What a round has is a function of (seed, its number).
class PromptRounds {
 public:
  // Reads --prompts. Input error when it holds none.
  PromptRounds(const std::filesystem::path& file, int64_t per_round, uint64_t seed);

  // `per_round` prompts. Each pass over the prompts has an order of its own.
  std::vector<std::string> prompts_of(int64_t round) const;

  // Requests for `copies` pictures of each of them, one prompt's after another's.
  std::vector<pipelines::KeyedRequest> requests_of(int64_t round, int64_t copies) const;

  const std::vector<std::string>& all() const { return prompts_; }
  int64_t size() const { return static_cast<int64_t>(prompts_.size()); }
  int64_t per_round() const { return per_round_; }

 private:
  std::vector<std::string> prompts_;
  int64_t per_round_;
  uint64_t seed_;
};

}  // namespace prefusion::training
