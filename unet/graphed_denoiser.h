#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "kernels/device_graph.h"
#include "unet/denoiser.h"

namespace prefusion::unet {

// A denoiser whose passes without gradients are recorded, one of each shape, and then replayed as one launch: on a GPU
// the thousand launches for a small picture take the host longer than the device. Weights may change in place; whatever
// changes which launches there are (adapters that come, go or are switched off, weights that move) must be done before
// the first pass.
//
// Graphs of other latent sizes are dropped, those of one size share their memory. Where a pass cannot be recorded, a
// warning says why, and passes go on one launch at a time.
class GraphedDenoiser : public Denoiser {
 public:
  explicit GraphedDenoiser(std::shared_ptr<Denoiser> denoiser);
  ~GraphedDenoiser() override;

  // Run error where gradients are wanted.
  at::Tensor forward(const at::Tensor& noisy_latents, const at::Tensor& timesteps,
                     const Conditioning& conditioning) override;
  const DenoiserInfo& info() const override { return denoiser_->info(); }
  int64_t num_time_ids(int64_t pooled_width) const override { return denoiser_->num_time_ids(pooled_width); }

  // How many shapes are recorded.
  size_t num_graphs() const { return passes_.size(); }

 private:
  struct Pass;
  using Shapes = std::vector<std::vector<int64_t>>;

  void drop_other_sizes(int64_t height, int64_t width);
  std::unique_ptr<Pass> record(const at::Tensor& noisy_latents, const at::Tensor& timesteps,
                               const Conditioning& conditioning);

  std::shared_ptr<Denoiser> denoiser_;  // not a submodule: this has no weights of its own
  std::map<Shapes, std::unique_ptr<Pass>> passes_;
  std::shared_ptr<kernels::GraphMemory> memory_;
  int64_t height_ = 0, width_ = 0;
  bool can_record_ = true;
};

}  // namespace prefusion::unet
