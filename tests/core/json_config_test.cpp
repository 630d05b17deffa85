#include "core/json_config.h"

#include <gtest/gtest.h>

#include "core/atomic_file.h"
#include "tests/core/expect_error.h"
#include "tests/support/temp_dir.h"

namespace prefusion {
namespace {

using tests::error_message;
using tests::mentions;

ConfigReader reader(const char* text) {
  return ConfigReader(parse_json(text, "config.json"), "config.json");
}

template <typename Call>
std::string input_error(Call call) {
  return error_message(ErrorClass::kInput, call);
}

TEST(ConfigReader, NamesEveryKeyThatNobodyRead) {
  ConfigReader config = reader(R"({"a": 1, "b": 2, "new_flag": true, "other": [1], "_class_name": "X", "none": null})");
  config.get<int64_t>("a", 0);
  config.ignore({"b"});
  const std::string message = input_error([&] { config.finish(); });
  EXPECT_TRUE(mentions(message, "config.json"));
  EXPECT_TRUE(mentions(message, "'new_flag', 'other'"));
  for (const char* read : {"'a'", "'b'", "_class_name", "'none'"}) EXPECT_FALSE(mentions(message, read));
  config.ignore({"new_flag", "other"});
  EXPECT_NO_THROW(config.finish());
}

TEST(ConfigReader, GivesFallbacksForAbsentAndNullKeys) {
  ConfigReader config = reader(R"({"null": null, "x": 2.5})");
  EXPECT_EQ(config.get<double>("absent", 1.5), 1.5);
  EXPECT_EQ(config.get<std::string>("null", "d"), "d");
  EXPECT_EQ(config.get<double>("x", 0), 2.5);
  EXPECT_EQ(config.optional<double>("null"), std::nullopt);
  EXPECT_FALSE(config.has("null"));
  EXPECT_TRUE(config.raw("absent").is_null());
  EXPECT_TRUE(mentions(input_error([&] { config.require<double>("absent"); }), "missing key 'absent'"));
}

TEST(ConfigReader, RefusesValuesOfAnotherType) {
  ConfigReader config =
      reader(R"({"s": "x", "f": 1.5, "b": true, "i": 3, "whole": 4.0, "big": 5000000000, "l": [1, 2.5]})");
  EXPECT_TRUE(mentions(input_error([&] { config.get<int64_t>("s", 0); }), "'s'"));
  input_error([&] { config.get<int64_t>("f", 0); });  // would be cut to 1
  input_error([&] { config.get<int64_t>("b", 0); });
  input_error([&] { config.get<double>("b", 0); });
  input_error([&] { config.get<bool>("i", false); });
  input_error([&] { config.get<int32_t>("big", 0); });
  input_error([&] { config.get<std::string>("i", ""); });
  input_error([&] { config.get<std::vector<int64_t>>("l", {}); });
  input_error([&] { config.get<std::vector<int64_t>>("i", {}); });
  EXPECT_EQ(config.get<double>("i", 0), 3.0);
  EXPECT_EQ(config.get<int64_t>("whole", 0), 4);
  EXPECT_EQ(config.get<std::vector<double>>("l", {}), (std::vector<double>{1, 2.5}));
}

TEST(ConfigReader, TakesANumberOrAList) {
  ConfigReader config = reader(R"({"n": 8, "l": [5, 10, 20], "f": 1.5, "bad": [1, true, 2]})");
  EXPECT_EQ(config.int_or_list("n", 3, 1), (std::vector<int64_t>{8, 8, 8}));
  EXPECT_EQ(config.int_or_list("l", 3, 1), (std::vector<int64_t>{5, 10, 20}));
  EXPECT_EQ(config.int_or_list("absent", 2, 7), (std::vector<int64_t>{7, 7}));
  EXPECT_TRUE(mentions(input_error([&] { config.int_or_list("l", 4, 1); }), "3 entries, expected 4"));
  input_error([&] { config.int_or_list("f", 2, 1); });
  input_error([&] { config.int_or_list("bad", 3, 1); });
}

TEST(ConfigReader, RefusesUnsupportedValuesByName) {
  ConfigReader config = reader(R"({"dual": true, "act": "gelu", "n": 1.0})");
  EXPECT_TRUE(mentions(input_error([&] { config.only("dual", false); }), "'dual' = true is not supported"));
  EXPECT_TRUE(mentions(input_error([&] { config.only("act", "silu"); }), "'act' = \"gelu\""));
  EXPECT_NO_THROW(config.only("n", 1));
  EXPECT_NO_THROW(config.only("absent", 1));
  EXPECT_NO_THROW(config.finish());
}

TEST(ReadJson, NamesFileAndTroubleOfBrokenFiles) {
  const tests::TempDir folder;
  EXPECT_TRUE(mentions(input_error([&] { read_json(folder / "none.json"); }), "none.json"));
  write_file(folder / "bad.json", "{\"a\": [1, }");
  EXPECT_TRUE(mentions(input_error([&] { read_json(folder / "bad.json"); }), "bad.json: not valid JSON"));
  write_file(folder / "list.json", "[1]");
  EXPECT_TRUE(mentions(input_error([&] { ConfigReader::from_file(folder / "list.json"); }), "expected a JSON object"));
  for (const char* text : {"", "\xff\xfe", "nul", "{\"a\":1}x", "\"\\ud800\""}) {
    input_error([&] { parse_json(text, "text"); });
  }
}

TEST(ReadJson, RefusesNestingThatWouldOverflowTheStack) {
  const std::string deep = std::string(200000, '[') + std::string(200000, ']');
  EXPECT_TRUE(mentions(input_error([&] { parse_json(deep, "text"); }), "nests deeper"));
  EXPECT_NO_THROW(parse_json("[\"" + std::string(1000, '[') + "\\\"[\", [[1]]]", "text"));
}

}  // namespace
}  // namespace prefusion
