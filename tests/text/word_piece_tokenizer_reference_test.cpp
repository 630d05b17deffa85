// The tokenizer against transformers' BertTokenizer, live, on every folder layout and every code point.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "core/json_config.h"
#include "tests/support/python_reference.h"
#include "text/word_piece_tokenizer.h"

namespace prefusion::text {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<int64_t>;

const fs::path& reference() {
  static const fs::path kFolder = tests::run_reference_script("make_word_piece.py");
  return kFolder;
}

std::vector<std::string> read_texts(const char* file) {
  return read_json(reference() / file).get<std::vector<std::string>>();
}

Json expected_of(const std::string& name) {
  return read_json(reference() / "expected" / (name + ".json"));
}

void expect_same(const WordPieceTokenizer& tokenizer, const std::vector<std::string>& texts, const Json& expected) {
  ASSERT_EQ(texts.size(), expected.size());
  int shown = 0;
  for (size_t i = 0; i < texts.size() && shown < 5; ++i) {
    const Ids wanted = expected[i].get<Ids>();
    const Ids found = tokenizer.encode(texts[i]);
    if (found == wanted) continue;
    ++shown;
    const size_t at = std::mismatch(found.begin(), found.end(), wanted.begin(), wanted.end()).first - found.begin();
    ADD_FAILURE() << "text " << i << " "
                  << Json(texts[i].substr(0, 200)).dump(-1, ' ', true, Json::error_handler_t::replace) << ": "
                  << found.size() << " tokens, expected " << wanted.size() << ", first difference at " << at;
  }
}

TEST(WordPieceTokenizerReference, TokenizesAsTransformersInEveryLayout) {
  const std::vector<std::string> texts = read_texts("texts.json");
  ASSERT_GE(texts.size(), 300u);
  int num_layouts = 0;
  for (const auto& entry : fs::directory_iterator(reference() / "expected")) {
    const std::string name = entry.path().stem();
    SCOPED_TRACE(name);
    const Json expected = expected_of(name);
    const WordPieceTokenizer tokenizer = WordPieceTokenizer::load(reference() / name);
    EXPECT_EQ(tokenizer.cls_token_id(), expected.at("cls").get<int64_t>());
    EXPECT_EQ(tokenizer.sep_token_id(), expected.at("sep").get<int64_t>());
    EXPECT_EQ(tokenizer.pad_token_id(), expected.at("pad").get<int64_t>());
    expect_same(tokenizer, texts, expected.at("encoded"));
    ++num_layouts;
  }
  EXPECT_GE(num_layouts, 15);
}

TEST(WordPieceTokenizerReference, AgreesOnAllOfUnicode) {
  const std::vector<std::string> texts = read_texts("unicode.json");
  for (const char* name : {"everything", "everything_cased"}) {
    SCOPED_TRACE(name);
    expect_same(WordPieceTokenizer::load(reference() / name), texts, expected_of(name).at("unicode"));
  }
}

TEST(WordPieceTokenizerReference, ExtraTokensGetTheIdsThatAddSpecialTokensGivesThem) {
  const std::vector<std::string> texts = {"a [DEC] b", "[ENC]", "[ENC][DEC]x"};
  const WordPieceTokenizer from_file = WordPieceTokenizer::load(reference() / "added_json");
  const WordPieceTokenizer extended = WordPieceTokenizer::load(reference() / "uncased", {"[DEC]", "[ENC]"});
  const WordPieceTokenizer twice = WordPieceTokenizer::load(reference() / "added_json", {"[DEC]", "[ENC]"});
  for (const std::string& text : texts) {
    EXPECT_EQ(extended.encode(text), from_file.encode(text));
    EXPECT_EQ(twice.encode(text), from_file.encode(text));
  }
  EXPECT_EQ(extended.num_ids(), from_file.num_ids());
  EXPECT_EQ(extended.encode("[ENC]"), Ids{extended.num_ids() - 1});
}

}  // namespace
}  // namespace prefusion::text
