#include "text/prompt_chunks.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/support/tensor_near.h"

namespace prefusion::text {
namespace {

using tests::near;

TEST(WeighStates, ScalesTokensAndKeepsTheMeanOfEachPrompt) {
  const at::Tensor states = at::arange(24, at::kFloat).reshape({2, 3, 4}).sin() + 0.7;
  const at::Tensor weights = at::tensor({1.0, 1.5, 1.0, 0.2, 1.0, 1.0}, at::kFloat).reshape({2, 3});
  const at::Tensor weighed = weigh_states(states, weights);
  EXPECT_TRUE(near(weighed.mean({1, 2}), states.mean({1, 2}), 1e-6));
  const at::Tensor ratio = weighed / states;
  EXPECT_TRUE(near(ratio.select(1, 1) / ratio.select(1, 2),
                   (weights.select(1, 1) / weights.select(1, 2)).unsqueeze(1).expand({2, 4}), 1e-5));
  EXPECT_TRUE(at::equal(weigh_states(states, at::ones({2, 3})), states));
}

// Of states that layer norms without weights make, the mean is rounding: dividing by it would make anything of them.
TEST(WeighStates, LeavesStatesWithoutAMeanUnscaled) {
  const at::Tensor centred = at::tensor({1.0, -1.0, 2.0, -2.0}, at::kFloat).reshape({1, 2, 2});
  const at::Tensor weights = at::tensor({1.0, 3.0}, at::kFloat).reshape({1, 2});
  EXPECT_TRUE(at::equal(weigh_states(centred, weights), centred * weights.unsqueeze(-1)));
  const at::Tensor turned = at::tensor({3.0, 3.0, -2.0, -2.0}, at::kFloat).reshape({1, 2, 2});  // 0.5, then -1.5
  EXPECT_TRUE(at::equal(weigh_states(turned, weights), turned * weights.unsqueeze(-1)));
}

TEST(JoinChunks, StatesFollowEachOtherAndPooledOnesAreOfTheFirst) {
  ClipTextOutput rows{.last_hidden_state = at::arange(16, at::kFloat).reshape({4, 2, 2}),
                      .hidden_states = {at::ones({4, 2, 2})},
                      .pooled = at::arange(4, at::kFloat).reshape({4, 1}),
                      .text_embeds = {}};
  const ClipTextOutput joined = join_chunks(rows, 2);
  EXPECT_TRUE(at::equal(joined.last_hidden_state, at::arange(16, at::kFloat).reshape({2, 4, 2})));
  EXPECT_TRUE(at::equal(joined.pooled, at::tensor({0.0, 2.0}, at::kFloat).reshape({2, 1})));
  EXPECT_FALSE(joined.text_embeds.defined());
}

}  // namespace
}  // namespace prefusion::text
