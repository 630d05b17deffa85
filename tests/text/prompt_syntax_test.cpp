#include "text/prompt_syntax.h"

#include <gtest/gtest.h>

namespace prefusion::text {
namespace {

// Compares weights up to rounding.
void expect_pieces(const std::string& prompt, const std::vector<WeightedText>& expected) {
  SCOPED_TRACE(prompt);
  const std::vector<WeightedText> found = parse_weighted_prompt(prompt);
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].text, expected[i].text);
    EXPECT_NEAR(found[i].weight, expected[i].weight, 1e-9);
  }
}

TEST(PromptSyntax, BracketsMultiply) {
  expect_pieces("normal text", {{"normal text", 1.0}});
  expect_pieces("an (important) word", {{"an ", 1.0}, {"important", 1.1}, {" word", 1.0}});
  expect_pieces("a [minor] one", {{"a ", 1.0}, {"minor", 1 / 1.1}, {" one", 1.0}});
  expect_pieces("(unnecessary)(parens)", {{"unnecessaryparens", 1.1}});
  // The example of the webui's own documentation.
  expect_pieces("a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).", {{"a ", 1.0},
                                                                        {"house", 1.573},
                                                                        {" ", 1.1},
                                                                        {"on", 1.0},
                                                                        {" a ", 1.1},
                                                                        {"hill", 0.55},
                                                                        {", sun, ", 1.1},
                                                                        {"sky", 1.4641},
                                                                        {".", 1.1}});
}

TEST(PromptSyntax, EscapedBracketsAreText) {
  expect_pieces(R"(\(literal\])", {{"(literal]", 1.0}});
  expect_pieces(R"(a \\ b)", {{R"(a \ b)", 1.0}});
  expect_pieces(R"(a\b\)", {{"ab", 1.0}});
}

TEST(PromptSyntax, BracketsThatHaveNoPartnerHarmNothing) {
  expect_pieces("(unbalanced", {{"unbalanced", 1.1}});
  expect_pieces("[[two", {{"two", 1 / 1.21}});
  expect_pieces("late) ]text", {{"late) ]text", 1.0}});
  expect_pieces("", {{"", 1.0}});
  expect_pieces("()", {{"", 1.0}});
}

TEST(PromptSyntax, ANumberCountsOnlyWhereItClosesARoundBracket) {
  expect_pieces("(a: 0.5 )", {{"a", 0.5}});
  expect_pieces("(a:+2)", {{"a", 2.0}});
  expect_pieces("(a:-1)", {{"a", -1.0}});
  expect_pieces("ratio 2:1) it is", {{"ratio 2:1) it is", 1.0}});
  expect_pieces("[a:1.5]", {{"a:1.5", 1 / 1.1}});
  expect_pieces("(a:b)", {{"a:b", 1.1}});
  expect_pieces("(a:1.2.3)", {{"a:1.2.3", 1.1}});
  expect_pieces("(a:)", {{"a:", 1.1}});
}

}  // namespace
}  // namespace prefusion::text
