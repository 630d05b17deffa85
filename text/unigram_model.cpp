#include "text/unigram_model.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "text/unicode.h"

namespace prefusion::text {

// The best way to a position of the word: over which piece, from where.
struct UnigramModel::Step {
  double score = 0;
  int64_t id = 0;
  size_t begin = 0;
  bool is_reached = false;

  void offer(double new_score, int64_t new_id, size_t new_begin) {
    if (is_reached && new_score <= score) return;
    *this = {.score = new_score, .id = new_id, .begin = new_begin, .is_reached = true};
  }
};

UnigramModel::UnigramModel(const std::vector<std::pair<std::string, double>>& pieces, int64_t unk_id,
                           const std::string& where)
    : unk_id_(unk_id) {
  check_input(unk_id < static_cast<int64_t>(pieces.size()), where, ": the vocabulary has ", pieces.size(),
              " pieces; expected the unknown token at ", unk_id);
  constexpr double kUnknownPenalty = 10;  // how much worse an unknown character is than the worst piece
  double lowest = std::numeric_limits<double>::infinity();
  for (size_t id = 0; id < pieces.size(); ++id) {
    check_input(!std::isnan(pieces[id].second), where, ": the score of piece ", id, " is not a number");
    ids_[pieces[id].first] = static_cast<int64_t>(id);
    lowest = std::min(lowest, pieces[id].second);
  }
  unk_score_ = lowest - kUnknownPenalty;
  sorted_.reserve(ids_.size());
  for (const auto& [text, id] : ids_) sorted_.push_back({text, id, pieces[static_cast<size_t>(id)].second});
  std::sort(sorted_.begin(), sorted_.end(), [](const Piece& a, const Piece& b) { return a.text < b.text; });
}

std::vector<UnigramModel::Step> UnigramModel::best_path(std::string_view word) const {
  std::vector<Step> steps(word.size() + 1);
  for (size_t begin = 0; begin < word.size();) {
    const double score = steps[begin].score;
    size_t character_end = begin;
    next_code_point(word, character_end);
    bool has_character = false;
    // The pieces that agree with the word so far: a range of the sorted list that shrinks with every byte.
    auto first = sorted_.begin(), last = sorted_.end();
    for (size_t end = begin + 1; end <= word.size() && first != last; ++end) {
      const size_t length = end - begin;
      const auto byte_at = [&](const Piece& piece) {
        return piece.text.size() < length ? -1 : static_cast<int>(static_cast<unsigned char>(piece.text[length - 1]));
      };
      const int byte = static_cast<unsigned char>(word[end - 1]);
      first = std::partition_point(first, last, [&](const Piece& piece) { return byte_at(piece) < byte; });
      last = std::partition_point(first, last, [&](const Piece& piece) { return byte_at(piece) <= byte; });
      if (first == last || first->text.size() != length) continue;
      steps[end].offer(score + first->score, first->id, begin);
      has_character = has_character || end == character_end;
    }
    if (!has_character) steps[character_end].offer(score + unk_score_, unk_id_, begin);
    begin = character_end;
  }
  return steps;
}

void UnigramModel::encode_word(std::string_view word, std::vector<int64_t>& tokens) const {
  const std::vector<Step> steps = best_path(word);
  const size_t num_before = tokens.size();
  for (size_t end = word.size(); end > 0;) {
    size_t begin = steps[end].begin;
    if (steps[end].id == unk_id_) {
      while (begin > 0 && steps[begin].id == unk_id_) begin = steps[begin].begin;
      // A run of unknown characters may, joined, be a piece whose score is worse still.
      const auto found = ids_.find(std::string(word.substr(begin, end - begin)));
      tokens.push_back(found == ids_.end() ? unk_id_ : found->second);
    } else {
      tokens.push_back(steps[end].id);
    }
    end = begin;
  }
  std::reverse(tokens.begin() + static_cast<std::ptrdiff_t>(num_before), tokens.end());
}

}  // namespace prefusion::text
