// Tokenizer folders that are broken or not CLIP's, bad prompts, and the writer of word vocabularies.
#include "text/clip_tokenizer.h"

#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/json_config.h"
#include "tests/support/temp_dir.h"
#include "text/clip_pre_tokenizer.h"
#include "text/word_tokenizer.h"

namespace prefusion::text {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<int64_t>;

void write(const fs::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

// A sound folder to damage.
class ClipTokenizerFolder : public testing::Test {
 protected:
  ClipTokenizerFolder() { write_word_tokenizer(folder_.path(), {"red", "circle", "a"}, 12); }

  // Loading fails with an input error that mentions `part`.
  void expect_refused(const std::string& part) {
    try {
      ClipTokenizer::load(folder_.path());
      ADD_FAILURE() << "loaded; expected an error about " << part;
    } catch (const Error& error) {
      EXPECT_EQ(error.error_class(), ErrorClass::kInput);
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    }
  }
  void edit(const char* file, const std::function<void(Json&)>& change) {
    Json json = read_json(folder_ / file);
    change(json);
    write(folder_ / file, json.dump());
  }
  // A minimal tokenizer.json over the folder's own vocabulary.
  Json tokenizer_json() {
    return {{"version", "1.0"},
            {"added_tokens", Json::array()},
            {"normalizer", {{"type", "NFC"}}},
            {"model", {{"type", "BPE"}, {"vocab", read_json(folder_ / "vocab.json")}, {"merges", Json::array()}}}};
  }
  void use_tokenizer_json(const std::function<void(Json&)>& change) {
    Json json = tokenizer_json();
    change(json);
    write(folder_ / "tokenizer.json", json.dump());
  }

  tests::TempDir folder_;
};

TEST_F(ClipTokenizerFolder, MissingFilesAreNamed) {
  fs::remove(folder_ / "merges.txt");
  expect_refused("merges.txt");
  EXPECT_THROW(ClipTokenizer::load(folder_ / "none"), Error);
}

TEST_F(ClipTokenizerFolder, MergeLineWithoutTwoPartsIsNamedByLine) {
  write(folder_ / "merges.txt", "#version: 0.2\nr e\nlonely\n");
  expect_refused("merges.txt line 3");
  write(folder_ / "merges.txt", "r e d\n");
  expect_refused("line 1");
}

TEST_F(ClipTokenizerFolder, MergeOfUnknownTokensIsRefused) {
  write(folder_ / "merges.txt", "zq zq\n");
  expect_refused("'zq'");
  write(folder_ / "merges.txt", "z q\n");
  expect_refused("'zq', which is not in the vocabulary");
}

TEST_F(ClipTokenizerFolder, BrokenVocabulariesAreRefused) {
  const std::string sound = read_json(folder_ / "vocab.json").dump();
  for (const std::string& text :
       std::vector<std::string>{"", "{", "3", "{}", "[]", R"({"a": "b"})", R"({"a": 1.5})", R"({"a": -1})",
                                R"({"a": 1, "b": 1})", R"({"a": 99999999999})", "\xFF", sound.substr(0, 200)}) {
    write(folder_ / "vocab.json", text);
    SCOPED_TRACE(text.substr(0, 40));
    EXPECT_THROW(ClipTokenizer::load(folder_.path()), Error);
  }
}

TEST_F(ClipTokenizerFolder, ConfigValuesThatCannotBeMeantAreRefused) {
  const auto with = [&](const char* key, const Json& value) {
    write_word_tokenizer(folder_.path(), {"red"}, 12);
    edit("tokenizer_config.json", [&](Json& json) { json[key] = value; });
  };
  with("tokenizer_class", "T5Tokenizer");
  expect_refused("T5Tokenizer");
  with("padding_side", "up");
  expect_refused("padding_side");
  with("model_max_length", 1);
  expect_refused("model_max_length");
  with("model_max_length", "long");
  expect_refused("model_max_length");
  with("added_tokens_decoder", Json{{"x", {{"content", "y"}}}});
  expect_refused("'x'");
  with("added_tokens_decoder", Json{{"7", "text"}});
  expect_refused("7");
  with("added_tokens_decoder", Json{{"7", {{"lstrip", true}}}});
  expect_refused("content");
  with("sep_token", 5);
  expect_refused("sep_token");
}

TEST_F(ClipTokenizerFolder, SpecialTokensOfOddTypesAreRefused) {
  edit("special_tokens_map.json", [](Json& json) { json["pad_token"] = 3; });
  expect_refused("pad_token");
  write(folder_ / "special_tokens_map.json", "[1]");
  expect_refused("special_tokens_map.json");
  write(folder_ / "special_tokens_map.json", "{}");
  write(folder_ / "added_tokens.json", R"({"x": "y"})");
  expect_refused("added_tokens.json");
}

TEST_F(ClipTokenizerFolder, TokenizerJsonThatIsNotClipsIsRefusedByName) {
  use_tokenizer_json([](Json&) {});
  EXPECT_NO_THROW(ClipTokenizer::load(folder_.path()));
  use_tokenizer_json([](Json& json) { json["model"]["type"] = "Unigram"; });
  expect_refused("Unigram");
  use_tokenizer_json([](Json& json) { json["model"]["end_of_word_suffix"] = "@@"; });
  expect_refused("end_of_word_suffix");
  use_tokenizer_json([](Json& json) { json["model"]["byte_fallback"] = true; });
  expect_refused("byte_fallback");
  use_tokenizer_json([](Json& json) { json["normalizer"] = {{"type", "BertNormalizer"}}; });
  expect_refused("BertNormalizer");
  use_tokenizer_json([](Json& json) { json["pre_tokenizer"] = {{"type", "Metaspace"}}; });
  expect_refused("Metaspace");
  use_tokenizer_json([](Json& json) { json["model"]["merges"] = {{"a", "b", "c"}}; });
  expect_refused("merge 1");
  use_tokenizer_json([](Json& json) { json["added_tokens"] = {{{"content", "x"}}}; });
  expect_refused("has no id");
  use_tokenizer_json([](Json& json) { json.erase("model"); });
  expect_refused("'model'");
  use_tokenizer_json([](Json& json) { json["surprise"] = 1; });
  expect_refused("surprise");
  use_tokenizer_json([](Json& json) { json["normalizer"] = {{"type", 3}}; });
  expect_refused("tokenizer.json");
  write(folder_ / "tokenizer.json", "{\"model\": ");
  expect_refused("tokenizer.json");
}

TEST_F(ClipTokenizerFolder, UnknownSymbolsWithoutUnknownTokenAreAnError) {
  edit("vocab.json", [](Json& json) { json.erase("q</w>"); });
  edit("special_tokens_map.json", [](Json& json) { json["unk_token"] = ""; });
  edit("tokenizer_config.json", [](Json& json) { json["unk_token"] = ""; });
  const ClipTokenizer tokenizer = ClipTokenizer::load(folder_.path());
  EXPECT_NO_THROW(tokenizer.encode("red"));
  EXPECT_THROW(tokenizer.encode("q"), Error);
}

TEST_F(ClipTokenizerFolder, PromptThatIsNotUtf8IsRefusedWithTheOffset) {
  const ClipTokenizer tokenizer = ClipTokenizer::load(folder_.path());
  const auto offset_in_error = [&](const std::string& prompt) -> std::string {
    try {
      tokenizer.tokenize(prompt);
      return "none";
    } catch (const Error& error) {
      EXPECT_EQ(error.error_class(), ErrorClass::kInput);
      const std::string text = error.what();
      return text.substr(text.find("byte "), text.find(" does") - text.find("byte "));
    }
  };
  EXPECT_EQ(offset_in_error("ok\xFF"), "byte 2");
  EXPECT_EQ(offset_in_error("\xC3"), "byte 0");
  EXPECT_EQ(offset_in_error("\xC3\xA9 \xE2\x82"), "byte 3");
  EXPECT_EQ(offset_in_error("a\xED\xA0\x80"), "byte 1");     // a surrogate
  EXPECT_EQ(offset_in_error("\xC0\x80"), "byte 0");          // an overlong form
  EXPECT_EQ(offset_in_error("\xF4\x90\x80\x80"), "byte 0");  // above U+10FFFF
  EXPECT_EQ(offset_in_error("\xF0\x9F\x98\x80"), "none");
}

TEST_F(ClipTokenizerFolder, RandomDamageEndsInAnErrorOrATokenizer) {
  use_tokenizer_json([](Json& json) {
    json["added_tokens"] = {
        {{"id", 600}, {"content", "<x>"}, {"special", true}, {"normalized", false}, {"lstrip", true}}};
    json["model"]["merges"] = {"r e", "re d</w>"};
  });
  write(folder_ / "added_tokens.json", R"({"<y>": 601})");
  std::mt19937 random(5);
  int num_refused = 0;
  for (const char* file : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
                           "vocab.json", "merges.txt"}) {
    std::ifstream stream(folder_ / file, std::ios::binary);
    const std::string sound{std::istreambuf_iterator<char>(stream), {}};
    // The old layout counts only without the new one.
    if (std::string(file) == "vocab.json") fs::remove(folder_ / "tokenizer.json");
    for (int round = 0; round < 60; ++round) {
      std::string damaged = sound;
      for (int i = 0; i < 3; ++i) damaged[random() % damaged.size()] = static_cast<char>(random());
      if (round % 4 == 0) damaged.resize(random() % damaged.size());
      write(folder_ / file, damaged);
      try {
        ClipTokenizer::load(folder_.path()).tokenize("a red circle <x> q");
      } catch (const Error&) {
        ++num_refused;
      }
    }
    write(folder_ / file, sound);
  }
  EXPECT_GT(num_refused, 100);
}

TEST(WordTokenizer, MakesEachWordOneToken) {
  const std::vector<std::string> words = {"red",          "ed", "redder", "circle",      "circles",
                                          "aaaa",         "aa", "abcab",  "bcabcab",     "cab",
                                          "sch\xC3\xB6n", ",",  "...",    "\xE7\xBA\xA2"};
  tests::TempDir folder;
  write_word_tokenizer(folder.path(), words, 9);
  const ClipTokenizer tokenizer = ClipTokenizer::load(folder.path());
  for (const std::string& word : words) EXPECT_EQ(tokenizer.encode(word).size(), 1u) << word;
  EXPECT_EQ(tokenizer.encode("A red CIRCLE, redder...").size(), 1u + 1 + 1 + 1 + 1 + 1);
  EXPECT_EQ(tokenizer.model_max_length(), 9);
  EXPECT_EQ(tokenizer.pad_token_id(), tokenizer.eos_token_id());
  EXPECT_EQ(tokenizer.eos_token_id(), tokenizer.bos_token_id() + 1);
  EXPECT_EQ(tokenizer.num_ids(), tokenizer.eos_token_id() + 1);
  EXPECT_EQ(tokenizer.encode("\x01\xF0\x9F\x98\x80").size(), 5u);
  EXPECT_EQ(tokenizer.encode("!"), (Ids{256}));  // CLIP's own id of "!</w>"
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("red circles")), "red circles");
}

TEST(WordTokenizer, RefusesWordsThatAreNotWhole) {
  tests::TempDir folder;
  for (const char* word : {"", "Red", "two words", "it's", "a1", "12", "\xFF", "cafe\xCC\x81"}) {
    EXPECT_THROW(write_word_tokenizer(folder.path(), {word}, 77), Error) << word;
  }
  EXPECT_THROW(write_word_tokenizer(folder.path(), {"red"}, 1), Error);
}

TEST(ClipPreTokenizer, SplitsByClass) {
  const auto split = [](const std::string& text) {
    const std::string normalized = normalize_clip(text);
    std::string joined;
    for (const std::string_view word : split_clip_words(normalized)) joined += std::string(word) + " ";
    return joined;
  };
  EXPECT_EQ(split("It's 42!"), "it 's 4 2 ! ");
  EXPECT_EQ(split("A\t\n B"), "a b ");
  EXPECT_EQ(split("<|ENDOFTEXT|>!!"), "<| endoftext |> !! ");
  EXPECT_EQ(split("x!<|endoftext|>!"), "x !<| endoftext |>! ");
}

}  // namespace
}  // namespace prefusion::text
