#include "training/graphed_step.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <string>
#include <utility>

#include "core/flop_counter.h"
#include "core/logging.h"
#include "core/step_clock.h"
#include "training/step_source.h"

namespace prefusion::training {
namespace {

losses::LossOutput detached(const losses::LossOutput& output) {
  losses::LossOutput result{.loss = output.loss.detach(), .group_loss = output.group_loss.detach(), .metrics = {}};
  for (const auto& [name, value] : output.metrics) result.metrics[name] = value.detach();
  return result;
}

losses::LossOutput copy_of(const losses::LossOutput& output) {
  losses::LossOutput result{.loss = output.loss.clone(), .group_loss = output.group_loss.clone(), .metrics = {}};
  for (const auto& [name, value] : output.metrics) result.metrics[name] = value.clone();
  return result;
}

// The gradients as they are now; restore() puts these values where the gradients are then, zeros where there were none.
class KeptGradients {
 public:
  explicit KeptGradients(const std::vector<NamedTensor>& parameters) : parameters_(parameters) {
    for (const auto& [name, parameter] : parameters) {
      const at::Tensor& gradient = parameter.grad();
      values_.push_back(gradient.defined() ? gradient.clone() : at::Tensor());
    }
  }
  void restore() const {
    const at::NoGradGuard no_grad;
    for (size_t i = 0; i < parameters_.size(); ++i) {
      const at::Tensor& gradient = parameters_[i].tensor.grad();
      if (!gradient.defined()) continue;
      if (values_[i].defined()) {
        gradient.copy_(values_[i]);
      } else {
        gradient.zero_();
      }
    }
  }

 private:
  const std::vector<NamedTensor>& parameters_;
  std::vector<at::Tensor> values_;
};

}  // namespace

// One recorded shape: the tensors it reads, and those it writes besides the gradients.
struct GraphedStep::Recorded {
  StepInputs inputs;
  losses::LossOutput output;
  int64_t operations = 0;                       // of a replay, as FlopCounter counts
  std::unique_ptr<kernels::DeviceGraph> graph;  // goes before the tensors

  losses::LossOutput run(const std::vector<at::Tensor*>& given) {
    const std::vector<at::Tensor*> own = tensors_of(inputs);
    for (size_t i = 0; i < given.size(); ++i) {
      if (given[i]->defined()) own[i]->copy_(*given[i]);
    }
    graph->replay();
    if (!output.loss.is_cpu()) FlopCounter::add(operations);  // the CPU does again what is counted
    return copy_of(output);
  }
};

GraphedStep::GraphedStep(const TrainStep& step, std::vector<NamedTensor> trained, double share)
    : step_(step), trained_(std::move(trained)), share_(share) {}
GraphedStep::~GraphedStep() = default;

losses::LossOutput GraphedStep::run(const StepInputs& inputs) {
  StepInputs asked = inputs;
  const std::vector<at::Tensor*> given = tensors_of(asked);
  Shapes shapes;
  for (const at::Tensor* tensor : given) {
    std::vector<int64_t>& shape = shapes.emplace_back();
    if (!tensor->defined()) continue;
    shape = tensor->sizes().vec();
    shape.push_back(static_cast<int64_t>(tensor->scalar_type()));
  }
  auto found = graphs_.find(shapes);
  if (found == graphs_.end() && can_record_) {
    const KeptGradients kept(trained_);
    try {
      found = graphs_.emplace(shapes, record(inputs)).first;
    } catch (const c10::Error& error) {
      const std::string reason = error.what_without_backtrace();
      log_warn("the training step cannot be recorded as a CUDA graph and runs without: ",
               reason.substr(0, reason.find('\n')));
      can_record_ = false;
    }
    kept.restore();  // the run before a recording has added its own
  }
  if (found != graphs_.end()) {
    const TimedPart whole(StepPart::kGraph);
    return found->second->run(given);
  }
  const losses::LossOutput output = step_.compute(inputs).loss;
  differentiate(output.loss, share_);
  return detached(output);
}

std::unique_ptr<GraphedStep::Recorded> GraphedStep::record(const StepInputs& inputs) {
  auto recorded = std::make_unique<Recorded>();
  recorded->inputs = inputs;
  for (at::Tensor* tensor : tensors_of(recorded->inputs)) {
    if (tensor->defined()) *tensor = tensor->detach().clone();
  }
  const at::Device device = recorded->inputs.groups.noisy_latents.device();
  if (!memory_) memory_ = kernels::make_graph_memory(device);
  // The recorded step outlives its graph, which may call this again.
  const auto work = [this, into = recorded.get()] {
    const FlopCounter counter;
    const losses::LossOutput output = step_.compute(into->inputs).loss;
    differentiate(output.loss, share_);
    into->output = detached(output);
    into->operations = counter.total();
  };
  const UntimedWork untimed;
  recorded->graph = kernels::record_graph(device, work, memory_);
  return recorded;
}

}  // namespace prefusion::training
