#include <gtest/gtest.h>

#include "tests/losses/make_errors.h"
#include "tests/support/tensor_near.h"

namespace prefusion::losses {
namespace {

using namespace prefusion::tests;

// Pairs with the given logits of the items at kappa 2500.
GroupErrors pairs(const std::vector<double>& a, const std::vector<double>& b) {
  GroupErrors errors;
  const at::Tensor logits = at::stack({at::tensor(a, at::kDouble), at::tensor(b, at::kDouble)}, 1);
  errors.error_ref = at::full_like(logits, 0.1);
  errors.error = errors.error_ref - logits / 2500;
  return errors;
}

TEST(Aot, BatchOfOneIsDpoWithSmoothing) {
  const GroupErrors errors = make_errors(1, 2);
  for (const std::string pairing : {"pairing=paired", "pairing=unpaired"}) {
    EXPECT_NEAR(loss_of("aot", errors, pairing), loss_of("diffusion-dpo", errors), 1e-12);
    EXPECT_NEAR(loss_of("aot", errors, pairing + ",label_smoothing=0.2"),
                loss_of("dpo-smooth", errors, "label_smoothing=0.2"), 1e-12);
  }
}

TEST(Aot, PairedComparesSortedGapsAndKeepsTheLossWithItsGroup) {
  GroupErrors errors = pairs({0, 0, 0}, {0, 0, 0});
  const auto with_gap = [](const std::vector<double>& logits) {  // error_rejected - error_chosen = logit / 2500
    const at::Tensor gap = at::tensor(logits, at::kDouble) / 2500;
    return at::stack({at::full_like(gap, 0.1), 0.1 + gap}, 1);
  };
  errors.error = with_gap({3, 1, 2});
  errors.error_ref = with_gap({0.5, 0, -1});
  const at::Tensor found = compute("aot", errors).group_loss;
  const std::vector<double> logits = {3 - 0.5, 1 - -1.0, 2 - 0.0};
  for (int i = 0; i < 3; ++i) EXPECT_NEAR(found[i].item<double>(), -log_sigmoid(logits[i]), 1e-9);
}

TEST(Aot, UnpairedComparesSortedItemsWhateverTheirPairs) {
  const at::Tensor found = compute("aot", pairs({3, 1, 2}, {0.5, 0, -1}), "pairing=unpaired").group_loss;
  const std::vector<double> logits = {3 - 0.5, 1 - -1.0, 2 - 0.0};
  for (int i = 0; i < 3; ++i) EXPECT_NEAR(found[i].item<double>(), -log_sigmoid(logits[i]), 1e-9);
  const GroupErrors other_pairs = pairs({3, 1, 2}, {-1, 0.5, 0});
  EXPECT_TRUE(near(compute("aot", other_pairs, "pairing=unpaired").group_loss, found, 1e-10));
  EXPECT_FALSE(near(compute("diffusion-dpo", other_pairs).group_loss, found, 1e-3));
}

TEST(Aot, GradientsReachBothItemsAcrossGroups) {
  // The highest rejected item stands against the highest chosen one, of another pair.
  const at::Tensor grad = gradient_of("aot", pairs({0, 9}, {1, 0}), "pairing=unpaired");
  const double solved = 2500 * std::exp(log_sigmoid(-8)) / 2;
  const double open = 2500 * 0.5 / 2;
  EXPECT_TRUE(near(grad, at::tensor({open, -solved, solved, -open}, at::kDouble).view({2, 2}), 1e-8)) << grad;
}

}  // namespace
}  // namespace prefusion::losses
