#include "training/guards.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.h"
#include "core/logging.h"

namespace prefusion::training {
namespace {

constexpr int64_t kHistory = 100;
constexpr int64_t kNeeded = 20;         // norms before a spike can be told
constexpr double kAccuracyDrop = 0.08;  // held-out accuracy below its best by so much

// What is read of a judged step, in this order.
enum Fact { kIsFinite, kTakes, kLoss, kGradNorm, kMedian, kNumFacts };

}  // namespace

GradientGuard::GradientGuard(double spike_factor, int64_t skip_nonfinite, at::Device device)
    : spike_factor_(spike_factor),
      nonfinite_budget_(skip_nonfinite),
      history_(at::full({kHistory}, INFINITY, at::TensorOptions().dtype(at::kDouble).device(device))) {}

at::Tensor GradientGuard::judge(const at::Tensor& loss, const at::Tensor& grad_norm, int64_t step, std::string ids) {
  const at::Tensor norm = grad_norm.detach().to(at::kDouble), loss_value = loss.detach().to(at::kDouble);
  const at::Tensor is_finite = at::isfinite(loss_value).logical_and(at::isfinite(norm));
  at::Tensor takes = is_finite, median = at::full_like(norm, INFINITY);
  if (spike_factor_ > 0) {
    const at::Tensor length = (history_ < INFINITY).sum();
    const at::Tensor middle = length.div(2, "floor").unsqueeze(0);
    median = std::get<0>(history_.sort()).gather(0, middle).squeeze(0);
    const at::Tensor is_spike = length.ge(kNeeded).logical_and(norm > median * spike_factor_);
    takes = is_finite.logical_and(is_spike.logical_not());
  }
  // A spike's norm enters the history all the same: if norms really are larger now, steps are taken again soon.
  const at::Tensor longer = at::cat({history_.slice(0, 1), norm.unsqueeze(0)});
  history_ = at::where(is_finite, longer, history_);
  judged_.push_back(
      {step, std::move(ids), at::stack({is_finite.to(at::kDouble), takes.to(at::kDouble), loss_value, norm, median})});
  return takes.to(at::kFloat);
}

void GradientGuard::settle() {
  if (judged_.empty()) return;
  std::vector<at::Tensor> rows;
  for (const Judged& judged : judged_) rows.push_back(judged.facts);
  const at::Tensor facts = at::stack(rows).cpu();
  const std::vector<Judged> settled = std::exchange(judged_, {});
  for (size_t i = 0; i < settled.size(); ++i) report(settled[i], facts.const_data_ptr<double>() + i * kNumFacts);
}

void GradientGuard::report(const Judged& judged, const double* facts) {
  if (facts[kTakes] != 0) return;
  if (facts[kIsFinite] == 0) {
    check_run(++num_nonfinite_ <= nonfinite_budget_, "step ", judged.step, ": loss ", facts[kLoss], ", gradient norm ",
              facts[kGradNorm], " is not finite; records: ", judged.ids,
              "; lower --lr, use --dtype fp32, or allow some with --skip-nonfinite N");
    log_warn("step ", judged.step, ": not finite, skipped; records: ", judged.ids);
  } else {
    log_warn("step ", judged.step, ": gradient norm ", facts[kGradNorm], " is over ", spike_factor_,
             " times the running median ", facts[kMedian], ", skipped; records: ", judged.ids);
  }
  ++num_skipped_;
}

Json GradientGuard::state() const {
  const at::Tensor norms = history_.cpu();
  std::vector<double> known;
  for (int64_t i = 0; i < kHistory; ++i) {
    const double norm = norms.const_data_ptr<double>()[i];
    if (std::isfinite(norm)) known.push_back(norm);
  }
  return {{"history", known}, {"num_skipped", num_skipped_}, {"num_nonfinite", num_nonfinite_}};
}

void GradientGuard::load_state(const Json& state) {
  const auto known = state.value("history", std::vector<double>());
  const auto count = std::min(static_cast<int64_t>(known.size()), kHistory);
  history_.fill_(INFINITY);
  for (int64_t i = 0; i < count; ++i) {
    history_[kHistory - count + i].fill_(known[known.size() - static_cast<size_t>(count - i)]);
  }
  num_skipped_ = state.value("num_skipped", int64_t{0});
  num_nonfinite_ = state.value("num_nonfinite", int64_t{0});
}

std::string OverOptimisationAlarm::check(int64_t step, double accuracy, double margin, double error_chosen,
                                         double error_chosen_ref) {
  if (first_error_ < 0) first_error_ = error_chosen;
  const double start = error_chosen_ref > 0 ? error_chosen_ref : first_error_;
  const double rise = error_chosen / start - 1.0;
  std::string warning;
  if (rise > drift_ && margin > 0) {
    warning =
        concat("over-optimisation: at step ", step, " the held-out chosen error is ", std::round(rise * 1000) / 10,
               " % above the reference's while the margin is ", margin, "; stop earlier, or lower --lr or --kappa");
  } else if (best_accuracy_ >= 0 && accuracy < best_accuracy_ - kAccuracyDrop) {
    warning =
        concat("over-optimisation: held-out accuracy fell from ", best_accuracy_, " to ", accuracy, " at step ", step);
  }
  best_accuracy_ = std::max(best_accuracy_, accuracy);
  return warning;
}

std::string displacement_warning(int64_t step, double displaced, double displaced_low, double margin) {
  if (!(displaced_low > 0.5 && margin > 0)) return "";
  return concat("likelihood displacement: at step ", step, " the margin is ", margin, ", but ",
                std::round(displaced * 1000) / 10,
                " % of the held-out chosen pictures have a larger error than at the start; add --sft-weight or "
                "--anchor-weight, or lower --loser-weight");
}

Json OverOptimisationAlarm::state() const {
  return {{"first_error", first_error_}, {"best_accuracy", best_accuracy_}};
}

void OverOptimisationAlarm::load_state(const Json& state) {
  first_error_ = state.value("first_error", -1.0);
  best_accuracy_ = state.value("best_accuracy", -1.0);
}

}  // namespace prefusion::training
