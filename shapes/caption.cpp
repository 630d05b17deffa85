#include "shapes/caption.h"

#include <algorithm>
#include <cctype>
#include <set>
#include <sstream>

#include "core/error.h"

namespace prefusion::shapes {
namespace {

// The split must not follow the seed of a run: models pretrained with different seeds share their held-out captions.
constexpr uint64_t kSplitSeed = 20240;
constexpr int64_t kHeldOutOneIn = 10;
constexpr double kOneObjectShare = 0.3;
constexpr int64_t kOneObjectTenths = 3;

int64_t kind_index(const ObjectKind& kind) {
  return static_cast<int64_t>(kind.colour) * static_cast<int64_t>(kShapes.size()) + static_cast<int64_t>(kind.shape);
}

ObjectKind kind_at(int64_t index) {
  const auto shapes = static_cast<int64_t>(kShapes.size());
  return {kColours[static_cast<size_t>(index / shapes)], kShapes[static_cast<size_t>(index % shapes)]};
}

constexpr int64_t kNumKinds = static_cast<int64_t>(kColours.size() * kShapes.size());

std::vector<std::string> lower_case_words(std::string_view text) {
  std::string lowered(text);
  std::transform(lowered.begin(), lowered.end(), lowered.begin(), [](unsigned char c) { return std::tolower(c); });
  std::istringstream stream(lowered);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  if (!words.empty() && words.back().size() > 1 && words.back().back() == '.') words.back().pop_back();
  return words;
}

// Reads the words of a caption from left to right; every method consumes what it recognises and nothing else.
class WordReader {
 public:
  explicit WordReader(std::vector<std::string> words) : words_(std::move(words)) {}

  bool at_end() const { return next_ == words_.size(); }

  bool take(std::string_view words) {
    size_t position = next_;
    std::istringstream stream{std::string(words)};
    for (std::string word; stream >> word; ++position) {
      if (position >= words_.size() || words_[position] != word) return false;
    }
    next_ = position;
    return true;
  }

  std::optional<ObjectKind> object() {
    if (!take("a")) return std::nullopt;
    for (Colour colour : kColours) {
      if (!take(colour_word(colour))) continue;
      for (Shape shape : kShapes) {
        if (take(shape_word(shape))) return ObjectKind{colour, shape};
      }
    }
    return std::nullopt;
  }

  std::optional<Relation> relation() {
    for (Relation relation : kRelations) {
      if (take(relation_words(relation))) return relation;
    }
    return std::nullopt;
  }

 private:
  std::vector<std::string> words_;
  size_t next_ = 0;
};

}  // namespace

std::string caption_text(const ParsedCaption& parsed) {
  std::string text;
  for (size_t i = 0; i < parsed.objects.size(); ++i) {
    if (i > 0) text += concat(' ', relation_words(parsed.relation), ' ');
    text += concat("a ", colour_word(parsed.objects[i].colour), ' ', shape_word(parsed.objects[i].shape));
  }
  return text;
}

std::optional<ParsedCaption> parse_caption(std::string_view text) {
  WordReader reader(lower_case_words(text));
  ParsedCaption parsed;
  const std::optional<ObjectKind> first = reader.object();
  if (!first) return std::nullopt;
  parsed.objects.push_back(*first);
  if (reader.at_end()) return parsed;
  const std::optional<Relation> relation = reader.relation();
  if (!relation) return std::nullopt;
  const std::optional<ObjectKind> second = reader.object();
  if (!second || !reader.at_end()) return std::nullopt;
  parsed.relation = *relation;
  parsed.objects.push_back(*second);
  return parsed;
}

std::vector<ParsedCaption> one_object_captions() {
  std::vector<ParsedCaption> captions;
  for (int64_t kind = 0; kind < kNumKinds; ++kind) captions.push_back({{kind_at(kind)}, Relation::kNone});
  return captions;
}

std::vector<ParsedCaption> two_object_captions() {
  std::vector<ParsedCaption> captions;
  for (int64_t first = 0; first < kNumKinds; ++first) {
    for (int64_t second = 0; second < kNumKinds; ++second) {
      if (first == second) continue;
      for (Relation relation : kRelations) captions.push_back({{kind_at(first), kind_at(second)}, relation});
    }
  }
  return captions;
}

bool is_held_out(const ParsedCaption& parsed) {
  if (parsed.objects.size() != 2) return false;
  int64_t first = kind_index(parsed.objects[0]);
  int64_t second = kind_index(parsed.objects[1]);
  Relation relation = parsed.relation;
  if (relation == Relation::kRightOf || relation == Relation::kBelow) {
    std::swap(first, second);
    relation = opposite(relation);
  }
  const int64_t index = (first * kNumKinds + second) * 5 + static_cast<int64_t>(relation);
  CounterRng rng(DrawKey{kSplitSeed, static_cast<uint64_t>(index), 0}, RandomPurpose::kSplit);
  return rng.below(kHeldOutOneIn) == 0;
}

bool is_held_out(std::string_view caption) {
  const std::optional<ParsedCaption> parsed = parse_caption(caption);
  return parsed && is_held_out(*parsed);
}

std::vector<std::string> held_out_captions(int64_t count, uint64_t seed) {
  check_usage(count >= 0, "number of held-out captions must not be negative, got ", count);
  const std::vector<ParsedCaption> ones = one_object_captions();
  std::vector<ParsedCaption> twos = two_object_captions();
  std::erase_if(twos, [](const ParsedCaption& parsed) { return !is_held_out(parsed); });
  const auto num_ones = static_cast<int64_t>(ones.size());
  const auto num_twos = static_cast<int64_t>(twos.size());
  const std::vector<int64_t> order_ones = random_permutation(num_ones, DrawKey{seed, 1, 0}, RandomPurpose::kSplit);
  const std::vector<int64_t> order_twos = random_permutation(num_twos, DrawKey{seed, 2, 0}, RandomPurpose::kSplit);
  std::vector<std::string> captions;
  captions.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t ones_before = i * kOneObjectTenths / 10;
    const bool is_one = (i + 1) * kOneObjectTenths / 10 > ones_before;
    const ParsedCaption& parsed =
        is_one ? ones[order_ones[ones_before % num_ones]] : twos[order_twos[(i - ones_before) % num_twos]];
    captions.push_back(caption_text(parsed));
  }
  return captions;
}

ParsedCaption sample_caption(CounterRng& rng) {
  if (rng.uniform() < kOneObjectShare) return {{kind_at(rng.below(kNumKinds))}, Relation::kNone};
  for (;;) {
    const int64_t first = rng.below(kNumKinds);
    const int64_t second = rng.below(kNumKinds);
    const Relation relation = kRelations[static_cast<size_t>(rng.below(static_cast<int64_t>(kRelations.size())))];
    const ParsedCaption parsed{{kind_at(first), kind_at(second)}, relation};
    if (first != second && !is_held_out(parsed)) return parsed;
  }
}

std::vector<std::string> vocabulary() {
  std::set<std::string> words{"a"};
  const auto add = [&words](std::string_view phrase) {
    std::istringstream stream{std::string(phrase)};
    for (std::string word; stream >> word;) words.insert(word);
  };
  for (Colour colour : kColours) add(colour_word(colour));
  for (Shape shape : kShapes) add(shape_word(shape));
  for (Relation relation : kRelations) add(relation_words(relation));
  return {words.begin(), words.end()};
}

}  // namespace prefusion::shapes
