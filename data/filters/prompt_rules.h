#pragma once

#include <string>
#include <vector>

#include "data/filters/rule.h"

// Rules on prompts and on further columns.
namespace prefusion::data::filters {

// Share of the prompt's quality that can be seen without a language model, in [0, 1]: the product of
//   length   words / 5 up to 1, and 60 / words above 60 words, where text encoders cut off
//   letters  share of characters that are letters, digits, blanks or , . ' - (all above ASCII count as letters)
//   variety  distinct words / words, in lower case
// An empty prompt has 0.
double text_quality(const std::string& prompt);

// Prompts in which the expression (PCRE2, UTF-8, anywhere) occurs stay, or leave. Usage error for a broken expression.
Rule include_rule(const std::string& expression);
Rule exclude_rule(const std::string& expression);

// "COLUMN<=X" with <, <=, >, >=, == or !=, on a number of the row or on a score, which then must hold for every item.
struct Requirement {
  std::string column;
  std::string comparison;
  double value = 0;
};
Requirement parse_requirement(const std::string& text);
// Groups without the number leave. Usage error when neither a column nor a score has the name.
Rule require_rule(const GroupSet& set, const Requirement& requirement);

// At most `count` groups of each prompt: those of the highest value (one a group of the set), of equal ones the first.
Rule per_prompt_rule(int64_t count, std::vector<double> values);

}  // namespace prefusion::data::filters
