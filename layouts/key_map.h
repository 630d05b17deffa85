#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

// How a checkpoint layout names and packs the tensors of a network that diffusers names and packs otherwise. Layouts
// are tables: one row serves both directions.
namespace prefusion::layouts {

// What happens to the values of a tensor.
enum class Change {
  kNone,
  kSwapHalves,    // of the rows: (shift, scale) in the original, (scale, shift) in diffusers
  kTranspose,     // a matrix that multiplies from the other side
  kPointwiseConv  // a 1x1 convolution in the original, a linear layer in diffusers
};

// One row. A pattern is a name with "{}" for numbers and perhaps a "*" at the end for any rest; what they stand for is
// the same in both columns.
struct KeyRule {
  std::string original;
  std::vector<std::string> diffusers;  // one, or several whose rows lie below each other in the original
  Change change = Change::kNone;
  std::vector<int64_t> rows = {};  // of each of several, -1 for what remains; empty: equal shares
};

// A row of the table and the names it gives.
struct KeyMatch {
  const KeyRule* rule = nullptr;
  std::string original;
  std::vector<std::string> diffusers;
  size_t part = 0;  // which of `diffusers` was asked for
};

class KeyMap {
 public:
  explicit KeyMap(std::vector<KeyRule> rules) : rules_(std::move(rules)) {}

  // The first row that fits; nothing for a name the layout does not have.
  std::optional<KeyMatch> from_original(std::string_view name) const;
  std::optional<KeyMatch> from_diffusers(std::string_view name) const;

  const std::vector<KeyRule>& rules() const { return rules_; }

 private:
  std::vector<KeyRule> rules_;
};

}  // namespace prefusion::layouts
