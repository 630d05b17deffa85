#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "losses/objective.h"
#include "nn/user_adapter.h"
#include "schedulers/noise_schedule.h"
#include "training/batch_source.h"
#include "training/group_inputs.h"
#include "training/reference_policy.h"
#include "training/step_inputs.h"
#include "training/text_policy.h"
#include "training/timestep_sampler.h"
#include "training/timestep_weighting.h"
#include "unet/denoiser.h"

namespace prefusion::training {

// All tensors of one micro-step, as the trace records them. B groups of k items.
struct StepTensors {
  GroupInputs inputs;
  at::Tensor prediction;       // [B, k, C, h, w], carries the graph
  losses::GroupErrors errors;  // all the objective sees; error and drift carry the graph
  double kappa = 0;            // the strength this step had; not meaningful for objectives without one
  losses::LossOutput loss;
};

// What a step finds of groups it does not train on.
struct StepMeasurement {
  losses::GroupErrors errors;  // constant
  losses::LossOutput output;
};

// What a train step is made of besides the networks.
struct TrainStepOptions {
  losses::ObjectiveParams params;
  losses::LossOptions loss;
  TimestepWeighting logit_weighting;  // of the errors, inside the objective's link function
  TimestepWeighting loss_weighting;   // of each group's loss
  LatentScaling scaling;
  LatentSourceOptions latent_source;
  TimestepSampler timesteps;
  std::shared_ptr<const nn::UserAdapter> users;  // the policy's, asked for the users of a batch; null: nobody
  double user_dropout = 0;                       // share of draws that ask for the empty user instead
  std::shared_ptr<TextPolicy> text;              // the policy's own text encoders; null: the batches have its states
  double distilled_guidance = 3.5;               // that a model distilled under guidance is told
  uint64_t seed = 0;
  at::ScalarType dtype = at::kFloat;
};

// One micro-step of preference training: draws, noise, reference, policy, errors, objective. It owns nothing but how
// they meet; everything random comes from (seed, item, draw).
class TrainStep {
 public:
  // `reference` may be null: then there are no reference errors but those the caller knows.
  TrainStep(unet::Denoiser& policy, ReferencePolicy* reference, const schedulers::NoiseSchedule& schedule,
            const losses::Objective& objective, TrainStepOptions options);

  // What a batch asks at timesteps [B] (int64, one a group). `known_error_ref` [B, k] takes the place of a reference
  // pass.
  StepInputs prepare(const EncodedBatch& batch, const at::Tensor& timesteps,
                     const at::Tensor& known_error_ref = {}) const;

  // Forward pass; the caller differentiates `loss.loss`. Nothing here waits for the device or reads host memory, and
  // equal shapes ask for equal launches.
  StepTensors compute(const StepInputs& inputs) const;

  // Both.
  StepTensors forward(const EncodedBatch& batch, const at::Tensor& timesteps,
                      const at::Tensor& known_error_ref = {}) const {
    return compute(prepare(batch, timesteps, known_error_ref));
  }

  // The timestep of each group: [B] int64.
  at::Tensor draw_timesteps(const EncodedBatch& batch) const;

  // Errors of the reference, or of the policy as it is now, on forward noise; without autograd. [B, k] fp32
  at::Tensor reference_errors(const EncodedBatch& batch, const at::Tensor& timesteps) const;
  at::Tensor policy_errors(const EncodedBatch& batch, const at::Tensor& timesteps) const;

  // The objective's metrics, and its loss where errors are all it needs, on forward noise against known reference
  // errors [B, k]; without autograd and without the orthogonal options.
  StepMeasurement measure(const EncodedBatch& batch, const at::Tensor& timesteps, const at::Tensor& error_ref) const;

  // The strength may follow the run.
  void set_kappa(double kappa) { options_.params.kappa = kappa; }
  double kappa() const { return options_.params.kappa; }
  const losses::ObjectiveInfo& objective() const { return objective_.info; }

  bool has_reference() const { return reference_ != nullptr; }
  bool knows_users() const { return options_.users != nullptr; }

 private:
  BatchPrompts encode_prompts(const EncodedBatch& batch) const;
  at::Tensor predict(unet::Denoiser& network, const GroupInputs& inputs) const;
  at::Tensor predict(ReferencePolicy& reference, const GroupInputs& inputs) const;
  at::Tensor item_errors(const at::Tensor& prediction, const at::Tensor& target, const at::Tensor& masks) const;
  losses::GroupErrors known_of(const EncodedBatch& batch) const;
  at::Tensor user_states(const EncodedBatch& batch, double dropout) const;
  void add_draws(const EncodedBatch& batch, const at::Tensor& timesteps, losses::GroupErrors& errors) const;

  unet::Denoiser& policy_;
  ReferencePolicy* reference_;
  const schedulers::NoiseSchedule& schedule_;
  const losses::Objective& objective_;
  TrainStepOptions options_;
  losses::ObjectiveInfo needs_;  // of the objective under the options
  GroupInputMaker inputs_;
};

}  // namespace prefusion::training
