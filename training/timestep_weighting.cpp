#include "training/timestep_weighting.h"

#include <charconv>
#include <cmath>

#include "core/error.h"
#include "losses/timestep_weights.h"

namespace prefusion::training {

TimestepWeighting TimestepWeighting::parse(const std::string& text, const std::string& flag) {
  TimestepWeighting weighting;
  const size_t colon = text.find(':');
  weighting.name = text.substr(0, colon);
  const auto& names = losses::timestep_weight_names();
  check_usage(std::find(names.begin(), names.end(), weighting.name) != names.end(), flag, " ", text,
              ": expected none, min-snr[:GAMMA], debiased, like-epsilon, sigma-sqrt or cosmap");
  if (colon == std::string::npos) return weighting;
  const char* begin = text.data() + colon + 1;
  const char* end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(begin, end, weighting.gamma);
  check_usage(weighting.name == "min-snr" && error == std::errc() && stopped == end && std::isfinite(weighting.gamma) &&
                  weighting.gamma > 0,
              flag, " ", text, ": only min-snr takes a number, above 0");
  return weighting;
}

void TimestepWeighting::check_defined_for(PredictionType type) const {
  losses::check_timestep_weight(name, type);
}

at::Tensor TimestepWeighting::at(const at::Tensor& timesteps, const schedulers::NoiseSchedule& schedule) const {
  return losses::timestep_weight(name, schedule.snr(timesteps), schedule.prediction_type(), gamma);
}

}  // namespace prefusion::training
