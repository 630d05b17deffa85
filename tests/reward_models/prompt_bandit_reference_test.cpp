// The posterior of prompt scores against PyTorch's LBFGS and automatic Hessian, live.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/safetensors.h"
#include "reward_models/prompt_bandit.h"
#include "tests/support/python_reference.h"
#include "tests/support/tensor_near.h"

namespace prefusion::reward_models {
namespace {

using tests::near;

TEST(PromptBanditReference, PosteriorAndNextDuelAreThoseOfPyTorch) {
  const auto folder = tests::run_reference_script("make_prompt_bandit.py");
  for (const char* name : {"narrow", "wide", "weak_prior", "one_duel"}) {
    SCOPED_TRACE(name);
    const TensorMap expected = read_safetensors(folder / (std::string(name) + ".safetensors"));
    PromptBandit bandit(expected.at("features"), {.ridge = expected.at("ridge").item<double>(), .exploration = 1.5});
    for (const at::Tensor& row : expected.at("duels").unbind(0)) {
      bandit.add({.first = static_cast<int64_t>(row[0].item<double>()),
                  .second = static_cast<int64_t>(row[1].item<double>()),
                  .outcome = row[2].item<double>()});
    }
    EXPECT_TRUE(near(bandit.means(), expected.at("means"), 1e-8));
    EXPECT_TRUE(near(bandit.deviations(), expected.at("deviations"), 1e-8));
    EXPECT_EQ(bandit.next().first, expected.at("next")[0].item<int64_t>());
    EXPECT_EQ(bandit.next().second, expected.at("next")[1].item<int64_t>());
  }
}

}  // namespace
}  // namespace prefusion::reward_models
