#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

namespace prefusion::reward_models {

// A comparison of what two prompts give.
struct Duel {
  int64_t first = 0;
  int64_t second = 0;
  double outcome = 0.5;  // probability, or the verdict, that the first is preferred; 1/2 is a tie
};

struct BanditOptions {
  double ridge = 1;        // lambda: precision of the prior on the weights; larger trusts single verdicts less
  double exploration = 2;  // nu: how much uncertainty of a comparison is worth; 0 compares the two best
};

// Learns from duels which of N prompts is preferred: the linear form of APOHF (arXiv 2405.17346), whose own scores are
// a small network's. A prompt's score is linear in its features, p(a preferred to b) = sigmoid(score_a - score_b); the
// weights w maximise the likelihood of all outcomes times a Gaussian prior,
//
//   w = argmin sum over duels of (softplus(u) - outcome * u) + lambda / 2 |w|^2,   u = w . (f_first - f_second).
//
// Features are centred and scaled to a mean square length of 1 first, so that lambda means the same for any encoder and
// scores are relative to the average prompt. Everything follows from features and duels alone, whenever they were
// added.
class PromptBandit {
 public:
  // features: [N, D] of at least two prompts. Usage error for fewer, prompts whose features are all the same, or a
  // ridge that is not positive.
  PromptBandit(const at::Tensor& features, const BanditOptions& options);

  // Usage error for prompts that do not exist or are one, or an outcome outside [0, 1].
  void add(std::span<const Duel> duels);
  void add(const Duel& duel) { add({&duel, 1}); }
  const std::vector<Duel>& duels() const { return duels_; }

  // The posterior in Laplace's approximation, fp64 [N] each: means of the scores, and their standard deviations.
  const at::Tensor& means() const { return means_; }
  at::Tensor deviations() const;
  // Prompts by their means, best first; equal ones by number.
  std::vector<int64_t> ranking() const;
  // The prompt of the highest mean among those that were in a duel; prompt 0 before the first.
  int64_t best() const;

  // The prompts of the next duel: first the one of the highest mean, then the one of the highest upper bound against
  // it, mean + nu * |f - f_first| in the norm of V^-1, V = lambda I + sum over duels of (f_a - f_b)(f_a - f_b)^T.
  Duel next() const;

 private:
  void fit();
  at::Tensor lengths(const at::Tensor& rows, const at::Tensor& matrix) const;

  at::Tensor features_;  // fp64 [N, D], centred and scaled
  BanditOptions options_;
  std::vector<Duel> duels_;
  at::Tensor differences_;  // fp64 [M, D], a row a duel
  at::Tensor precision_;    // fp64 [D, D], of the posterior at its mode
  at::Tensor means_;
};

}  // namespace prefusion::reward_models
