#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "pipelines/text_to_image.h"

namespace prefusion::pipelines {

// A batch of pictures on its way from noise to clean latents, one denoiser call after the other. Between calls one may
// look at what the pictures will become, and drop some: those that go on come out as if they had been alone.
//   SamplingRun run(pipeline, requests, options);
//   while (!run.is_done()) run.step();
//   pipeline.decode(run.latents());
class SamplingRun {
 public:
  // Encodes the prompts and draws the noise. Usage error for a size or a number of steps the model cannot do.
  // `pipeline` must outlive this.
  SamplingRun(TextToImage& pipeline, const std::vector<ImageRequest>& requests, const GenerateOptions& options);

  // Denoiser calls in all, and those made. Methods of higher order make more of them than num_inference_steps.
  size_t num_calls() const { return scheduler_->timesteps().size(); }
  size_t position() const { return position_; }
  bool is_done() const { return position_ == num_calls(); }

  // One denoiser call for the whole batch. Throws Interrupted after a signal.
  void step();

  // [B, C, h, w] in the denoiser's dtype.
  const at::Tensor& latents() const { return latents_; }

  // [B, C, h, w]: the clean latents that the last call pointed to, limits of the sampler (clipping, thresholding) left
  // out. Usage error before the first call.
  at::Tensor predicted_clean() const;

  // Goes on with these items of the batch alone, in ascending order. Usage error for others.
  void keep(const std::vector<int64_t>& items);

 private:
  TextToImage* pipeline_;
  GenerateOptions options_;
  std::unique_ptr<schedulers::Scheduler> scheduler_;
  GuidedConditioning conditioning_;
  std::vector<at::Generator> generators_;
  size_t position_ = 0;
  at::Tensor latents_;
  at::Tensor last_input_;  // of the last call, and what came of it; undefined before the first
  at::Tensor last_prediction_;
};

}  // namespace prefusion::pipelines
