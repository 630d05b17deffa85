#pragma once

#include <memory>
#include <string>
#include <vector>

#include "reward_models/registry.h"

namespace prefusion::reward_models {

// The sentences of a long caption as LongAlign's data loader cuts them: at every '.', '?', '"!' and ';"', which are
// dropped; what lies between, if anything does, gets a '.' behind it. A caption without any of them is cut nowhere but
// gets its '.' too; an empty one stays empty.
std::vector<std::string> split_caption(const std::string& caption);

// Denscore (LongAlign, arXiv 2410.11817): the cosine of picture and sentence, averaged over a caption's sentences, of a
// transformers CLIP folder.
std::unique_ptr<RewardModel> open_denscore(const RewardSpec& spec, const RewardContext& context);

}  // namespace prefusion::reward_models
