#include "training/reward/reward_log.h"

#include <cmath>

#include "core/error.h"

namespace prefusion::training {

RewardLog::RewardLog(const TrainRewardOptions& options, int64_t num_groups, int64_t num_steps, int64_t step)
    : options_(options),
      num_groups_(num_groups),
      num_steps_(num_steps),
      log_(options.output / "metrics.jsonl", step),
      events_(options.output) {}

void RewardLog::add(int64_t step, const RewardStep& done, double seconds) {
  total_.loss += done.loss;
  total_.right += done.right;
  total_.compared += done.compared;
  seconds_ += seconds;
  ++num_timed_;
  if (step % options_.log_every == 0 || step == num_steps_ || step == 1) make_row(step, done);
}

void RewardLog::make_row(int64_t step, const RewardStep& last) {
  const auto count = static_cast<double>(num_timed_);
  const auto per_step = static_cast<double>(options_.batch_size * options_.accumulate);
  row_ = {{"loss", total_.loss / count},
          {"accuracy", total_.compared > 0 ? total_.right / total_.compared : NAN},
          {"lr", last.lr},
          {"grad_norm", last.grad_norm},
          {"epoch", static_cast<double>(step) * per_step / static_cast<double>(num_groups_)},
          {"seconds_per_step", seconds_ / count},
          {"samples_per_second", per_step * count / seconds_}};
  note_ = concat("loss ", row_["loss"], ", accuracy ", row_["accuracy"]);
  total_ = {};
  seconds_ = 0;
  num_timed_ = 0;
  if (step % options_.eval_every != 0 && step != num_steps_) write(step);
}

void RewardLog::add_measurement(int64_t step, const Metrics& measured) {
  row_.insert(measured.begin(), measured.end());
  write(step);
}

void RewardLog::write(int64_t step) {
  if (row_.empty()) return;
  log_.write(step, row_);
  events_.write(step, row_);
  row_.clear();
}

}  // namespace prefusion::training
