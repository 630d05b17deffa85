#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/json_config.h"
#include "core/weights.h"
#include "training/metrics_log.h"
#include "training/optimizer.h"

namespace prefusion::training {

// The forward pass of one micro-step.
struct MicroStep {
  at::Tensor loss;                            // []
  std::map<std::string, at::Tensor> metrics;  // detached scalars
  std::string ids;                            // the records it is made of, for messages
};

// Adds the gradients of `share` times the loss, as that part of a step.
void differentiate(const at::Tensor& loss, double share);

// What a run learns from, step after step: preference data under an objective, or the policy's own samples under a
// reward. The run around it (training/align.cpp) owns optimizer, averages, guards, checkpoints and logs, and knows
// nothing of data, references or objectives.
class StepSource {
 public:
  virtual ~StepSource() = default;

  virtual int64_t num_steps() const = 0;        // optimizer steps of the whole run
  virtual double epochs() const = 0;            // passes over the data so far
  virtual double groups_per_step() const = 0;   // for the rate that is logged
  virtual std::string description() const = 0;  // of the data, for the log: "over 900 training groups"

  // The users of the training data, for a policy that knows users.
  virtual std::vector<std::string> users() const { return {}; }

  // Whatever needs the weights of the start; called once, before a checkpoint is read.
  virtual void prepare_start() {}

  // The next micro-step, part of optimizer step `step` (from 1): the gradients of `share` times its loss are added to
  // those that are there. The loss comes without its graph.
  virtual MicroStep next(int64_t step, double share) = 0;

  // The step's gradients are complete: mean loss over its micro-steps and their norm before clipping.
  virtual void on_gradients(int64_t /*step*/, const at::Tensor& /*loss*/, const at::Tensor& /*grad_norm*/) {}

  // The policy's weights have moved; what follows the policy does so now.
  virtual void follow(int64_t /*step*/, const std::vector<NamedTensor>& /*master_weights*/) {}

  // eval/... of the policy as it is; empty where nothing is held out.
  virtual Metrics measure() { return {}; }
  virtual bool has_held_out() const { return false; }

  // What must be the same for a resumed run to be the same run, and what it needs to go on.
  virtual Json fingerprint() const = 0;
  virtual Json state() const = 0;
  virtual TensorMap tensors() const { return {}; }
  // Input error, naming `where`, when the checkpoint lacks something.
  virtual void restore(const Json& state, const TensorMap& tensors, const std::string& where) = 0;

  // Measures steps on synthetic data and prints what the run would take.
  virtual void dry_run(Optimizer& optimizer) = 0;
};

}  // namespace prefusion::training
