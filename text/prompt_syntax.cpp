#include "text/prompt_syntax.h"

#include <charconv>
#include <cmath>
#include <optional>

namespace prefusion::text {
namespace {

constexpr double kEmphasis = 1.1;

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v';
}

struct ClosingWeight {
  double weight;
  size_t length;  // of ":1.3)" in the prompt
};

// ":1.3)" at the beginning of `rest`, spaces allowed around the number.
std::optional<ClosingWeight> closing_weight(std::string_view rest) {
  size_t begin = 1;
  while (begin < rest.size() && is_space(rest[begin])) ++begin;
  size_t digits = begin;
  if (digits < rest.size() && (rest[digits] == '+' || rest[digits] == '-')) ++digits;
  size_t end = digits;
  while (end < rest.size() && (rest[end] == '.' || (rest[end] >= '0' && rest[end] <= '9'))) ++end;
  size_t close = end;
  while (close < rest.size() && is_space(rest[close])) ++close;
  if (end == digits || close == rest.size() || rest[close] != ')') return std::nullopt;
  if (rest[begin] == '+') ++begin;
  double weight = 0;
  const auto [stop, code] = std::from_chars(rest.data() + begin, rest.data() + end, weight);
  if (code != std::errc() || stop != rest.data() + end || !std::isfinite(weight)) return std::nullopt;
  return ClosingWeight{.weight = weight, .length = close + 1};
}

class Parser {
 public:
  explicit Parser(std::string_view prompt) : prompt_(prompt) {}

  std::vector<WeightedText> parse() {
    while (position_ < prompt_.size()) position_ += take_one();
    for (const size_t start : round_) multiply(start, kEmphasis);
    for (const size_t start : square_) multiply(start, 1 / kEmphasis);
    return merged();
  }

 private:
  // Handles what stands at the position; how many characters that were.
  size_t take_one() {
    const std::string_view rest = prompt_.substr(position_);
    switch (rest[0]) {
      case '\\': {
        const bool is_escape = rest.size() > 1 && std::string_view("()[]\\").find(rest[1]) != std::string_view::npos;
        if (is_escape) append(rest[1]);
        return is_escape ? 2 : 1;
      }
      case '(': return open(round_);
      case '[': return open(square_);
      case ')': return close(round_, kEmphasis);
      case ']': return close(square_, 1 / kEmphasis);
      case ':':
        if (const auto found = closing_weight(rest); found && !round_.empty()) {
          close(round_, found->weight);
          return found->length;
        }
        break;
      default: break;
    }
    append(rest[0]);
    return 1;
  }

  void append(char c) {
    if (pieces_.empty() || is_sealed_) pieces_.push_back({});
    is_sealed_ = false;
    pieces_.back().text += c;
  }

  size_t open(std::vector<size_t>& starts) {
    starts.push_back(pieces_.size());
    is_sealed_ = true;
    return 1;
  }

  size_t close(std::vector<size_t>& starts, double factor) {
    if (starts.empty()) {
      append(prompt_[position_]);
      return 1;
    }
    multiply(starts.back(), factor);
    starts.pop_back();
    is_sealed_ = true;
    return 1;
  }

  void multiply(size_t start, double factor) {
    for (size_t i = start; i < pieces_.size(); ++i) pieces_[i].weight *= factor;
  }

  std::vector<WeightedText> merged() const {
    std::vector<WeightedText> result;
    for (const WeightedText& piece : pieces_) {
      if (!result.empty() && result.back().weight == piece.weight) {
        result.back().text += piece.text;
      } else {
        result.push_back(piece);
      }
    }
    if (result.empty()) result.push_back({});
    return result;
  }

  std::string_view prompt_;
  size_t position_ = 0;
  std::vector<WeightedText> pieces_;
  bool is_sealed_ = false;     // the next character begins a piece of its own
  std::vector<size_t> round_;  // pieces that open brackets begin at
  std::vector<size_t> square_;
};

}  // namespace

std::vector<WeightedText> parse_weighted_prompt(std::string_view prompt) {
  return Parser(prompt).parse();
}

}  // namespace prefusion::text
