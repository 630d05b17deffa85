#include "training/train_step_options.h"

#include "losses/registry.h"
#include "training/run_fingerprint.h"
#include "training/users.h"

namespace prefusion::training {
namespace {

TimestepWeighting weighting(const std::string& text, const char* flag, const schedulers::NoiseSchedule& schedule) {
  const TimestepWeighting weighting = TimestepWeighting::parse(text, flag);
  weighting.check_defined_for(schedule.prediction_type());
  return weighting;
}

LatentSourceOptions latent_source(const losses::Objective& objective, const losses::ObjectiveParams& params) {
  LatentSourceOptions source{.source = objective.info.latent_source, .inversion = {}};
  if (source.source == losses::LatentSource::kForwardNoise) return source;
  const bool has_eta = params.values.contains("inversion_eta");
  source.inversion = {.num_steps = static_cast<int64_t>(params.get("inversion_steps")),
                      .eta = has_eta ? params.get("inversion_eta") : 0.0,
                      .renoise = source.source == losses::LatentSource::kRenoiseInversion};
  return source;
}

}  // namespace

TrainStepOptions train_step_options(const AlignOptions& options, const losses::Objective& objective,
                                    const losses::ObjectiveParams& params, const Policy& policy,
                                    const schedulers::NoiseSchedule& schedule, at::ScalarType dtype) {
  TrainStepOptions step;
  step.params = params;
  step.loss = options.loss;
  step.logit_weighting = weighting(options.logit_weighting, "--logit-weighting", schedule);
  step.loss_weighting = weighting(options.loss_weighting, "--loss-weighting", schedule);
  step.latent_source = latent_source(objective, params);
  step.timesteps = TimestepSampler::parse(options.timestep_sampling, options.timestep_range, schedule);
  step.users = policy.users;
  step.text = policy.text;
  step.user_dropout = policy.users ? user_dropout(params) : 0.0;
  step.distilled_guidance = options.distilled_guidance;
  step.seed = options.seed;
  step.dtype = dtype;
  return step;
}

Metadata objective_metadata(const AlignOptions& options, const losses::ObjectiveParams& params) {
  Metadata metadata;
  const Json additions = loss_options_json(options);
  for (const auto& [name, value] : additions.items()) {
    metadata[name] = value.is_string() ? value.get<std::string>() : value.dump();
  }
  // An objective with a parameter of an addition's name refuses the addition.
  for (const auto& [name, value] : losses::params_metadata(params)) metadata[name] = value;
  return metadata;
}

}  // namespace prefusion::training
