#include <gtest/gtest.h>

#include <fstream>
#include <limits>

#include "core/atomic_file.h"
#include "tests/core/expect_error.h"
#include "tests/support/temp_dir.h"
#include "tools/score_output.h"
#include "tools/score_request.h"
#include "tools/score_state.h"
#include "tools/score_summary.h"

namespace prefusion::tools {
namespace {

using tests::error_message;
using tests::mentions;
using tests::TempDir;

const ScoreLayout kLayout = {.rewards = {"clip", "clip/b"},
                             .details = {{.name = "row"}, {.name = "t", .is_flag = true}}};

ScoreRow row(int number) {
  return {.image = "a,\"" + std::to_string(number) + "\".png",
          .prompt = number % 2 ? std::optional<std::string>("two\nlines \xff") : std::nullopt,
          .scores = {0.1f * static_cast<float>(number), -std::numeric_limits<float>::denorm_min()},
          .details = {number, number % 3 == 0}};
}

ScoreRow bad_row() {
  return {.image = "b", .prompt = "p", .scores = {std::nullopt, std::nullopt}, .error = "x: \"y\"", .details = {3, {}}};
}

void expect_same(const ScoreRow& found, const ScoreRow& expected) {
  EXPECT_EQ(found.image, valid_text(expected.image));
  EXPECT_EQ(found.prompt.value_or(""), valid_text(expected.prompt.value_or("")));
  EXPECT_EQ(found.scores, expected.scores);
  EXPECT_EQ(found.error, expected.error);
  EXPECT_EQ(found.details, expected.details);
}

class ScoreFormats : public testing::TestWithParam<const char*> {};

TEST_P(ScoreFormats, RowsReadBackBitForBit) {
  const TempDir folder;
  const auto path = folder / (std::string("scores") + GetParam());
  ScoreOutput output(path, kLayout);
  output.start();
  output.append({row(1), row(2)});
  output.append({bad_row()});
  output.finish();
  const auto reader = open_score_file(path, kLayout);
  for (const ScoreRow& expected : {row(1), row(2), bad_row()}) {
    ScoreRow found;
    ASSERT_TRUE(reader->next(found));
    expect_same(found, expected);
  }
  ScoreRow rest;
  EXPECT_FALSE(reader->next(rest));
}

TEST_P(ScoreFormats, ResumingAtAnyByteKeepsWholeBatches) {
  const TempDir folder;
  const auto path = folder / (std::string("scores") + GetParam());
  const auto journal = score_journal_path(path);
  std::vector<ScoreRow> rows;
  for (int i = 0; i < 5; ++i) rows.push_back(row(i));
  {
    ScoreOutput output(path, kLayout);
    output.start();
    output.append(rows);
  }
  const std::string whole = read_file(journal);
  for (size_t size = 0; size <= whole.size(); ++size) {
    std::ofstream(journal, std::ios::binary) << whole.substr(0, size);
    ScoreOutput output(path, kLayout);
    int64_t visited = 0;
    const int64_t kept =
        output.resume(2, 5, [&](const ScoreRow& found) { expect_same(found, rows[static_cast<size_t>(visited++)]); });
    EXPECT_EQ(visited, kept);
    EXPECT_TRUE(kept % 2 == 0 || kept == 5) << kept;
    output.append({rows.begin() + kept, rows.end()});
    ASSERT_EQ(read_file(journal), whole) << "cut at byte " << size;
  }
}

INSTANTIATE_TEST_SUITE_P(All, ScoreFormats, testing::Values(".jsonl", ".csv", ".parquet"));

TEST(ScoreOutput, TwoProcessesCannotWriteOneFile) {
  const TempDir folder;
  const ScoreOutput first(folder / "a.jsonl", kLayout);
  error_message(ErrorClass::kRun, [&] { ScoreOutput(folder / "a.jsonl", kLayout); });
}

TEST(ScoreOutput, ForeignLinesAreNotCutOff) {
  const TempDir folder;
  write_file(folder / "a.jsonl", "notes\nof somebody\n");
  ScoreOutput output(folder / "a.jsonl", kLayout);
  EXPECT_TRUE(
      mentions(error_message(ErrorClass::kInput, [&] { output.resume(2, 5, [](const ScoreRow&) {}); }), "line 1"));
  EXPECT_EQ(read_file(folder / "a.jsonl"), "notes\nof somebody\n");
}

TEST(ScoreShard, BlocksCoverTheInputInWholeBatches) {
  for (const int64_t total : {1, 7, 8, 100, 1001}) {
    for (const int64_t count : {1, 2, 3, 50}) {
      int64_t end = 0;
      for (int64_t i = 0; i < count; ++i) {
        const ScoreRange range = shard_range({.index = i, .count = count}, total, 8);
        EXPECT_EQ(range.begin, end);
        EXPECT_TRUE(range.begin % 8 == 0 || range.begin == total);
        end = range.end;
      }
      EXPECT_EQ(end, total);
    }
  }
}

TEST(ScoreState, DifferencesAreNamedWithBothValues) {
  const TempDir folder;
  ScoreState state{.rewards = {{{"reward", "clip"}, {"files", "1"}}},
                   .dtype = "fp32",
                   .device = "cpu",
                   .num_inputs = 3,
                   .batch_size = 2,
                   .layout = kLayout};
  write_score_state(folder / "a.jsonl", state);
  const ScoreState found = read_score_state(folder / "a.jsonl");
  check_same_scoring(found, state, "a.jsonl");
  state.batch_size = 4;
  state.rewards[0]["files"] = "2";
  const std::string message = error_message(ErrorClass::kUsage, [&] { check_same_scoring(found, state, "a.jsonl"); });
  EXPECT_TRUE(mentions(message, "--batch-size was 2, now 4"));
  EXPECT_TRUE(mentions(message, "content or options of --reward"));
}

TEST(ScoreSummary, QuartilesLieBetweenNeighbours) {
  const ScoreStatistics s = score_statistics({4, 1, 3, 2});
  EXPECT_DOUBLE_EQ(s.lower_quartile, 1.75);
  EXPECT_DOUBLE_EQ(s.median, 2.5);
  EXPECT_DOUBLE_EQ(s.upper_quartile, 3.25);
  EXPECT_NEAR(s.std, 1.2909944, 1e-6);
}

TEST(ScoreRequest, Base64IsThatOfRfc4648) {
  const std::vector<std::pair<std::string, std::string>> vectors = {{"", ""},
                                                                    {"Zg==", "f"},
                                                                    {"Zm8=", "fo"},
                                                                    {"Zm9v", "foo"},
                                                                    {"Zm9vYg==", "foob"},
                                                                    {"Zm9vYmE=", "fooba"},
                                                                    {"Zm9vYmFy", "foobar"},
                                                                    {"Zm9v\r\nYmFy", "foobar"},
                                                                    {"_-8", "\xff\xef"},
                                                                    {"data:image/png;base64,Zg", "f"}};
  for (const auto& [text, bytes] : vectors) EXPECT_EQ(decode_base64(text), bytes) << text;
  for (const char* text : {"Z", "Zg=", "Zg===", "Z?==", "=", "Zg==Zg==", "Zm9v=", "data:,x"}) {
    EXPECT_THROW(decode_base64(text), RequestError) << text;
  }
}

}  // namespace
}  // namespace prefusion::tools
