#include "data/judgements.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/atomic_file.h"
#include "tests/core/expect_error.h"
#include "tests/support/temp_dir.h"

namespace prefusion::data {
namespace {

using tests::error_message;
using tests::mentions;
using tests::TempDir;

using Values = std::vector<double>;
constexpr VoteWinner kFirst = VoteWinner::kFirst;
constexpr VoteWinner kSecond = VoteWinner::kSecond;
constexpr VoteWinner kTie = VoteWinner::kTie;

TEST(ReconcileVotes, APairIsWonInBothOrders) {
  EXPECT_EQ(reconcile_votes({{0, 1, kFirst}, {1, 0, kSecond}}, 2), (Values{1, 0}));
  EXPECT_EQ(reconcile_votes({{0, 1, kSecond}, {1, 0, kFirst}}, 2), (Values{0, 1}));
}

TEST(ReconcileVotes, AVoteThatGoesWithTheOrderIsATie) {
  EXPECT_EQ(reconcile_votes({{0, 1, kFirst}, {1, 0, kFirst}}, 2), (Values{0.5, 0.5}));
  EXPECT_EQ(reconcile_votes({{0, 1, kSecond}, {1, 0, kSecond}}, 2), (Values{0.5, 0.5}));
  EXPECT_EQ(reconcile_votes({{0, 1, kFirst}, {1, 0, kTie}}, 2), (Values{0.5, 0.5}));
}

TEST(ReconcileVotes, OneOrderStandsAlone) {
  EXPECT_EQ(reconcile_votes({{1, 0, kFirst}}, 2), (Values{0, 1}));
}

TEST(ReconcileVotes, TheMajorityOfAnOrderCounts) {
  EXPECT_EQ(reconcile_votes({{0, 1, kFirst}, {0, 1, kFirst}, {0, 1, kSecond}, {1, 0, kSecond}}, 2), (Values{1, 0}));
  EXPECT_EQ(reconcile_votes({{0, 1, kFirst}, {0, 1, kSecond}}, 2), (Values{0.5, 0.5}));
}

TEST(ReconcileVotes, ValuesAreMeansOverTheRivalsMet) {
  const Values found = reconcile_votes({{0, 1, kFirst}, {0, 2, kTie}, {1, 2, kFirst}}, 4);
  EXPECT_EQ(Values(found.begin(), found.end() - 1), (Values{0.75, 0.5, 0.25}));
  EXPECT_TRUE(std::isnan(found[3]));
}

TEST(ParseJudgement, ReadsImagesVotesAndAspects) {
  const Judgement judgement = parse_judgement(
      R"({"prompt": "a cat", "images": [2, {"model": "sd", "seed": 7}], "votes": [{"order": [1, 0], "winner": "second"}],
          "aspects": {"alignment": [4, 5]}, "critique": "the first has no tail"})",
      "here");
  EXPECT_EQ(judgement.prompt, "a cat");
  EXPECT_EQ(std::get<size_t>(judgement.images[0]), 2u);
  EXPECT_EQ(std::get<PictureName>(judgement.images[1]), (PictureName{"sd", 7}));
  EXPECT_EQ(judgement.votes[0].first, 1u);
  EXPECT_EQ(judgement.votes[0].winner, kSecond);
  EXPECT_EQ(judgement.aspects.at("alignment"), (Values{4, 5}));
}

TEST(ParseJudgement, NamesWhatIsWrong) {
  const auto error_of = [](const std::string& rest) {
    return error_message(ErrorClass::kInput, [&] { parse_judgement("{\"prompt\": \"p\", " + rest + "}", "f line 3"); });
  };
  EXPECT_TRUE(mentions(error_of(R"("images": [0, 1])"), "neither 'votes' nor 'aspects'"));
  EXPECT_TRUE(mentions(error_of(R"("images": [0, 0], "votes": [])"), "twice"));
  EXPECT_TRUE(mentions(error_of(R"("images": [0, -1], "votes": [])"), "-1"));
  EXPECT_TRUE(mentions(error_of(R"("images": [0, 1], "votes": [{"order": [0, 2], "winner": "tie"}])"), "[0, 2]"));
  EXPECT_TRUE(mentions(error_of(R"("images": [0, 1], "votes": [{"order": [0, 0], "winner": "tie"}])"), "[0, 0]"));
  EXPECT_TRUE(mentions(error_of(R"("images": [0, 1], "votes": [{"order": [0, 1], "winner": "0"}])"), "'winner'"));
  EXPECT_TRUE(mentions(error_of(R"("images": [0, 1], "aspects": {"look": [1]})"), "'look'"));
  EXPECT_TRUE(mentions(error_of(R"("images": [0, 1], "aspects": {"look": [1, 2]}, "wieght": 1)"), "wieght"));
  EXPECT_TRUE(mentions(error_of(R"("images": [0, 1], "aspects": 3)"), "f line 3"));
}

class JudgementFile : public testing::Test {
 protected:
  Judgements read(const std::string& text) {
    write_file(folder_ / "judgements.jsonl", text);
    return Judgements::read(folder_ / "judgements.jsonl");
  }
  TempDir folder_;
  const std::vector<PictureName> list_ = {{"a", 1}, {"a", 2}, {"b", 1}};
};

TEST_F(JudgementFile, JoinsAllLinesAboutAList) {
  Judgements judgements = read(R"({"prompt": "p", "images": [0, 2], "votes": [{"order": [0, 1], "winner": "second"}]}
{"prompt": "p", "images": [{"model": "b", "seed": 1}, {"model": "a", "seed": 2}], "votes": [{"order": [1, 0], "winner": "tie"}]}

{"prompt": "q", "images": [0, 1], "votes": [{"order": [0, 1], "winner": "first"}]})");
  EXPECT_EQ(judgements.size(), 3u);
  const auto judged = judgements.judge("p", list_);
  ASSERT_TRUE(judged.has_value());
  EXPECT_EQ(judged->values, (Values{0, 0.5, 0.75}));
  EXPECT_FALSE(judgements.judge("other", list_).has_value());
  EXPECT_FALSE(judgements.judge("q", list_).has_value());  // the third picture was left out
  EXPECT_EQ(judgements.num_used(), 3u);
}

TEST_F(JudgementFile, AspectsStandInForVotes) {
  Judgements judgements =
      read(R"({"prompt": "p", "images": [0, 1, 2], "aspects": {"look": [1, 2, 3], "truth": [5, 4, 0]}}
{"prompt": "p", "images": [2, 1, 0], "aspects": {"look": [1, 2, 5]}})");
  const auto judged = judgements.judge("p", list_);
  ASSERT_TRUE(judged.has_value());
  EXPECT_EQ(judged->aspects.at("look"), (Values{3, 2, 2}));
  EXPECT_EQ(judged->values, (Values{4, 3, 1}));
}

TEST_F(JudgementFile, IsAboutListsThatHaveItsPictures) {
  Judgements judgements = read(
      R"({"prompt": "p", "images": [0, {"model": "c", "seed": 9}], "votes": [{"order": [0, 1], "winner": "first"}]})");
  EXPECT_FALSE(judgements.judge("p", list_).has_value());
  EXPECT_EQ(judgements.num_used(), 0u);
}

TEST_F(JudgementFile, NamesTheLine) {
  const std::string message = error_message(ErrorClass::kInput, [&] { read("\n{\"prompt\": 3}\n"); });
  EXPECT_TRUE(mentions(message, "judgements.jsonl line 2"));
  error_message(ErrorClass::kInput, [&] { read(" \n"); });
}

}  // namespace
}  // namespace prefusion::data
