#include "unet/graphed_denoiser.h"

#include <ATen/ATen.h>

#include <string>
#include <utility>

#include "core/error.h"
#include "core/logging.h"

namespace prefusion::unet {
namespace {

// All tensors a pass takes, those that are there and those that are not, in one order.
std::vector<at::Tensor> inputs_of(const at::Tensor& noisy_latents, const at::Tensor& timesteps, const Conditioning& c) {
  return {noisy_latents, timesteps,    c.encoder_hidden_states, c.encoder_mask, c.pooled, c.time_ids,
          c.guidance,    c.user_states};
}

Conditioning conditioning_of(const std::vector<at::Tensor>& inputs) {
  return {.encoder_hidden_states = inputs[2],
          .encoder_mask = inputs[3],
          .pooled = inputs[4],
          .time_ids = inputs[5],
          .guidance = inputs[6],
          .user_states = inputs[7]};
}

}  // namespace

// One recorded shape: the tensors it reads, and the one it writes.
struct GraphedDenoiser::Pass {
  std::vector<at::Tensor> inputs;
  at::Tensor prediction;
  std::unique_ptr<kernels::DeviceGraph> graph;  // goes before the tensors it writes

  at::Tensor run(const std::vector<at::Tensor>& given) {
    for (size_t i = 0; i < given.size(); ++i) {
      if (given[i].defined()) inputs[i].copy_(given[i]);
    }
    graph->replay();
    return prediction.clone();
  }
};

GraphedDenoiser::GraphedDenoiser(std::shared_ptr<Denoiser> denoiser) : denoiser_(std::move(denoiser)) {}
GraphedDenoiser::~GraphedDenoiser() = default;

at::Tensor GraphedDenoiser::forward(const at::Tensor& noisy_latents, const at::Tensor& timesteps,
                                    const Conditioning& conditioning) {
  check_run(!at::GradMode::is_enabled(), "a recorded pass has no gradients");
  drop_other_sizes(noisy_latents.size(2), noisy_latents.size(3));
  const std::vector<at::Tensor> given = inputs_of(noisy_latents, timesteps, conditioning);
  Shapes shapes;
  for (const at::Tensor& tensor : given) {
    std::vector<int64_t>& shape = shapes.emplace_back();
    if (!tensor.defined()) continue;
    shape = tensor.sizes().vec();
    shape.push_back(static_cast<int64_t>(tensor.scalar_type()));
  }
  auto found = passes_.find(shapes);
  if (found == passes_.end() && can_record_) {
    try {
      found = passes_.emplace(shapes, record(noisy_latents, timesteps, conditioning)).first;
    } catch (const c10::Error& error) {
      const std::string reason = error.what_without_backtrace();
      log_warn("the denoiser cannot be recorded as a CUDA graph and runs without: ",
               reason.substr(0, reason.find('\n')));
      can_record_ = false;
    }
  }
  if (found == passes_.end()) return denoiser_->forward(noisy_latents, timesteps, conditioning);
  return found->second->run(given);
}

void GraphedDenoiser::drop_other_sizes(int64_t height, int64_t width) {
  if (height_ != height || width_ != width) {
    passes_.clear();
    memory_.reset();
  }
  height_ = height;
  width_ = width;
}

std::unique_ptr<GraphedDenoiser::Pass> GraphedDenoiser::record(const at::Tensor& noisy_latents,
                                                               const at::Tensor& timesteps,
                                                               const Conditioning& conditioning) {
  auto pass = std::make_unique<Pass>();
  for (const at::Tensor& tensor : inputs_of(noisy_latents, timesteps, conditioning)) {
    pass->inputs.push_back(tensor.defined() ? tensor.clone() : tensor);
  }
  if (!memory_) memory_ = kernels::make_graph_memory(noisy_latents.device());
  // The pass outlives its graph, which may call this again.
  const auto ask = [denoiser = denoiser_, into = pass.get()] {
    into->prediction = denoiser->forward(into->inputs[0], into->inputs[1], conditioning_of(into->inputs));
  };
  pass->graph = kernels::record_graph(noisy_latents.device(), ask, memory_);
  return pass;
}

}  // namespace prefusion::unet
