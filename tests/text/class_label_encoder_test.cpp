#include "text/class_label_encoder.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/support/input_error.h"

namespace prefusion::text {
namespace {

ClassLabelEncoder encoder(const char* id2label, int64_t num_classes = 12) {
  return ClassLabelEncoder(class_labels(parse_json(id2label, "test"), "test"), num_classes, at::kFloat, at::kCPU);
}

TEST(ClassLabelEncoder, KnowsNamesAndNumbers) {
  ClassLabelEncoder labels = encoder(R"({"3": "giant panda, panda bear", "11": "crane"})");
  EXPECT_EQ(labels.class_of("giant panda"), 3);
  EXPECT_EQ(labels.class_of(" panda bear\n"), 3);
  EXPECT_EQ(labels.class_of("crane"), 11);
  EXPECT_EQ(labels.class_of("7"), 7);
  EXPECT_EQ(labels.class_of(""), 12);
  const PromptStates states = labels.encode({"crane", "", "0"});
  ASSERT_EQ(states.encoder_hidden_states.sizes(), at::IntArrayRef({3, 1, 13}));
  EXPECT_TRUE(at::equal(states.encoder_hidden_states.squeeze(1).argmax(1), at::tensor({11, 12, 0})));
  EXPECT_EQ(states.encoder_hidden_states.sum().item<double>(), 3);
  EXPECT_EQ(labels.widths().states, 13);
}

TEST(ClassLabelEncoder, TakesTheLaterOfTwoClassesOfOneName) {
  EXPECT_EQ(encoder(R"({"1": "crane, bird", "2": "crane"})").class_of("crane"), 2);
}

TEST(ClassLabelEncoder, PrefersNamesThatAreNumbers) {
  EXPECT_EQ(encoder(R"({"1": "7"})").class_of("7"), 1);
}

TEST(ClassLabelEncoder, RefusesPromptsThatNameNoClass) {
  const ClassLabelEncoder labels = encoder(R"({"3": "giant panda"})");
  for (const char* prompt : {"panda", "Giant panda", "12", "-1", "3.0", "3 4", "99999999999999999999"}) {
    const std::string message = tests::input_error_of([&] { labels.class_of(prompt); });
    EXPECT_NE(message.find(prompt), std::string::npos) << message;
    EXPECT_NE(message.find("from 0 to 11, or a label of model_index.json such as \"giant panda\""), std::string::npos)
        << message;
  }
  const std::string message = tests::input_error_of([&] { encoder("null").class_of("cat"); });
  EXPECT_EQ(message.find("label of"), std::string::npos) << message;
}

TEST(ClassLabelEncoder, RefusesLabelsOfNoClass) {
  for (const char* labels : {R"({"12": "cat"})", R"({"-1": "cat"})", R"({"one": "cat"})", R"({"1": 2})", "[1]"}) {
    EXPECT_NE(tests::input_error_of([&] { encoder(labels); }).find("id2label"), std::string::npos) << labels;
  }
}

TEST(ClassLabelEncoder, HasAKeyOfWhatItKnows) {
  const std::string key = encoder(R"({"1": "cat"})").content_key();
  EXPECT_EQ(key, encoder(R"({"1": "cat"})").content_key());
  EXPECT_NE(key, encoder(R"({"2": "cat"})").content_key());
  EXPECT_NE(key, encoder(R"({"1": "cat"})", 13).content_key());
}

}  // namespace
}  // namespace prefusion::text
