// The tokenizer of open_clip and its parts against open_clip, ftfy and Python
// (tests/reference/make_open_clip_tokens.py).
#include "text/open_clip_tokenizer.h"

#include <gtest/gtest.h>

#include <fstream>

#include "core/json_config.h"
#include "tests/core/expect_error.h"
#include "tests/support/python_reference.h"
#include "tests/support/temp_dir.h"
#include "text/fix_text.h"
#include "text/html_entities.h"
#include "text/single_byte_encodings.h"

namespace prefusion::text {
namespace {

using tests::error_message;
using tests::mentions;

class OpenClipTokenizerReference : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    root_ = tests::run_reference_script("make_open_clip_tokens.py");
    rows_ = read_json(root_ / "tokens.json");
  }
  static inline std::filesystem::path root_;
  static inline Json rows_;
};

TEST_F(OpenClipTokenizerReference, EncodingsAreThoseOfFtfy) {
  const Json expected = read_json(root_ / "encodings.json");
  ASSERT_EQ(expected.size(), misread_encodings().size());
  for (size_t i = 0; i < expected.size(); ++i) {
    for (unsigned byte = 0; byte < 256; ++byte) {
      std::string character;
      append_utf8(character, misread_encodings()[i].decode(static_cast<uint8_t>(byte)));
      EXPECT_EQ(character, expected[i][byte].get<std::string>()) << misread_encodings()[i].name() << ' ' << byte;
    }
  }
}

TEST_F(OpenClipTokenizerReference, ReferencesAreThoseOfHtml) {
  for (const Json& row : read_json(root_ / "entities.json")) {
    EXPECT_EQ(unescape_html(row[0].get<std::string>()), row[1].get<std::string>()) << row[0];
  }
}

TEST_F(OpenClipTokenizerReference, TextIsFixedAndCleanedTheSameWay) {
  for (const Json& row : rows_) {
    const auto text = row["text"].get<std::string>();
    EXPECT_EQ(fix_text(text), row["fixed"].get<std::string>()) << row["text"];
    EXPECT_EQ(clean_open_clip(text), row["clean"].get<std::string>()) << row["text"];
  }
}

TEST_F(OpenClipTokenizerReference, TokensAreTheSameFromTheEmbeddedMergesAndFromFiles) {
  const tests::TempDir empty;
  const auto embedded = OpenClipTokenizer::load(empty.path());
  const auto from_files = OpenClipTokenizer::load(root_ / "vocab", /*is_required=*/true);
  EXPECT_GE(rows_.size(), 300u);
  EXPECT_EQ(embedded.start_id(), 49406);
  EXPECT_EQ(from_files.end_id(), 49407);
  for (const Json& row : rows_) {
    const auto expected = row["tokens"].get<std::vector<int64_t>>();
    EXPECT_EQ(embedded.encode(row["text"].get<std::string>()), expected) << row["text"];
    EXPECT_EQ(from_files.encode(row["text"].get<std::string>()), expected) << row["text"];
  }
}

TEST(OpenClipTokenizer, RefusesWhatIsNoVocabulary) {
  const tests::TempDir folder;
  EXPECT_TRUE(
      mentions(error_message(ErrorClass::kInput, [&] { OpenClipTokenizer::load(folder.path(), true); }), "vocab.json"));
  std::ofstream(folder / "bpe_simple_vocab_16e6.txt.gz") << "not gzip";
  EXPECT_TRUE(mentions(error_message(ErrorClass::kInput, [&] { OpenClipTokenizer::load(folder.path()); }), "gzip"));
  EXPECT_TRUE(
      mentions(error_message(ErrorClass::kInput, [] { read_merge_list("heading\na b\nab\n", "x"); }), "line 3"));
}

TEST(OpenClipTokenizer, RefusesTextThatIsNotUtf8) {
  const tests::TempDir empty;
  const auto tokenizer = OpenClipTokenizer::load(empty.path());
  EXPECT_TRUE(mentions(error_message(ErrorClass::kInput, [&] { tokenizer.encode("ab\xFFz"); }), "byte 2"));
}

}  // namespace
}  // namespace prefusion::text
