#include "text/t5_tokenizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "core/error.h"
#include "text/base64.h"
#include "text/graphemes.h"
#include "text/precompiled_charsmap.h"
#include "text/sentence_piece_file.h"
#include "text/unigram_model.h"

namespace prefusion::text {
namespace {

using Ids = std::vector<int64_t>;
using Pieces = std::vector<std::pair<std::string, double>>;

// A field of a Protocol Buffers message that holds bytes.
std::string bytes_field(int number, const std::string& bytes) {
  return std::string{static_cast<char>(number << 3 | 2), static_cast<char>(bytes.size())} + bytes;
}

std::string piece_field(const std::string& text, float score, int type) {
  std::string message = bytes_field(1, text) + std::string{static_cast<char>(2 << 3 | 5)};
  message.append(reinterpret_cast<const char*>(&score), sizeof score);
  return bytes_field(1, message + std::string{static_cast<char>(3 << 3), static_cast<char>(type)});
}

std::string small_model() {
  return piece_field("<pad>", 0, 3) + piece_field("</s>", 0, 3) + piece_field("<unk>", 0, 2) +
         piece_field("\u2581ab", -1.5f, 1) + bytes_field(2, {3 << 3, 1}) + bytes_field(3, bytes_field(2, "map"));
}

UnigramModel model_of(Pieces pieces) {
  pieces.insert(pieces.begin(), {{"<pad>", 0}, {"</s>", 0}, {"<unk>", 0}});
  return UnigramModel(pieces, 2, "test");
}

Ids encode(const UnigramModel& model, const std::string& word) {
  Ids tokens;
  model.encode_word(word, tokens);
  return tokens;
}

// The charsmap "a" -> "xyz", "b" -> "": two entries below the root of a double array.
std::string small_charsmap() {
  std::vector<uint32_t> units(256, 0);
  units[0] = 1u << 10;                      // the root's children are at 1 ^ byte
  const uint32_t a = 1 ^ 'a', b = 1 ^ 'b';  // 0x60, 0x63
  units[a] = 'a' | 1u << 8 | (a ^ 2) << 10;
  units[2] = 0x80000000u | 0;  // the value of "a": where its replacement starts
  units[b] = 'b' | 1u << 8 | (b ^ 3) << 10;
  units[3] = 0x80000000u | 3;  // an empty one
  const std::string replacements("xyz\0", 4);
  const uint32_t size = static_cast<uint32_t>(units.size() * sizeof(uint32_t));
  std::string bytes(reinterpret_cast<const char*>(&size), sizeof size);
  bytes.append(reinterpret_cast<const char*>(units.data()), size);
  return bytes + replacements;
}

TEST(SentencePieceFile, ReadsPiecesTypesAndCharsmap) {
  const SentencePieceFile file = parse_sentence_piece_file(small_model(), "test");
  ASSERT_EQ(file.pieces.size(), 4u);
  EXPECT_EQ(file.pieces[2].type, SentencePiece::Type::kUnknown);
  EXPECT_EQ(file.pieces[3].text, "\u2581ab");
  EXPECT_EQ(file.pieces[3].score, -1.5f);
  EXPECT_EQ(file.model_type, SentencePieceFile::ModelType::kUnigram);
  EXPECT_EQ(file.precompiled_charsmap, "map");
}

TEST(SentencePieceFile, RefusesEveryCut) {
  const std::string model = small_model();
  for (size_t length = 0; length < model.size(); ++length) {
    EXPECT_THROW(parse_sentence_piece_file(model.substr(0, length), "test"), Error) << length;
  }
}

TEST(SentencePieceFile, RandomBytesEndInAnErrorAtWorst) {
  std::mt19937 random(3);
  for (int round = 0; round < 3000; ++round) {
    std::string bytes = small_model();
    for (int i = 0; i < 3; ++i) bytes[random() % bytes.size()] = static_cast<char>(random());
    try {
      parse_sentence_piece_file(bytes, "test");
    } catch (const Error& error) {
      EXPECT_EQ(error.error_class(), ErrorClass::kInput);
    }
  }
}

TEST(UnigramModel, TakesThePiecesWithTheHighestSum) {
  const UnigramModel model = model_of({{"a", -1}, {"b", -1}, {"c", -2.5}, {"ab", -1.5}, {"abc", -5}, {"bc", -1.9}});
  EXPECT_EQ(encode(model, "ab"), (Ids{6}));      // -1.5 against -2
  EXPECT_EQ(encode(model, "abc"), (Ids{3, 8}));  // -2.9 against -4 and -5
  EXPECT_EQ(encode(model, "abab"), (Ids{6, 6}));
  EXPECT_EQ(encode(model, ""), Ids{});
}

TEST(UnigramModel, ARunOfUnknownCharactersIsOneToken) {
  const UnigramModel model = model_of({{"a", -1}, {"\u00e9", -1}});
  EXPECT_EQ(encode(model, "axyza"), (Ids{3, 2, 3}));
  EXPECT_EQ(encode(model, "\u7ea2\u8272"), (Ids{2}));
  EXPECT_EQ(encode(model, "\u00e9\u00e8\u00e9"), (Ids{4, 2, 4}));  // never cut inside a character
}

TEST(UnigramModel, RefusesVocabulariesWithoutAnUnknownToken) {
  EXPECT_THROW(UnigramModel({{"a", 0}, {"b", 0}}, 2, "test"), Error);
  EXPECT_THROW(UnigramModel({{"a", 0}, {"b", NAN}, {"c", 0}}, 2, "test"), Error);
}

TEST(PrecompiledCharsmap, ReplacesAndDropsCharacters) {
  const PrecompiledCharsmap charsmap(small_charsmap(), "test");
  EXPECT_EQ(charsmap.normalize("cab"), "cxyz");
  EXPECT_EQ(charsmap.normalize(""), "");
  EXPECT_EQ(charsmap.normalize("a\u0301c"), "xyzc");  // a cluster of up to five bytes as a whole
  EXPECT_EQ(charsmap.normalize("a\u0301\u0302\u0303"), "xyz\u0301\u0302\u0303");  // a longer one by characters
  EXPECT_EQ(PrecompiledCharsmap().normalize("ab"), "ab");
}

TEST(PrecompiledCharsmap, RefusesWrongSizesAndSurvivesDamage) {
  const std::string bytes = small_charsmap();
  for (const size_t length : {1, 4, 5, 100, 1027})
    EXPECT_THROW(PrecompiledCharsmap(bytes.substr(0, length), "x"), Error);
  std::mt19937 random(3);
  for (int round = 0; round < 3000; ++round) {
    std::string damaged = bytes;
    for (int i = 0; i < 40; ++i) damaged[4 + random() % (damaged.size() - 4)] = static_cast<char>(random());
    try {
      PrecompiledCharsmap(damaged, "x").normalize("abc \u00e9\u7ea2\U0001f600 aabb");
    } catch (const Error& error) {
      EXPECT_EQ(error.error_class(), ErrorClass::kInput);
    }
  }
}

TEST(Graphemes, EndWhereTheRulesSayIt) {
  const auto first = [](std::string_view text) { return std::string(text.substr(0, grapheme_end(text, 0))); };
  EXPECT_EQ(first("ab"), "a");
  EXPECT_EQ(first("\r\nx"), "\r\n");
  EXPECT_EQ(first("\n\u0301"), "\n");
  EXPECT_EQ(first("e\u0301\u0302x"), "e\u0301\u0302");
  EXPECT_EQ(first("\u1100\u1161\u11a8x"), "\u1100\u1161\u11a8");
  EXPECT_EQ(first("\U0001f468\u200d\U0001f469x"), "\U0001f468\u200d\U0001f469");
  EXPECT_EQ(first("a\u200d\U0001f469"), "a\u200d");
  EXPECT_EQ(first("\U0001f1e9\U0001f1ea\U0001f1eb"), "\U0001f1e9\U0001f1ea");
  EXPECT_EQ(first("\u0600"
                  "1"),
            "\u0600"
            "1");
}

TEST(Base64, IsThatOfRfc4648) {
  const std::vector<std::pair<std::string, std::string>> vectors = {
      {"", ""}, {"Zg==", "f"}, {"Zm8=", "fo"}, {"Zm9v", "foo"}, {"Zm9vYmFy", "foobar"}, {"+/8=", "\xFB\xFF"}};
  for (const auto& [text, bytes] : vectors) EXPECT_EQ(decode_base64(text, "x"), bytes);
  for (const char* text : {"Zg", "Zg=", "Z===", "Zm9\n", "Zg==Zg=="}) EXPECT_THROW(decode_base64(text, "x"), Error);
}

TEST(T5Tokenizer, CutsWordsAtWhiteSpaceAndMarksTheirStart) {
  T5TokenizerFiles files;
  files.where = "test";
  files.pieces = {{"<pad>", 0}, {"</s>", 0}, {"<unk>", 0}, {"\u2581", -1}, {"a", -1}, {"\u2581b", -1}};
  files.added_tokens = {{.content = "</s>", .normalized = false, .special = true}};
  const T5Tokenizer tokenizer(files);
  EXPECT_EQ(tokenizer.encode(" a  b\u3000"), (Ids{3, 4, 5}));
  EXPECT_EQ(tokenizer.encode("a\u2581b"), (Ids{3, 4, 5}));
  EXPECT_EQ(tokenizer.encode("a</s>a"), (Ids{3, 4, 1, 3, 4}));
  EXPECT_EQ(tokenizer.encode(""), Ids{});
  EXPECT_EQ(tokenizer.num_ids(), 6);
}

}  // namespace
}  // namespace prefusion::text
