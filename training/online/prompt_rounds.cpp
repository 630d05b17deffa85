#include "training/online/prompt_rounds.h"

#include "core/rng.h"
#include "data/prompt_list.h"

namespace prefusion::training {

PromptRounds::PromptRounds(const std::filesystem::path& file, int64_t per_round, uint64_t seed)
    : per_round_(per_round), seed_(seed) {
  for (const auto& entry : data::read_prompts(file)) prompts_.push_back(entry.prompt);
}

std::vector<std::string> PromptRounds::prompts_of(int64_t round) const {
  std::vector<std::string> chosen;
  std::vector<int64_t> order;
  int64_t ordered_pass = -1;
  for (int64_t i = 0; i < per_round_; ++i) {
    const int64_t position = round * per_round_ + i;
    const int64_t pass = position / size();
    if (pass != ordered_pass) {
      order = random_permutation(size(), {seed_, static_cast<uint64_t>(pass), 0}, RandomPurpose::kShuffle);
      ordered_pass = pass;
    }
    chosen.push_back(prompts_[order[position % size()]]);
  }
  return chosen;
}

std::vector<pipelines::KeyedRequest> PromptRounds::requests_of(int64_t round, int64_t copies) const {
  std::vector<pipelines::KeyedRequest> requests;
  for (const auto& prompt : prompts_of(round)) {
    for (int64_t k = 0; k < copies; ++k) {
      const auto item = static_cast<uint64_t>(requests.size());
      requests.push_back({prompt, "", {seed_, item, static_cast<uint64_t>(round)}});
    }
  }
  return requests;
}

}  // namespace prefusion::training
