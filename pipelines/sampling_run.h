#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "kernels/guided_step/guided_step.h"
#include "pipelines/sampling_start.h"
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

  // Denoiser calls in all, and those made or left out because of a start picture. Methods of higher order make more of
  // them than num_inference_steps.
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
  // What the denoiser says of the next input, guided; and, where that was one pass, the next latents.
  kernels::GuidedStep predict(const at::Tensor& timesteps) const;

  // The step from here, where it can be taken together with guidance.
  std::optional<kernels::LinearStep> fused_step(const at::Tensor& both) const;

  // `guided`, limited to the range that `both` has under a modest scale.
  at::Tensor limit_guidance(const at::Tensor& guided, const at::Tensor& both) const;

  // Clean latents in `prediction` for the input of call number `index`, variances left out.
  at::Tensor clean_latents(const at::Tensor& prediction, size_t index) const;

  // Latents after call number `position_` with what the mask keeps put back.
  at::Tensor restore_kept(const at::Tensor& next) const;

  // The last latents as decode() is to have them. diffusers' inpainting pipeline of SD3 decodes without the
  // autoencoder's shift (0.42 and before; its issue 13611): its pictures, a shade off, are those made here.
  at::Tensor as_decoded(const at::Tensor& latents) const;

  TextToImage* pipeline_;
  GenerateOptions options_;
  std::unique_ptr<schedulers::Scheduler> scheduler_;
  GuidedConditioning conditioning_;
  std::vector<at::Generator> generators_;
  SamplingStart start_;
  size_t position_ = 0;
  at::Tensor latents_;
  at::Tensor last_input_;  // of the last call, and what came of it; undefined before the first
  at::Tensor last_prediction_;
};

}  // namespace prefusion::pipelines
