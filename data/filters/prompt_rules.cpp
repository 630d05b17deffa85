#include "data/filters/prompt_rules.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <set>

#include "core/error.h"
#include "data/filters/words.h"

namespace prefusion::data::filters {
namespace {

constexpr double kShort = 5;  // words
constexpr double kLong = 60;

// A compiled regular expression; matching is bounded, so that no expression hangs on a prompt.
class Expression {
 public:
  explicit Expression(const std::string& text) : text_(text) {
    int code = 0;
    size_t offset = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                              PCRE2_UTF | PCRE2_MATCH_INVALID_UTF, &code, &offset, nullptr));
    if (code_) return;
    unsigned char message[256];
    pcre2_get_error_message(code, message, sizeof message);
    fail_usage("'", text, "' is no regular expression: ", reinterpret_cast<const char*>(message), " at character ",
               offset);
  }

  bool occurs_in(const std::string& subject) const {
    const std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> match(
        pcre2_match_data_create_from_pattern(code_.get(), nullptr), pcre2_match_data_free);
    const int result = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(subject.data()), subject.size(), 0, 0,
                                   match.get(), nullptr);
    check_run(result >= PCRE2_ERROR_NOMATCH, "the expression '", text_, "' takes too long on a prompt; simplify it");
    return result >= 0;
  }

 private:
  struct Free {
    void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  };
  std::string text_;
  std::unique_ptr<pcre2_code, Free> code_;
};

Rule expression_rule(const std::string& text, bool wanted) {
  const auto expression = std::make_shared<const Expression>(text);
  const auto why = [=](const GroupSet& set, const Group& group) -> std::string {
    if (expression->occurs_in(set.prompt(group)) == wanted) return "";
    return wanted ? "the prompt does not match" : "the prompt matches";
  };
  return each_group(wanted ? "include" : "exclude", concat("prompts ", wanted ? "with '" : "without '", text, "'"),
                    why);
}

bool holds(double found, const Requirement& requirement) {
  const std::string& comparison = requirement.comparison;
  if (comparison == "<=") return found <= requirement.value;
  if (comparison == ">=") return found >= requirement.value;
  if (comparison == "==") return found == requirement.value;
  if (comparison == "!=") return found != requirement.value;
  return comparison == "<" ? found < requirement.value : found > requirement.value;
}

bool is_plain(unsigned char c) {
  return c >= 0x80 || std::isalnum(c) || std::isspace(c) || c == ',' || c == '.' || c == '\'' || c == '-';
}

}  // namespace

double text_quality(const std::string& prompt) {
  const std::vector<std::string> words = lower_words(prompt);
  if (words.empty()) return 0;
  const auto count = static_cast<double>(words.size());
  const double length = count > kLong ? kLong / count : std::min(1.0, count / kShort);
  const auto plain = static_cast<double>(std::count_if(prompt.begin(), prompt.end(), is_plain));
  const auto distinct = static_cast<double>(std::set<std::string>(words.begin(), words.end()).size());
  return length * (plain / static_cast<double>(prompt.size())) * (distinct / count);
}

Rule include_rule(const std::string& expression) {
  return expression_rule(expression, /*wanted=*/true);
}

Rule exclude_rule(const std::string& expression) {
  return expression_rule(expression, /*wanted=*/false);
}

Requirement parse_requirement(const std::string& text) {
  const size_t begin = text.find_first_of("<>=!");
  Requirement requirement;
  if (begin != std::string::npos && begin > 0) {
    const size_t length = begin + 1 < text.size() && text[begin + 1] == '=' ? 2 : 1;
    requirement.column = text.substr(0, begin);
    while (!requirement.column.empty() && requirement.column.back() == ' ') requirement.column.pop_back();
    requirement.comparison = text.substr(begin, length);
    const std::string number = text.substr(begin + length);
    char* end = nullptr;
    requirement.value = std::strtod(number.c_str(), &end);
    const bool is_known = requirement.comparison != "=" && requirement.comparison != "!";
    if (is_known && !number.empty() && *end == '\0' && end != number.c_str()) return requirement;
  }
  fail_usage("'", text, "' is no requirement: give COLUMN, one of <, <=, >, >=, == and !=, and a number");
}

Rule require_rule(const GroupSet& set, const Requirement& requirement) {
  const std::string& name = requirement.column;
  const auto is_score = std::find(set.score_names.begin(), set.score_names.end(), name) != set.score_names.end();
  const size_t score = is_score ? set.score(name) : 0;
  const size_t column = is_score ? 0 : set.column(name);
  const auto why = [=](const GroupSet&, const Group& group) -> std::string {
    std::vector<double> found;
    if (is_score) {
      for (const Item& item : group.items) found.push_back(item.scores[score]);
    } else {
      found.push_back(group.numbers[column]);
    }
    for (const double value : found) {
      if (std::isnan(value)) return concat("no ", name);
      if (!holds(value, requirement)) return concat(name, " is ", value);
    }
    return "";
  };
  return each_group("require", concat(name, " ", requirement.comparison, " ", requirement.value), why);
}

Rule per_prompt_rule(int64_t count, std::vector<double> values) {
  const auto apply = [count, values = std::move(values)](const GroupSet& set, std::span<const int64_t> alive) {
    std::map<uint32_t, std::vector<int64_t>> by_prompt;
    for (const int64_t index : alive) by_prompt[set.groups[index].prompt].push_back(index);
    std::vector<Dropped> dropped;
    for (auto& [prompt, groups] : by_prompt) {
      std::stable_sort(groups.begin(), groups.end(), [&](int64_t a, int64_t b) { return values[a] > values[b]; });
      for (size_t i = static_cast<size_t>(count); i < groups.size(); ++i) {
        dropped.push_back({.group = groups[i], .why = concat("its prompt has ", groups.size(), " groups")});
      }
    }
    std::sort(dropped.begin(), dropped.end(), [](const Dropped& a, const Dropped& b) { return a.group < b.group; });
    return dropped;
  };
  return Rule{.name = "max-per-prompt", .says = concat("at most ", count, " groups of a prompt"), .apply = apply};
}

}  // namespace prefusion::data::filters
