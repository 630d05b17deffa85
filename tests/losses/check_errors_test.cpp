#include "losses/check_errors.h"

#include <gtest/gtest.h>

#include <functional>

#include "core/error.h"
#include "tests/losses/make_errors.h"

namespace prefusion::losses {
namespace {

using namespace prefusion::tests;

// The message of the run error, "" where there is none.
std::string refusal(const ObjectiveInfo& info, const GroupErrors& errors) {
  try {
    check_errors(info, errors);
  } catch (const Error& error) {
    EXPECT_EQ(error.error_class(), ErrorClass::kRun);
    return error.what();
  }
  return "";
}

// A need of an objective, the words that refuse a batch without it, and how a batch meets it.
struct Need {
  std::function<void(ObjectiveInfo&)> ask;
  std::string words;
};

TEST(CheckErrors, RefusesWhatAnObjectiveNeedsAndTheBatchLacks) {
  const std::vector<Need> needs = {
      {[](ObjectiveInfo& info) { info.needs_drift = true; }, "drift"},
      {[](ObjectiveInfo& info) { info.needs_residual_dot = true; }, "residuals"},
      {[](ObjectiveInfo& info) { info.needs_prompt_distance = true; }, "distances"},
      {[](ObjectiveInfo& info) { info.needs_scores = true; }, "scores"},
      {[](ObjectiveInfo& info) { info.needs_item_prompts = true; }, "prompt for each item"},
      {[](ObjectiveInfo& info) { info.needs_mask = true; }, "masks"},
      {[](ObjectiveInfo& info) { info.latent_source = LatentSource::kDdimInversion; },
       "latents from DDIM inversion, found forward noise"},
  };
  for (const Need& need : needs) {
    ObjectiveInfo info{.name = "asking", .data = DataKind::kPair, .needs_reference = true};
    const GroupErrors plain = make_errors_for(info, 3);
    EXPECT_EQ(refusal(info, plain), "") << need.words;
    need.ask(info);
    EXPECT_NE(refusal(info, plain).find("asking: "), std::string::npos) << need.words;
    EXPECT_NE(refusal(info, plain).find(need.words), std::string::npos) << refusal(info, plain);
    EXPECT_EQ(refusal(info, make_errors_for(info, 3)), "") << need.words;
  }
}

TEST(CheckErrors, RefusesTensorsOfOtherShapes) {
  const ObjectiveInfo info{.name = "asking", .data = DataKind::kPair};
  using Tensor = at::Tensor GroupErrors::*;
  for (const Tensor tensor :
       {&GroupErrors::error_ref, &GroupErrors::labels, &GroupErrors::scores, &GroupErrors::drift, &GroupErrors::weights,
        &GroupErrors::residual_dot, &GroupErrors::residual_square, &GroupErrors::drop_margin, &GroupErrors::swap,
        &GroupErrors::error_scale, &GroupErrors::prompt_distance}) {
    GroupErrors errors = make_errors(3, 2);
    errors.*tensor = at::ones({3, 4});
    EXPECT_NE(refusal(info, errors).find("has shape [3, 4], expected [3"), std::string::npos);
  }
}

TEST(CheckErrors, LatentsFromInversionSuitObjectivesOfForwardNoise) {
  const ObjectiveInfo info{.name = "asking", .data = DataKind::kPair};
  GroupErrors errors = make_errors(3, 2);
  errors.latent_source = LatentSource::kDdimInversion;
  EXPECT_EQ(refusal(info, errors), "");
}

}  // namespace
}  // namespace prefusion::losses
