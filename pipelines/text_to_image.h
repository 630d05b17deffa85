#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "pipelines/guidance.h"
#include "pipelines/guided_denoiser.h"
#include "pipelines/model_index.h"
#include "schedulers/scheduler.h"
#include "schedulers/stochastic_ddim.h"
#include "text/prompt_encoder.h"
#include "unet/denoiser.h"
#include "vae/autoencoder_kl.h"

namespace prefusion::pipelines {

// One picture to make. Its random numbers come from a CPU generator of its own, seeded with `seed`, so it does not
// depend on what else is in the batch.
struct ImageRequest {
  std::string prompt;
  std::string negative_prompt;
  uint64_t seed = 0;
};

// One denoiser call of the sampling loop, for progress and for recording trajectories.
struct SamplingStep {
  size_t index;  // of the call
  size_t count;  // calls in all
  double timestep;
  const at::Tensor& latents;     // before the step
  const at::Tensor& prediction;  // after guidance
  const at::Tensor& next;        // latents after the step
};

// A picture to start from instead of noise ("SDEdit: Guided Image Synthesis and Editing with Stochastic Differential
// Equations", arXiv 2108.01073), and the part of it to repaint.
struct StartPicture {
  at::Tensor pixel_values;  // [1, 3, H, W] in [-1, 1], H and W those of the result; undefined: from noise
  at::Tensor mask;          // [1, 1, H, W], 1 where it is repainted, else 0; undefined: all of it changes
  double strength = 0.8;    // share of the steps that are made, in (0, 1]
};

struct GenerateOptions {
  int64_t num_inference_steps = 50;
  GuidanceOptions guidance;
  std::string scheduler = "auto";  // schedulers/scheduler.h
  double eta = 0.0;                // DDIM only
  int64_t height_px = 0;           // 0: the model's own size
  int64_t width_px = 0;
  StartPicture start;
  BranchAdapters adapters;  // those attached to the denoiser that are not to act on both sides of guidance
  // Guidance and the sampler's step are one pass where the step is linear (kernels/guided_step). Always so on a GPU; on
  // the CPU predictions would not be rounded as diffusers rounds them.
  bool fuses_steps = false;
  at::Tensor user_states;  // [M, U], of whom the pictures are for (nn/user_adapter.h), with and without guidance
  std::function<void(const SamplingStep&)> on_step;  // may be empty
};

struct ImageSize {
  int64_t height_px = 0;
  int64_t width_px = 0;
};

// What a pipeline is made of. Shared, so that training can sample from the network it is training.
struct PipelineComponents {
  ModelFamily family = ModelFamily::kStableDiffusion;
  std::shared_ptr<unet::Denoiser> denoiser;
  std::shared_ptr<unet::Denoiser> graphed_denoiser;  // the same, recorded (unet/graphed_denoiser.h); may be empty
  std::shared_ptr<vae::AutoencoderKL> autoencoder;
  std::shared_ptr<text::PromptEncoder> prompt_encoder;
  schedulers::SchedulerConfig scheduler_config;
  bool tells_aesthetic_score = false;  // SDXL's refiner, which only goes on from a picture
  ImageSize default_size = {0, 0};     // 0: the denoiser's sample size times the autoencoder's factor
};

// How the parts of a model folder are loaded.
struct PipelineLoadOptions {
  text::PromptEncoderOptions prompts;
  // Weights of the blocks of denoiser and T5 stay in host memory and come to the device with each pass
  // (nn/frozen_weights.h).
  bool streams_weights = false;
  bool uses_graphs = false;  // sampling replays recorded passes of the denoiser
};

// A latent diffusion model from prompt to picture ("High-Resolution Image Synthesis with Latent Diffusion Models",
// arXiv 2112.10752). On the CPU in fp32 a picture equals that of the model's diffusers pipeline called for it alone
// with generator=torch.Generator("cpu").manual_seed(seed).
class TextToImage {
 public:
  // Loads a diffusers folder. Input error when a file is missing, broken or not supported, or components do not fit.
  static TextToImage load(const std::filesystem::path& model_dir, at::ScalarType dtype, at::Device device,
                          const PipelineLoadOptions& options = {});

  // From loaded components. Input error when they do not fit each other.
  explicit TextToImage(PipelineComponents components);

  // [B, C, H, W] latents in the denoiser's dtype, one batch for all requests. Usage error for a size or a number of
  // steps the model cannot do.
  at::Tensor generate_latents(const std::vector<ImageRequest>& requests, const GenerateOptions& options);

  // Latents to uint8 RGB [B, H, W, 3] on the CPU, a picture at a time. Run error when a value is not finite.
  at::Tensor decode(const at::Tensor& latents);

  // Both.
  at::Tensor generate(const std::vector<ImageRequest>& requests, const GenerateOptions& options);

  // What the denoiser is conditioned on for pictures of that size, a row for each prompt; without guidance the negative
  // prompts are not read. In the denoiser's dtype, every distinct text encoded once.
  GuidedConditioning encode(const std::vector<std::string>& prompts, const std::vector<std::string>& negative_prompts,
                            const GuidanceOptions& guidance, ImageSize size);

  // How many chunks the texts of a request take. In a batch all get as many as the longest, so that the pictures of a
  // batch are those made alone only where this is the same for all.
  int64_t num_chunks(const ImageRequest& request, const GuidanceOptions& guidance) const;

  // What guidance of that scale means for the model: a distilled one (FLUX.1) is told the scale and asked once.
  GuidanceOptions asked_twice(const GuidanceOptions& guidance) const;

  // The size pictures will have; usage error when the model cannot make it.
  ImageSize image_size(const GenerateOptions& options) const;

  // What heights and widths must be multiples of.
  int64_t size_unit_px() const;

  // Whether the denoiser takes a mask and the masked picture beside the latents.
  bool is_inpainting() const;

  // The sampler for these options, with the file's settings corrected as diffusers corrects those of old models.
  std::unique_ptr<schedulers::Scheduler> make_scheduler(const GenerateOptions& options) const;

  // The steps of `scheduler = "ddim"` as distributions, corrected in the same way. Input error for a denoiser that
  // predicts variances too.
  schedulers::StochasticDdim stochastic_ddim() const;

  // [C, h, w] of the latents of pictures of that size.
  std::vector<int64_t> latent_shape(ImageSize size) const;

  const PipelineComponents& components() const { return components_; }

 private:
  // States as the denoiser takes them, with what it is told of the size.
  unet::Conditioning conditioning(const text::PromptStates& states, const GuidanceOptions& guidance, ImageSize size,
                                  bool is_negative) const;
  at::Tensor time_ids(ImageSize size, bool is_negative) const;
  schedulers::SchedulerConfig sampler_config(bool is_switch) const;

  PipelineComponents components_;
};

// pixel_values [B, 3, H, W], about [-1, 1] -> uint8 [B, H, W, 3] on the CPU.
at::Tensor to_images(const at::Tensor& pixel_values);

}  // namespace prefusion::pipelines
