#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

namespace prefusion::data {

// The name of the score that judgements give.
inline constexpr const char* kJudgementScore = "judgement";

enum class VoteWinner { kFirst, kSecond, kTie };

// Two pictures as they were shown, by position in the judgement's `images`.
struct Vote {
  size_t first = 0;
  size_t second = 0;
  VoteWinner winner = VoteWinner::kTie;
};

// How pictures that were judged are told apart.
struct PictureName {
  std::string model;
  uint64_t seed = 0;
  bool operator==(const PictureName&) const = default;
};

// One line of a file of judgements: what a person or a vision-language model said of pictures of one prompt.
struct Judgement {
  std::string prompt;
  std::vector<std::variant<size_t, PictureName>> images;  // a position in the prompt's list, or a name
  std::vector<Vote> votes;
  std::map<std::string, std::vector<double>> aspects;  // a number an image each, higher is better
};

// `line` of docs/formats.md; `where` names it in messages. Input error when it is malformed.
Judgement parse_judgement(std::string_view line, const std::string& where);

// How often each of `count` pictures is preferred to those it was compared with: the mean of 1, 0 or 1/2 over these;
// NaN for a picture that no vote is about. A pair that was shown in both orders is won only by a picture that wins in
// both; a vote that goes with the order is a tie. Several votes on one pair in one order count by their majority.
std::vector<double> reconcile_votes(const std::vector<Vote>& votes, size_t count);

// What judgements say of one list, a value a picture each.
struct JudgedList {
  std::vector<double> values;                          // of reconciled votes, else the mean of the aspects
  std::map<std::string, std::vector<double>> aspects;  // means over the judgements; those that all pictures have
};

// All judgements of a file.
class Judgements {
 public:
  // Input error, with the line, for a file that is missing or malformed.
  static Judgements read(const std::filesystem::path& path);

  // What was said of the list of `prompt` with these pictures; nothing where no judgement is about it or one of its
  // pictures was left out. A judgement with a picture that the list does not have is about another list.
  std::optional<JudgedList> judge(const std::string& prompt, const std::vector<PictureName>& pictures);

  size_t size() const { return judgements_.size(); }
  size_t num_used() const;  // that judge() has found a list for

 private:
  std::vector<Judgement> judgements_;
  std::vector<bool> is_used_;
  std::unordered_map<std::string, std::vector<size_t>> of_prompt_;
};

}  // namespace prefusion::data
