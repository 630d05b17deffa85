#include "training/guards.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/error.h"
#include "core/logging.h"

namespace prefusion::training {
namespace {

constexpr size_t kHistory = 100;
constexpr size_t kNeeded = 20;          // norms before a spike can be told
constexpr double kAccuracyDrop = 0.08;  // held-out accuracy below its best by so much

}  // namespace

double GradientGuard::median() const {
  std::vector<double> sorted(history_.begin(), history_.end());
  std::nth_element(sorted.begin(), sorted.begin() + static_cast<ptrdiff_t>(sorted.size() / 2), sorted.end());
  return sorted[sorted.size() / 2];
}

StepVerdict GradientGuard::judge(double loss, double grad_norm, int64_t step, const std::string& ids) {
  if (!std::isfinite(loss) || !std::isfinite(grad_norm)) {
    check_run(++num_nonfinite_ <= nonfinite_budget_, "step ", step, ": loss ", loss, ", gradient norm ", grad_norm,
              " is not finite; records: ", ids,
              "; lower --lr, use --dtype fp32, or allow some with --skip-nonfinite N");
    log_warn("step ", step, ": not finite, skipped; records: ", ids);
    ++num_skipped_;
    return StepVerdict::kSkipNonfinite;
  }
  if (spike_factor_ > 0 && history_.size() >= kNeeded && grad_norm > spike_factor_ * median()) {
    log_warn("step ", step, ": gradient norm ", grad_norm, " is over ", spike_factor_, " times the running median ",
             median(), ", skipped; records: ", ids);
    ++num_skipped_;
    // The norm enters the history all the same: if norms really are larger now, steps are taken again soon.
    history_.push_back(grad_norm);
    if (history_.size() > kHistory) history_.pop_front();
    return StepVerdict::kSkipSpike;
  }
  history_.push_back(grad_norm);
  if (history_.size() > kHistory) history_.pop_front();
  return StepVerdict::kTake;
}

Json GradientGuard::state() const {
  return {{"history", history_}, {"num_skipped", num_skipped_}, {"num_nonfinite", num_nonfinite_}};
}

void GradientGuard::load_state(const Json& state) {
  history_ = state.value("history", std::deque<double>());
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
