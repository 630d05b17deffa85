// The tokenizer against transformers' T5Tokenizer, live, on every folder layout, trained vocabularies and every code
// point.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/json_config.h"
#include "tests/support/python_reference.h"
#include "text/t5_tokenizer.h"

namespace prefusion::text {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<int64_t>;

const fs::path& reference() {
  static const fs::path kFolder = tests::run_reference_script("make_t5_tokenizer.py");
  return kFolder;
}

std::vector<std::string> read_texts(const char* file) {
  return read_json(reference() / file).get<std::vector<std::string>>();
}

void expect_same(const T5Tokenizer& tokenizer, const std::vector<std::string>& texts, const Json& expected) {
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

void expect_rows(const at::Tensor& found, const Json& expected) {
  ASSERT_EQ(found.size(0), static_cast<int64_t>(expected.size()));
  int shown = 0;
  for (int64_t i = 0; i < found.size(0) && shown < 5; ++i) {
    const int64_t* row = found[i].data_ptr<int64_t>();
    if (Ids(row, row + found.size(1)) == expected[static_cast<size_t>(i)].get<Ids>()) continue;
    ++shown;
    ADD_FAILURE() << "row " << i;
  }
}

TEST(T5TokenizerReference, TokenizesAsTransformersInEveryLayout) {
  const std::vector<std::string> texts = read_texts("texts.json");
  ASSERT_GE(texts.size(), 500u);
  int num_layouts = 0;
  for (const auto& entry : fs::directory_iterator(reference() / "expected")) {
    const std::string name = entry.path().stem();
    SCOPED_TRACE(name);
    const Json expected = read_json(entry.path());
    const T5Tokenizer tokenizer = T5Tokenizer::load(reference() / name);
    EXPECT_EQ(tokenizer.eos_token_id(), expected.at("eos").get<int64_t>());
    EXPECT_EQ(tokenizer.pad_token_id(), expected.at("pad").get<int64_t>());
    expect_same(tokenizer, name.starts_with("everything") ? read_texts("unicode.json") : texts, expected.at("encoded"));
    ++num_layouts;
  }
  EXPECT_GE(num_layouts, 25);
}

TEST(T5TokenizerReference, TruncatesAndPadsAsTransformers) {
  const std::vector<std::string> texts = read_texts("texts.json");
  std::vector<std::string> some;
  for (size_t i = 0; i < texts.size(); i += 3) some.push_back(texts[i]);
  for (const auto& entry : fs::directory_iterator(reference() / "expected")) {
    const std::string name = entry.path().stem();
    SCOPED_TRACE(name);
    const Json expected = read_json(entry.path());
    const T5Tokens tokens = T5Tokenizer::load(reference() / name).tokenize(some, expected.at("length").get<int64_t>());
    expect_rows(tokens.input_ids, expected.at("input_ids"));
    expect_rows(tokens.attention_mask, expected.at("attention_mask"));
  }
}

TEST(T5TokenizerReference, RefusesDamagedFoldersInOneLine) {
  int num_folders = 0;
  for (const auto& entry : fs::directory_iterator(reference() / "damaged")) {
    SCOPED_TRACE(entry.path().filename().string());
    ++num_folders;
    try {
      T5Tokenizer::load(entry.path());
      ADD_FAILURE() << "was accepted";
    } catch (const Error& error) {
      const std::string message = error.what();
      EXPECT_EQ(error.error_class(), ErrorClass::kInput) << message;
      EXPECT_EQ(message.find('\n'), std::string::npos) << message;
      EXPECT_NE(message.find(entry.path().filename().string()), std::string::npos) << message;
      EXPECT_LT(message.size(), 400u) << message;
    }
  }
  EXPECT_GE(num_folders, 15);
}

TEST(T5TokenizerReference, ContentKeyFollowsTheTokensAndNotTheLayout) {
  const auto key = [](const char* name) { return T5Tokenizer::load(reference() / name).content_key(); };
  EXPECT_EQ(key("spm_alone").size(), 32u);
  EXPECT_EQ(key("spm_legacy"), key("spm_not_legacy"));
  EXPECT_NE(key("spm_alone"), key("spm_folding"));
  EXPECT_NE(key("spm_alone"), key("spm_split_special"));
  EXPECT_NE(key("spm_config"), key("spm_left"));
  EXPECT_NE(key("json_alone"), key("json_no_normalizer"));
}

TEST(T5TokenizerReference, DecodesAndNamesWhatIsCutOff) {
  const T5Tokenizer tokenizer = T5Tokenizer::load(reference() / "spm_alone");
  const Ids tokens = tokenizer.encode("a red circle left of a blue square <extra_id_3>");
  EXPECT_EQ(tokenizer.decode(tokens), "a red circle left of a blue square<extra_id_3>");
  const auto num_tokens = static_cast<int64_t>(tokens.size());
  EXPECT_TRUE(tokenizer.cut_off(tokens, num_tokens + 1).empty());
  EXPECT_EQ(tokenizer.cut_off(tokens, num_tokens), Ids(tokens.end() - 1, tokens.end()));
  EXPECT_EQ(tokenizer.cut_off(tokens, 1), tokens);
  EXPECT_THROW(tokenizer.tokenize({"a"}, 0), Error);
  EXPECT_THROW(tokenizer.encode("a\xFF"), Error);
}

}  // namespace
}  // namespace prefusion::text
