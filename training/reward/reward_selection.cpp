#include "training/reward/reward_selection.h"

#include <cmath>
#include <utility>

namespace prefusion::training {

bool RewardSelection::consider(int64_t step, const RewardQuality& quality) {
  const double accuracy = std::isfinite(quality.accuracy.value) ? quality.accuracy.value : 0.5;
  const bool is_better =
      best_step_ < 0 || std::pair(accuracy, -quality.log_loss) > std::pair(best_accuracy_, -best_log_loss_);
  patience_ = is_better ? 0 : patience_ + 1;
  if (!is_better) return false;
  best_accuracy_ = accuracy;
  best_log_loss_ = quality.log_loss;
  best_step_ = step;
  return true;
}

Json RewardSelection::state() const {
  return {{"best_step", best_step_},
          {"best_accuracy", best_accuracy_},
          {"best_log_loss", best_log_loss_},
          {"patience", patience_}};
}

void RewardSelection::load_state(const Json& state) {
  best_step_ = state.at("best_step").get<int64_t>();
  best_accuracy_ = state.at("best_accuracy").get<double>();
  best_log_loss_ = state.at("best_log_loss").get<double>();
  patience_ = state.at("patience").get<int64_t>();
}

}  // namespace prefusion::training
