#pragma once

#include <memory>

#include "training/picture_judge.h"

namespace prefusion::training {

// Reward models as a judge: an axis each, in the order they are given. Of two pictures the one wins that more models
// prefer by more than the margin.
std::unique_ptr<PictureJudge> make_reward_judge(const JudgeOptions& options);

}  // namespace prefusion::training
