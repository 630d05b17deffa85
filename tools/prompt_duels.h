#pragma once

#include <cstdint>
#include <filesystem>

#include "tools/prompt_contest.h"
#include "tools/prompt_judge.h"

namespace prefusion::tools {

// Reward models decide duels until there are `num_duels` in all.
void judge_duels(PromptContest& contest, PromptJudge& judge, int64_t num_duels, bool shows_progress);

// Who draws the pictures that people look at, and where they are put.
struct DuelPictures {
  PromptJudge* judge = nullptr;  // null: people see the prompts alone
  std::filesystem::path folder;
};

// Asks on the terminal until there are `num_duels` in all, or the answer is q or the end of the input.
void ask_duels(PromptContest& contest, const DuelPictures& pictures, int64_t num_duels);

// Draws the next duel for somebody who answers in `file`, and says on stderr how.
void pose_duel(const PromptContest& contest, const DuelPictures& pictures, const std::filesystem::path& file);

}  // namespace prefusion::tools
