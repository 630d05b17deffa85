#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "core/json_config.h"
#include "core/safetensors.h"
#include "losses/online/online_objective.h"
#include "training/align_options.h"
#include "training/online/prompt_rounds.h"
#include "training/policy.h"
#include "training/reference_policy.h"
#include "training/step_source.h"
#include "training/trace.h"

namespace prefusion::training {

// What every online method is made of. All of it outlives the method.
struct OnlineRun {
  const AlignOptions& options;
  const Policy& policy;
  const losses::OnlineObjective& objective;
  losses::ObjectiveParams params;
  ReferencePolicy* reference;  // may be null
  at::ScalarType dtype;
  at::Device device;
};

// What a method does between two looks at the policy: samples a round, then trains on it in micro-steps.
// online_steps.cpp makes a StepSource of it, with traces, checkpoints and dry runs.
class OnlineMethod {
 public:
  virtual ~OnlineMethod() = default;

  // Samples round number `round` under the weights of now. `steps_done` counts the optimizer steps before it.
  virtual void begin_round(int64_t round, int64_t steps_done) = 0;

  // Of the round that was begun or restored last. No micro-steps: there is nothing to learn from it.
  virtual int64_t num_micro_steps() const = 0;
  virtual int64_t num_samples() const = 0;  // pictures that were made for it

  // Forward pass of one of them, which the caller differentiates. Records its tensors where `trace` is not null.
  virtual MicroStep micro_step(int64_t index, TraceWriter* trace) = 0;

  virtual const PromptRounds& prompts() const = 0;
  virtual std::string description() const = 0;  // of a round, for the log: "rounds of 8 x 8 trajectories"

  // What the method adds to the run's fingerprint and to the metadata of traces.
  virtual Json fingerprint() const { return Json::object(); }
  virtual Metadata trace_metadata() const { return {}; }

  // What a checkpoint within a round must hold, and the way back to the state it was taken in.
  virtual TensorMap tensors() const { return {}; }
  virtual void restore(int64_t round, const TensorMap& tensors, const std::string& where) = 0;
};

// One for each kind of objective.
std::unique_ptr<OnlineMethod> make_trajectory_method(const OnlineRun& run);       // ddpo, flow-grpo, d3po, prdp
std::unique_ptr<OnlineMethod> make_step_pair_method(const OnlineRun& run);        // spo
std::unique_ptr<OnlineMethod> make_forward_method(const OnlineRun& run);          // diffusion-nft
std::unique_ptr<OnlineMethod> make_reward_gradient_method(const OnlineRun& run);  // longalign
std::unique_ptr<OnlineMethod> make_group_method(const OnlineRun& run);            // objectives on data

}  // namespace prefusion::training
