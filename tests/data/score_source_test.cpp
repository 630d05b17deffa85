#include "data/score_source.h"

#include <gtest/gtest.h>

#include "core/atomic_file.h"
#include "data/csv_reader.h"
#include "data/tar_reader.h"
#include "tests/core/expect_error.h"
#include "tests/data/manifest_file.h"

namespace prefusion::data {
namespace {

using tests::error_message;
using tests::ManifestFile;
using tests::mentions;
using tests::TempDir;

std::vector<std::vector<std::string>> records(const std::string& text) {
  const TempDir folder;
  write_file(folder / "a.csv", text);
  CsvReader reader(folder / "a.csv");
  std::vector<std::vector<std::string>> all;
  for (std::vector<std::string> fields; reader.next(fields);) all.push_back(fields);
  return all;
}

using Fields = std::vector<std::string>;

TEST(CsvReader, ReadsQuotedFieldsOverLines) {
  EXPECT_EQ(records("a,b\r\n\"x, \"\"y\"\"\n2\",\r\n\n,z"),
            (std::vector<Fields>{{"a", "b"}, {"x, \"y\"\n2", ""}, {"", "z"}}));
}

TEST(CsvReader, ReadsBackWhatCsvFieldWrites) {
  for (const std::string text : {"plain", "a,b", "say \"x\"", "two\nlines", "cr\r", " blank "}) {
    EXPECT_EQ(records("k," + csv_field(text) + "\n"), (std::vector<Fields>{{"k", text}})) << text;
  }
}

TEST(CsvReader, KnowsWhereARecordEndsAndWhetherItIsWhole) {
  const TempDir folder;
  write_file(folder / "a.csv", "a,b\n1,2");
  CsvReader reader(folder / "a.csv");
  Fields fields;
  ASSERT_TRUE(reader.next(fields));
  EXPECT_EQ(reader.position(), 4);
  EXPECT_TRUE(reader.was_terminated());
  ASSERT_TRUE(reader.next(fields));
  EXPECT_FALSE(reader.was_terminated());
  EXPECT_FALSE(reader.next(fields));
}

TEST(CsvReader, RefusesAFieldThatNeverEnds) {
  EXPECT_TRUE(mentions(error_message(ErrorClass::kInput, [] { records("a\n\"x"); }), "line 2"));
}

TEST(TarReader, RefusesWhatIsNoArchive) {
  const TempDir folder;
  write_file(folder / "a.tar", std::string(1024, 'x'));
  TarReader reader(folder / "a.tar");
  std::string name;
  EXPECT_TRUE(mentions(error_message(ErrorClass::kInput, [&] { reader.next(name); }), "byte 0"));
}

std::vector<ScoreItem> items_of(ScoreInputs& inputs) {
  std::vector<ScoreItem> items;
  for (ScoreItem item; inputs.next(item, /*wants_picture=*/true);) items.push_back(item);
  return items;
}

TEST(ScoreInputs, CountsWhatItGives) {
  const ManifestFile manifest({R"({"image": "a.png", "prompt": "x"})", "", "broken",
                               R"({"images": ["b.png", "c.png"], "caption": "y", "label": "nonsense"})"});
  ScoreInputs inputs({manifest.path(), manifest.path()}, {});
  EXPECT_EQ(inputs.count(), 8);
  const auto items = items_of(inputs);
  ASSERT_EQ(items.size(), 8u);
  EXPECT_EQ(items[0].path, manifest / "a.png");
  EXPECT_TRUE(mentions(items[1].problem, "line 3"));
  EXPECT_EQ(items[3].image, "c.png");
  EXPECT_EQ(items[3].prompt, "y");
  EXPECT_EQ(items[3].row, 2);
  EXPECT_EQ(items[3].item, 1);
}

TEST(ScoreInputs, ListedPicturesComeFirstAndOthersAreNotForgotten) {
  const TempDir folder;
  for (const char* name : {"a.png", "b.PNG", "c.jpeg", ".hidden.png"}) write_file(folder / name, name);
  write_file(folder / "a.txt", "beside a \n");
  write_file(folder / "b.txt", "beside b\n");
  write_file(folder / "prompts.jsonl", "{\"file_name\": \"c.jpeg\", \"prompt\": \"listed\"}\n");
  ScoreInputs inputs({folder.path()}, {});
  EXPECT_EQ(inputs.count(), 3);
  const auto items = items_of(inputs);
  ASSERT_EQ(items.size(), 3u);
  EXPECT_EQ(items[0].image, (folder / "c.jpeg").string());
  EXPECT_EQ(items[0].prompt, "listed");
  EXPECT_EQ(items[1].prompt, "beside a");
  EXPECT_EQ(items[2].prompt, "beside b");
}

TEST(ScoreInputs, FoldersBelowAreReadWhenAsked) {
  const TempDir folder;
  make_folder(folder / "inside");
  write_file(folder.path() / "inside" / "a.png", "a");
  EXPECT_TRUE(mentions(error_message(ErrorClass::kInput, [&] { ScoreInputs({folder.path()}, {}); }), "--recursive"));
  ScoreInputs inputs({folder.path()}, {.recursive = true});
  const auto items = items_of(inputs);
  ASSERT_EQ(items.size(), 1u);
  EXPECT_FALSE(items[0].prompt.has_value());
}

}  // namespace
}  // namespace prefusion::data
