// The tokenizer against transformers' CLIPTokenizer, live, on every folder layout and every code point.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "core/json_config.h"
#include "tests/support/python_reference.h"
#include "text/clip_tokenizer.h"

namespace prefusion::text {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<int64_t>;

const fs::path& reference() {
  static const fs::path kFolder = tests::run_reference_script("make_tokenizer.py");
  return kFolder;
}

std::vector<std::string> read_prompts(const char* file) {
  return read_json(reference() / file).get<std::vector<std::string>>();
}

std::vector<std::string> folder_names() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(reference() / "expected")) names.push_back(entry.path().stem());
  std::sort(names.begin(), names.end());
  return names;
}

// Compares prompt by prompt and shows the first few that differ.
void expect_same(const std::vector<std::string>& prompts, const Json& expected,
                 const std::function<Ids(const std::string&)>& tokenize) {
  ASSERT_EQ(prompts.size(), expected.size());
  int shown = 0;
  for (size_t i = 0; i < prompts.size() && shown < 5; ++i) {
    const Ids wanted = expected[i].get<Ids>();
    const Ids found = tokenize(prompts[i]);
    if (found == wanted) continue;
    ++shown;
    const size_t at = std::mismatch(found.begin(), found.end(), wanted.begin(), wanted.end()).first - found.begin();
    ADD_FAILURE() << "prompt " << i << " "
                  << Json(prompts[i].substr(0, 200)).dump(-1, ' ', true, Json::error_handler_t::replace) << ": "
                  << found.size() << " tokens, expected " << wanted.size() << ", first difference at " << at;
  }
}

TEST(ClipTokenizerReference, TokenizesAsTransformersInEveryLayout) {
  const std::vector<std::string> prompts = read_prompts("prompts.json");
  ASSERT_GE(prompts.size(), 500u);
  const std::vector<std::string> names = folder_names();
  ASSERT_GE(names.size(), 20u);
  for (const std::string& name : names) {
    SCOPED_TRACE(name);
    const Json expected = read_json(reference() / "expected" / (name + ".json"));
    const ClipTokenizer tokenizer = ClipTokenizer::load(reference() / name);
    EXPECT_EQ(tokenizer.model_max_length(), expected.at("max_length").get<int64_t>());
    EXPECT_EQ(tokenizer.bos_token_id(), expected.at("bos").get<int64_t>());
    EXPECT_EQ(tokenizer.eos_token_id(), expected.at("eos").get<int64_t>());
    EXPECT_EQ(tokenizer.pad_token_id(), expected.at("pad").get<int64_t>());
    expect_same(prompts, expected.at("encoded"), [&](const std::string& prompt) { return tokenizer.encode(prompt); });
    expect_same(prompts, expected.at("tokenized"),
                [&](const std::string& prompt) { return tokenizer.tokenize(prompt); });
  }
}

TEST(ClipTokenizerReference, AgreesOnAllOfUnicode) {
  const std::vector<std::string> prompts = read_prompts("unicode.json");
  for (const char* name : {"old_sd15", "fast_alone"}) {
    SCOPED_TRACE(name);
    const Json expected = read_json(reference() / "expected" / (std::string(name) + ".json"));
    const ClipTokenizer tokenizer = ClipTokenizer::load(reference() / name);
    expect_same(prompts, expected.at("unicode"), [&](const std::string& prompt) { return tokenizer.encode(prompt); });
  }
}

TEST(ClipTokenizerReference, BatchStacksThePrompts) {
  const ClipTokenizer tokenizer = ClipTokenizer::load(reference() / "old_left");
  const at::Tensor batch = tokenizer.tokenize_batch({"a red circle", ""});
  ASSERT_EQ(batch.sizes(), (std::vector<int64_t>{2, 30}));
  EXPECT_EQ(batch.scalar_type(), at::kLong);
  const Ids second = tokenizer.tokenize("");
  EXPECT_EQ(Ids(batch.data_ptr<int64_t>() + 30, batch.data_ptr<int64_t>() + 60), second);
  const at::Tensor mask = tokenizer.attention_mask_batch({"a red circle", ""});
  EXPECT_EQ(mask[1].sum().item<int64_t>(), 2);
  EXPECT_EQ(mask[1][29].item<int64_t>(), 1);
  EXPECT_EQ(mask[1][27].item<int64_t>(), 0);
}

TEST(ClipTokenizerReference, DecodesWhatWasCutOff) {
  const ClipTokenizer tokenizer = ClipTokenizer::load(reference() / "fast_short");
  const Ids tokens = tokenizer.encode("x x x x x x x a red circle, caf\xC3\xA9");
  EXPECT_EQ(tokenizer.decode(tokenizer.cut_off(tokens)), "a red circle , caf\xC3\xA9");
  EXPECT_TRUE(tokenizer.cut_off(tokenizer.encode("x x x x x x x")).empty());
}

TEST(ClipTokenizerReference, ContentKeyFollowsWhatChangesTokens) {
  const auto key = [&](const char* name) { return ClipTokenizer::load(reference() / name).content_key(); };
  EXPECT_EQ(key("old_sd15"), key("old_sd15"));
  EXPECT_EQ(key("old_sd15"), key("old_no_limit"));
  EXPECT_NE(key("old_sd15"), key("old_short"));
  EXPECT_NE(key("old_sd15"), key("old_pad_bang"));
  EXPECT_NE(key("fast_alone"), key("fast_added"));
}

}  // namespace
}  // namespace prefusion::text
