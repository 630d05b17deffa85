#include "reward_models/prompt_bandit.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

#include "core/error.h"

namespace prefusion::reward_models {
namespace {

constexpr int kMostNewtonSteps = 100;
// Squares of Newton's decrement: at the mode, and near it, where whole steps converge quadratically and differences of
// the objective are lost in rounding.
constexpr double kConverged = 1e-24;
constexpr double kNear = 1e-6;

std::vector<double> numbers(const at::Tensor& values) {
  const at::Tensor row = values.contiguous();
  return {row.data_ptr<double>(), row.data_ptr<double>() + row.numel()};
}

// Rows with the same inner products in at most N dimensions: only those matter, and an encoder's D is often larger.
at::Tensor in_few_dimensions(const at::Tensor& rows) {
  if (rows.size(1) <= rows.size(0)) return rows;
  const auto [values, vectors] = at::linalg_eigh(rows.matmul(rows.t()));
  return vectors * values.clamp_min(0).sqrt();
}

at::Tensor prepared(const at::Tensor& features) {
  check_usage(features.dim() == 2 && features.size(0) >= 2, "a choice needs at least two prompts, found ",
              features.dim() == 2 ? features.size(0) : 0);
  const at::Tensor rows = features.to(at::kCPU, at::kDouble);
  const at::Tensor centred = rows - rows.mean(0, /*keepdim=*/true);
  const at::Tensor length = centred.square().sum(1).mean().sqrt();
  check_usage(length.item<double>() > 1e-12 * rows.abs().max().item<double>(),
              "all prompts have the same features, so that none can be preferred; use another text encoder");
  return in_few_dimensions(centred / length).contiguous();
}

}  // namespace

PromptBandit::PromptBandit(const at::Tensor& features, const BanditOptions& options)
    : features_(prepared(features)), options_(options) {
  check_usage(options.ridge > 0, "the ridge must be positive, not ", options.ridge);
  differences_ = at::empty({0, features_.size(1)}, at::kDouble);
  precision_ = options.ridge * at::eye(features_.size(1), at::kDouble);
  means_ = at::zeros({features_.size(0)}, at::kDouble);
}

void PromptBandit::add(std::span<const Duel> duels) {
  if (duels.empty()) return;
  const int64_t count = features_.size(0);
  const auto exists = [count](int64_t prompt) { return prompt >= 0 && prompt < count; };
  std::vector<at::Tensor> rows = {differences_};
  for (const Duel& duel : duels) {
    check_usage(exists(duel.first) && exists(duel.second) && duel.first != duel.second, "a duel of the prompts ",
                duel.first, " and ", duel.second, " of ", count, " is none");
    check_usage(duel.outcome >= 0 && duel.outcome <= 1, "the outcome of a duel lies between 0 and 1, not ",
                duel.outcome);
    rows.push_back((features_[duel.first] - features_[duel.second]).unsqueeze(0));
  }
  duels_.insert(duels_.end(), duels.begin(), duels.end());
  differences_ = at::cat(rows);
  fit();
}

// Newton's method from zero. The objective is strictly convex; a step that does not lower it is halved.
void PromptBandit::fit() {
  std::vector<double> outcomes;
  for (const Duel& duel : duels_) outcomes.push_back(duel.outcome);
  const at::Tensor& x = differences_;                      // [M, D]
  const at::Tensor y = at::tensor(outcomes, at::kDouble);  // [M]
  const at::Tensor prior = options_.ridge * at::eye(x.size(1), at::kDouble);
  const auto loss = [&](const at::Tensor& w) {
    const at::Tensor u = x.mv(w);
    return (at::softplus(u) - y * u).sum().item<double>() + 0.5 * options_.ridge * w.square().sum().item<double>();
  };
  at::Tensor weights = at::zeros({x.size(1)}, at::kDouble);
  for (int step = 0; step < kMostNewtonSteps; ++step) {
    const at::Tensor p = x.mv(weights).sigmoid();
    const at::Tensor gradient = x.t().mv(p - y) + options_.ridge * weights;
    precision_ = x.t().matmul((p * (1 - p)).unsqueeze(1) * x) + prior;
    at::Tensor move = at::linalg_solve(precision_, gradient);
    const double decrement = gradient.dot(move).item<double>();
    if (decrement < kConverged) break;
    if (decrement > kNear) {
      const double before = loss(weights);
      while (loss(weights - move) > before) move = move * 0.5;
    }
    weights = weights - move;
  }
  means_ = features_.mv(weights);
}

// sqrt(r^T M^-1 r) of every row r.
at::Tensor PromptBandit::lengths(const at::Tensor& rows, const at::Tensor& matrix) const {
  const at::Tensor solved = at::linalg_solve(matrix, rows.t().contiguous());  // [D, N]
  return (rows.t() * solved).sum(0).clamp_min(0).sqrt();
}

at::Tensor PromptBandit::deviations() const {
  return lengths(features_, precision_);
}

std::vector<int64_t> PromptBandit::ranking() const {
  const std::vector<double> means = numbers(means_);
  std::vector<int64_t> order(means.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return means[a] > means[b]; });
  return order;
}

int64_t PromptBandit::best() const {
  std::vector<bool> was_seen(static_cast<size_t>(features_.size(0)));
  for (const Duel& duel : duels_) was_seen[duel.first] = was_seen[duel.second] = true;
  for (const int64_t prompt : ranking()) {
    if (was_seen[prompt]) return prompt;
  }
  return 0;
}

Duel PromptBandit::next() const {
  const int64_t first = ranking().front();
  const at::Tensor seen =
      differences_.t().matmul(differences_) + options_.ridge * at::eye(features_.size(1), at::kDouble);
  const std::vector<double> bounds =
      numbers(means_ + options_.exploration * lengths(features_ - features_[first], seen));
  int64_t second = first == 0 ? 1 : 0;
  for (int64_t prompt = second + 1; prompt < static_cast<int64_t>(bounds.size()); ++prompt) {
    if (prompt != first && bounds[prompt] > bounds[second]) second = prompt;
  }
  return {.first = first, .second = second};
}

}  // namespace prefusion::reward_models
