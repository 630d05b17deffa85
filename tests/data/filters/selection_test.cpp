#include "data/filters/selection.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "data/filters/text_diversity.h"
#include "tests/core/expect_error.h"

namespace prefusion::data::filters {
namespace {

using tests::error_message;
using tests::mentions;
using Indices = std::vector<int64_t>;
using Values = std::vector<double>;

TEST(Keep, IsACountOrAShareOfWhatWasRead) {
  EXPECT_EQ(parse_keep("12").of(100), 12);
  EXPECT_EQ(parse_keep("12.5%").of(200), 25);
  for (const char* text : {"", "0", "-3", "2.5", "101%", "5 %", "all"}) {
    EXPECT_TRUE(mentions(error_message(ErrorClass::kUsage, [&] { parse_keep(text); }), "how many")) << text;
  }
}

TEST(Normalised, PutsTermsOnOneScale) {
  const Values values = {1, 3, 3, 9};  // mean 4, deviation 3
  EXPECT_EQ(normalised(values, Normalisation::kZScore), (Values{-1, -1. / 3, -1. / 3, 5. / 3}));
  EXPECT_EQ(normalised(values, Normalisation::kMinMax), (Values{0, 0.25, 0.25, 1}));
  EXPECT_EQ(normalised(values, Normalisation::kRank), (Values{0.125, 0.5, 0.5, 0.875}));
  EXPECT_EQ(normalised(values, Normalisation::kNone), values);
  for (const auto kind : {Normalisation::kZScore, Normalisation::kMinMax, Normalisation::kRank}) {
    EXPECT_EQ(normalised({0.1, 0.1, 0.1}, kind), (Values{0, 0, 0}));
  }
}

TEST(Importance, IsTheWeightedSumOfItsTerms) {
  const ImportanceTerms terms{.margin = {0, 2}, .quality = {1, 1}, .diversity = {-3, -1}};
  const ImportanceOptions options{
      .margin_weight = 2, .quality_weight = 5, .diversity_weight = 0.5, .normalisation = Normalisation::kMinMax};
  EXPECT_EQ(importance(terms, options), (Values{0, 2.5}));
}

TEST(Importance, LooksAtNoTermWithoutAWeight) {
  const ImportanceTerms terms{.margin = {NAN, NAN}, .quality = {1, 3}, .diversity = {0, 0}};
  EXPECT_EQ(importance(terms, {.margin_weight = 0, .normalisation = Normalisation::kNone}), (Values{1, 3}));
}

TEST(Top, IsInTheDatasOrderAndPrefersTheFirstOfEquals) {
  EXPECT_EQ(top({1, 5, 5, 7, 5}, 3), (Indices{1, 2, 3}));
  EXPECT_EQ(top({1, 5}, 9), (Indices{0, 1}));
}

// Prompts at 0, 1 and 10 on a line. The best group is at 0; the next best is near it, and of a large diversity weight
// the far one is worth more.
TEST(Greedy, MeasuresDiversityAmongTheChosen) {
  const at::Tensor embeddings = at::tensor({0.0f, 1.0f, 10.0f}).unsqueeze(1);
  const ImportanceTerms terms{.margin = {3, 2, 1}, .quality = {0, 0, 0}, .diversity = {0, 0, std::log(9.0)}};
  ImportanceOptions options{.quality_weight = 0, .normalisation = Normalisation::kNone, .neighbours = 1};
  options.diversity_weight = 0.1;  // 2 + 0.1 log 1 against 1 + 0.1 log 10
  EXPECT_EQ(greedy(terms, {0, 1, 2}, embeddings, 2, options), (Indices{0, 1}));
  options.diversity_weight = 1;  // 2 + 0 against 1 + 2.30
  EXPECT_EQ(greedy(terms, {0, 1, 2}, embeddings, 2, options), (Indices{0, 2}));
}

TEST(Greedy, AvoidsPromptsThatAreChosen) {
  const at::Tensor embeddings = at::tensor({0.0f, 1.0f}).unsqueeze(1);
  const ImportanceTerms terms{.margin = {3, 3, 2}, .quality = {0, 0, 0}, .diversity = {0, 0, 0}};
  const ImportanceOptions options{.quality_weight = 0, .normalisation = Normalisation::kNone, .neighbours = 1};
  EXPECT_EQ(greedy(terms, {0, 0, 1}, embeddings, 2, options), (Indices{0, 2}));
}

TEST(RandomPlaces, FollowTheSeedAlone) {
  const Indices places = random_places(100, 10, 3);
  ASSERT_EQ(places.size(), 10u);
  EXPECT_EQ(places, random_places(100, 10, 3));
  EXPECT_NE(places, random_places(100, 10, 4));
  EXPECT_TRUE(std::is_sorted(places.begin(), places.end()));
}

TEST(KnnLogDistances, AreThoseOfTheKthNeighbour) {
  const at::Tensor line = at::tensor({0.0f, 1.0f, 3.0f, 7.0f}).unsqueeze(1);
  const auto distance = [&](int64_t k, int64_t row) {
    return std::exp(knn_log_distances(line, k)[row].item<double>());
  };
  EXPECT_NEAR(distance(1, 0), 1, 1e-12);
  EXPECT_NEAR(distance(1, 3), 4, 1e-12);
  EXPECT_NEAR(distance(2, 2), 3, 1e-12);
  EXPECT_NEAR(distance(9, 0), 7, 1e-12);  // there are only three others
}

TEST(KnnLogDistances, HaveAFloorForEqualTexts) {
  const at::Tensor equal = at::ones({3, 4});
  EXPECT_NEAR(knn_log_distances(equal, 1)[0].item<double>(), std::log(kLeastDistance), 1e-12);
  EXPECT_EQ(knn_log_distances(at::ones({1, 4}), 5)[0].item<double>(), 0);
}

TEST(HashedNgrams, AreNearForTextsThatShareWords) {
  const at::Tensor rows = hashed_ngrams({"a red circle", "a red circle left of a square", "spaceship at dawn", ""});
  EXPECT_NEAR(rows[0].norm().item<double>(), 1, 1e-6);
  EXPECT_EQ(rows[3].norm().item<double>(), 0);
  EXPECT_GT(rows[0].dot(rows[1]).item<double>(), rows[0].dot(rows[2]).item<double>() + 0.3);
  EXPECT_TRUE(at::equal(hashed_ngrams({"A  RED, circle"})[0], rows[0]));
}

}  // namespace
}  // namespace prefusion::data::filters
