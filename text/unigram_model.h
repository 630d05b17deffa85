#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/added_tokens.h"

namespace prefusion::text {

// Unigram language model over pieces (arXiv 1804.10959): a word is cut into the pieces whose scores have the highest
// sum. Sums, ties and unknown characters are those of the Rust library under transformers.
class UnigramModel {
 public:
  // Text and log-probability of each piece; its id is its position, and of equal texts the last one's counts. Input
  // error when `unk_id` is not among them or a score is not a number.
  UnigramModel(const std::vector<std::pair<std::string, double>>& pieces, int64_t unk_id, const std::string& where);

  // Appends the tokens of one word (well-formed UTF-8). What no piece covers becomes one unknown token a run.
  void encode_word(std::string_view word, std::vector<int64_t>& tokens) const;

  const Vocabulary& vocab() const { return ids_; }

 private:
  struct Piece {
    std::string text;
    int64_t id;
    double score;
  };
  struct Step;
  std::vector<Step> best_path(std::string_view word) const;

  std::vector<Piece> sorted_;  // by text, without repetitions
  Vocabulary ids_;
  int64_t unk_id_;
  double unk_score_;  // of a character that is no piece
};

}  // namespace prefusion::text
