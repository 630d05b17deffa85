#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "core/weights.h"
#include "kernels/device_graph.h"
#include "training/train_step.h"

namespace prefusion::training {

// The forward and backward passes of micro-steps, recorded once for each shape of batch and then replayed as one
// launch: on a GPU the thousands of launches for a small batch take the host longer than the device. Parameters may be
// moved in place. Their gradients must stay where they are between steps (Optimizer::keep_gradients), and what a pass
// launches must not change: adapters, the objective's strength.
//
// Where a step cannot be recorded, a warning says why, and steps go on one launch at a time.
class GraphedStep {
 public:
  // `trained` are the parameters that get gradients, of `share` times the loss. `step` outlives this.
  GraphedStep(const TrainStep& step, std::vector<NamedTensor> trained, double share);
  ~GraphedStep();

  // Adds the gradients of a micro-step to those that are there; its loss and metrics, without a graph.
  losses::LossOutput run(const StepInputs& inputs);

  // How many shapes are recorded.
  size_t num_graphs() const { return graphs_.size(); }

 private:
  struct Recorded;
  using Shapes = std::vector<std::vector<int64_t>>;

  std::unique_ptr<Recorded> record(const StepInputs& inputs);

  const TrainStep& step_;
  std::vector<NamedTensor> trained_;
  double share_;
  std::shared_ptr<kernels::GraphMemory> memory_;
  std::map<Shapes, std::unique_ptr<Recorded>> graphs_;
  bool can_record_ = true;
};

}  // namespace prefusion::training
