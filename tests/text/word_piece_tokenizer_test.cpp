#include "text/word_piece_tokenizer.h"

#include <gtest/gtest.h>

#include "core/atomic_file.h"
#include "tests/core/expect_error.h"
#include "tests/support/temp_dir.h"

namespace prefusion::text {
namespace {

using tests::error_message;
using tests::mentions;
using tests::TempDir;

std::vector<int64_t> ids(const WordPieceTokenizer& tokenizer, std::string_view text) {
  return tokenizer.encode(text);
}

class WordPieceTokenizerTest : public testing::Test {
 protected:
  void SetUp() override { write("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nun\n##aff\n##able\n##a\n,\n"); }
  void write(const std::string& name, const std::string& text) { write_file(dir_ / name, text); }
  std::string failure() {
    return error_message(ErrorClass::kInput, [&] { WordPieceTokenizer::load(dir_.path()); });
  }
  TempDir dir_;
};

TEST_F(WordPieceTokenizerTest, TakesTheLongestPiecesAndGivesUpOnAWholeWord) {
  const WordPieceTokenizer tokenizer = WordPieceTokenizer::load(dir_.path());
  EXPECT_EQ(ids(tokenizer, "UNAFFABLE, una"), (std::vector<int64_t>{5, 6, 7, 9, 5, 8}));
  EXPECT_EQ(ids(tokenizer, "unaffx una"), (std::vector<int64_t>{1, 5, 8}));
  EXPECT_EQ(ids(tokenizer, ""), std::vector<int64_t>{});
}

TEST_F(WordPieceTokenizerTest, NamesTheByteThatIsNoUtf8) {
  const WordPieceTokenizer tokenizer = WordPieceTokenizer::load(dir_.path());
  EXPECT_TRUE(mentions(error_message(ErrorClass::kInput, [&] { tokenizer.encode("ab\xFF"); }), "byte 2"));
}

TEST_F(WordPieceTokenizerTest, RefusesFoldersWithoutATokenizer) {
  EXPECT_TRUE(mentions(error_message(ErrorClass::kInput, [] { WordPieceTokenizer::load("/no/such/folder"); }),
                       "/no/such/folder"));
  std::filesystem::remove(dir_ / "vocab.txt");
  EXPECT_TRUE(mentions(failure(), "vocab.txt"));
  write("vocab.txt", "");
  EXPECT_TRUE(mentions(failure(), "empty"));
  write("vocab.txt", "a\nb\n");
  EXPECT_TRUE(mentions(failure(), "[UNK]"));
}

TEST_F(WordPieceTokenizerTest, RefusesSettingsThatAreNotBerts) {
  for (const char* config :
       {R"({"tokenizer_class": "CLIPTokenizer"})", R"({"padding_side": "left"})", R"({"do_basic_tokenize": false})",
        R"({"never_split": ["x"]})", R"({"do_lower_case": 1})"}) {
    SCOPED_TRACE(config);
    write("tokenizer_config.json", config);
    EXPECT_TRUE(mentions(failure(), "tokenizer_config.json"));
  }
}

TEST_F(WordPieceTokenizerTest, RefusesTokenizerFilesThatAreNotBerts) {
  const std::string model =
      R"("model": {"type": "WordPiece", "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3})";
  write("tokenizer.json", "{" + model + "}}");
  EXPECT_EQ(WordPieceTokenizer::load(dir_.path()).sep_token_id(), 2);
  for (const std::string& json :
       {"{" + model + R"(, "continuing_subword_prefix": "@@"}})", "{" + model + R"(, "max_input_chars_per_word": 50}})",
        "{" + model + R"(}, "normalizer": {"type": "NFC"}})", "{" + model + R"(}, "normalizer": {"lowercase": false}})",
        "{" + model + R"(}, "pre_tokenizer": {"type": "Whitespace"}})", "{" + model + R"(}, "novelty": 1})",
        std::string(R"({"model": {"type": "BPE", "vocab": {"a": 0}}})"),
        std::string(R"({"model": {"type": "WordPiece"}})"), std::string("{}"), std::string("[1]"),
        std::string(R"({"pre_tokenizer": 3, "model": {}})")}) {
    SCOPED_TRACE(json);
    write("tokenizer.json", json);
    failure();
  }
}

}  // namespace
}  // namespace prefusion::text
