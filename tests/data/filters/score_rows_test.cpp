#include "data/filters/score_rows.h"

#include <gtest/gtest.h>

#include "core/atomic_file.h"
#include "tests/core/expect_error.h"
#include "tests/support/temp_dir.h"

namespace prefusion::data::filters {
namespace {

using tests::error_message;
using tests::mentions;
using Records = std::vector<std::vector<std::string>>;

TEST(Csv, KnowsQuotesCommasAndLineEnds) {
  EXPECT_EQ(parse_csv("a,b\r\n\"x, \"\"y\"\"\nz\",\n\n,2", "file"),
            (Records{{"a", "b"}, {"x, \"y\"\nz", ""}, {"", "2"}}));
  EXPECT_EQ(parse_csv("", "file"), Records{});
  EXPECT_TRUE(mentions(error_message(ErrorClass::kInput, [] { parse_csv("a\n\"b", "file"); }), "never closed"));
}

TEST(ScoreRows, AreReadAlikeFromJsonAndCsv) {
  const tests::TempDir folder;
  write_file(folder / "a.jsonl",
             "{\"image\": \"x.png\", \"prompt\": \"p\", \"clip\": 1.5}\n"
             "{\"image\": \"y.png\", \"prompt\": \"p\", \"error\": \"broken\"}\n");
  write_file(folder / "a.csv", "image,prompt,clip,error\nx.png,p,1.5,\ny.png,p,,broken\n");
  for (const char* name : {"a.jsonl", "a.csv"}) {
    std::vector<ScoreRow> rows;
    read_score_rows(folder / name, [&](const ScoreRow& row) { rows.push_back(row); });
    ASSERT_EQ(rows.size(), 2u) << name;
    EXPECT_EQ(rows[0].image, "x.png");
    EXPECT_EQ(rows[0].prompt, "p");
    EXPECT_EQ(rows[0].scores, (std::map<std::string, double>{{"clip", 1.5}}));
    EXPECT_TRUE(rows[1].has_error && rows[1].scores.empty() && !rows[0].has_error);
  }
}

TEST(ScoreRows, DamageIsNamed) {
  const tests::TempDir folder;
  const auto problem = [&](const char* name, const char* text) {
    write_file(folder / name, text);
    return error_message(ErrorClass::kInput, [&] { read_score_rows(folder / name, [](const ScoreRow&) {}); });
  };
  EXPECT_TRUE(mentions(problem("a.csv", "picture,clip\nx,1\n"), "no column 'image'"));
  EXPECT_TRUE(mentions(problem("a.csv", "image,clip\nx\n"), "record 1 has 1 fields"));
  EXPECT_TRUE(mentions(problem("a.jsonl", "{\"clip\": 1}\n"), "a.jsonl line 1"));
  EXPECT_TRUE(mentions(problem("a.parquet", "PAR1"), "a.parquet"));
  EXPECT_TRUE(mentions(problem("a.txt", "x"), "unknown kind"));
}

}  // namespace
}  // namespace prefusion::data::filters
