#include "text/prompt_segments.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/support/tensor_near.h"
#include "text/sentences.h"

namespace prefusion::text {
namespace {

using tests::near;
using Sentences = std::vector<std::string>;

TEST(SplitCaption, CutsAtTheMarksOfLongAlign) {
  EXPECT_EQ(split_caption("A dog. Two cats? Yes"), (Sentences{"A dog.", " Two cats.", " Yes."}));
  EXPECT_EQ(split_caption("no! not; here"), (Sentences{"no! not; here."}));
  EXPECT_EQ(split_caption("so\"!he;\"said"), (Sentences{"so.", "he.", "said."}));
  EXPECT_EQ(split_caption("e.g. x\n.\n"), (Sentences{"e.", "g.", " x\n.", "\n."}));
}

TEST(SplitCaption, LeavesWhatHasNoSentence) {
  EXPECT_EQ(split_caption(""), (Sentences{""}));
  EXPECT_EQ(split_caption("..?"), (Sentences{"..?"}));
  EXPECT_EQ(split_caption("\""), (Sentences{"\"."}));
}

TEST(JoinSegments, PutsPlacesInARowAndPadsWithTheMeanOfTheEmptyPrompt) {
  constexpr int64_t kLength = 70;
  const at::Tensor states = at::arange(3 * kLength, at::kFloat).reshape({3, kLength, 1});
  SegmentRows segments{.ids = {}, .mask = {}, .places = at::full({1, kSegmentStates}, 3 * kLength, at::kLong)};
  segments.places.slice(1, 0, 3).copy_(at::tensor({0, 1, 71}, at::kLong));
  segments.empty_row = 1;
  segments.num_pooled = 1;
  const at::Tensor joined = join_segments(states, segments);
  ASSERT_EQ(joined.sizes(), (std::vector<int64_t>{1, kSegmentStates, 1}));
  const double mean = kLength + 10 + 59 / 2.0;  // of the last 60
  EXPECT_TRUE(near(joined[0].slice(0, 0, 5).squeeze(1), at::tensor({0.0, 1.0, 71.0, mean, mean}, at::kFloat), 1e-6));
  EXPECT_TRUE(at::equal(pooled_of_segments(at::arange(3, at::kFloat).unsqueeze(1), segments), at::full({1, 1}, 2.0)));
  EXPECT_FALSE(pooled_of_segments({}, segments).defined());
}

}  // namespace
}  // namespace prefusion::text
