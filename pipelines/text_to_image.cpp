#include "pipelines/text_to_image.h"

#include <ATen/ATen.h>

#include <cstdio>
#include <numeric>
#include <utility>

#include "core/error.h"
#include "core/host_memory.h"
#include "core/json_config.h"
#include "kernels/attention/attention.h"
#include "pipelines/load_prompt_encoder.h"
#include "pipelines/model_index.h"
#include "pipelines/sampling_run.h"
#include "unet/graphed_denoiser.h"

namespace prefusion::pipelines {
namespace {

// diffusers corrects scheduler files from the time before these fields existed when it builds the pipeline: offset 1
// and no clipping, for latents are not bounded by 1. Switching to another sampler copies only what the file itself
// says.
schedulers::SchedulerConfig corrected(schedulers::SchedulerConfig config, bool is_switch) {
  if (config.steps_offset || !is_switch) config.steps_offset = 1;
  if (config.clip_sample || !is_switch) config.clip_sample = false;
  return config;
}

// diffusers takes a sample size below 64 for a mistake in models older than its release 0.9.
ImageSize default_size(const std::filesystem::path& model_dir, const unet::DenoiserInfo& info, int64_t factor) {
  const std::string version =
      read_json(unet::denoiser_folder(model_dir) / "config.json").value("_diffusers_version", "1.0");
  int major = 1;
  int minor = 0;
  std::sscanf(version.c_str(), "%d.%d", &major, &minor);
  const bool is_old = major == 0 && minor < 9;
  if (is_old && info.sample_size == info.sample_width && info.sample_size < 64) return {64 * factor, 64 * factor};
  return {info.sample_size * factor, info.sample_width * factor};
}

// The decoder's activations are of other sizes than the denoiser's, whose freed blocks seldom hold them: kept beside
// them they would be peak memory. Of small pictures they are nothing, and returning memory takes its time.
void release_sampling_memory(const at::Tensor& latents) {
  constexpr int64_t kManyLatents = 48 * 48;
  if (latents.is_cpu() && latents.size(2) * latents.size(3) >= kManyLatents) release_freed_memory();
}

}  // namespace

TextToImage TextToImage::load(const std::filesystem::path& model_dir, at::ScalarType dtype, at::Device device,
                              const PipelineLoadOptions& options) {
  const ModelIndex index = read_model_index(model_dir, PipelineUse::kAny);
  PipelineComponents components;
  components.family = index.family;
  components.tells_aesthetic_score = index.tells_aesthetic_score;
  components.scheduler_config = schedulers::read_scheduler_config(model_dir);
  if (!index.scheduler_class.empty()) components.scheduler_config.class_name = index.scheduler_class;
  text::PromptEncoderOptions prompt_options = options.prompts;
  prompt_options.streams_weights = options.streams_weights;
  components.prompt_encoder = load_prompt_encoder(model_dir, index, dtype, device, prompt_options);
  const auto load_denoiser = options.streams_weights ? unet::load_streamed_denoiser : unet::load_denoiser;
  components.denoiser = load_denoiser(unet::denoiser_folder(model_dir), dtype, device);
  if (options.uses_graphs) {
    components.graphed_denoiser = std::make_shared<unet::GraphedDenoiser>(components.denoiser);
  }
  components.autoencoder = vae::load_autoencoder(model_dir / "vae", dtype, device);
  if (index.family == ModelFamily::kStableDiffusion) {
    components.default_size =
        default_size(model_dir, components.denoiser->info(), components.autoencoder->scale_factor_px());
  }
  return TextToImage(std::move(components));
}

TextToImage::TextToImage(PipelineComponents components) : components_(std::move(components)) {
  const unet::DenoiserInfo& info = components_.denoiser->info();
  const int64_t channels = components_.autoencoder->config().latent_channels;
  check_input(info.in_channels == channels || is_inpainting(), "the denoiser takes ", info.in_channels,
              " channels, the autoencoder makes ", channels,
              "; only text-to-image models and inpainting models (as many for the masked picture, and the mask) are "
              "supported");
  check_input(info.out_channels == channels || info.out_channels == 2 * channels, "the denoiser gives ",
              info.out_channels, " channels, expected ", channels);
  const text::PromptWidths widths = components_.prompt_encoder->widths();
  check_input(info.cross_attention_dim == widths.states, "the denoiser's cross_attention_dim is ",
              info.cross_attention_dim, ", the text encoder's hidden_size is ", widths.states, "; they must be equal");
  check_input(
      !info.uses_pooled || widths.pooled > 0,
      "the denoiser is conditioned on pooled text states, which the text encoders of this pipeline do not make");
  check_input(info.pooled_dim == 0 || info.pooled_dim == widths.pooled,
              "the denoiser takes pooled text states of width ", info.pooled_dim, ", the text encoders make ",
              widths.pooled, "; they must be equal");
  const int64_t found_ids = components_.denoiser->num_time_ids(widths.pooled);
  const auto expected_ids = time_ids({1, 1}, /*is_negative=*/false).numel();
  check_input(found_ids == expected_ids, "the denoiser takes ", found_ids, " time ids, this pipeline gives ",
              expected_ids);
  ImageSize& size = components_.default_size;
  const int64_t factor = components_.autoencoder->scale_factor_px();
  if (size.height_px == 0) size.height_px = info.sample_size * factor;
  if (size.width_px == 0) size.width_px = info.sample_width * factor;
}

bool TextToImage::is_inpainting() const {
  // FLUX.1 Fill sees the mask in all its pixels, others at the size of the latents.
  const int64_t factor = components_.autoencoder->scale_factor_px();
  const int64_t mask_channels = components_.family == ModelFamily::kFlux ? factor * factor : 1;
  const int64_t latent_channels = components_.autoencoder->config().latent_channels;
  return components_.denoiser->info().in_channels == 2 * latent_channels + mask_channels;
}

int64_t TextToImage::size_unit_px() const {
  return std::lcm(int64_t{8}, components_.autoencoder->scale_factor_px() * components_.denoiser->info().size_multiple);
}

ImageSize TextToImage::image_size(const GenerateOptions& options) const {
  const int64_t unit = size_unit_px();
  const auto choose = [&](const char* flag, int64_t given, int64_t fallback) {
    if (given == 0) return fallback;
    constexpr int64_t kLargest = 16384;
    check_usage(given > 0 && given <= kLargest && given % unit == 0, flag, " ", given, " is not a multiple of ", unit,
                " between ", unit, " and ", kLargest, " pixels");
    return given;
  };
  return {choose("--height", options.height_px, components_.default_size.height_px),
          choose("--width", options.width_px, components_.default_size.width_px)};
}

std::unique_ptr<schedulers::Scheduler> TextToImage::make_scheduler(const GenerateOptions& options) const {
  schedulers::SchedulerConfig config = sampler_config(/*is_switch=*/options.scheduler != "auto");
  check_usage(options.eta >= 0 && options.eta <= 1, "--eta must be between 0 and 1, found ", options.eta);
  config.eta = options.eta;
  auto scheduler = schedulers::make_scheduler(options.scheduler, config);
  const std::vector<int64_t> latents = latent_shape(image_size(options));
  const int64_t patch = components_.denoiser->info().size_multiple;
  scheduler->set_image_tokens((latents[1] / patch) * (latents[2] / patch));
  return scheduler;
}

schedulers::StochasticDdim TextToImage::stochastic_ddim() const {
  const unet::DenoiserInfo& info = components_.denoiser->info();
  const bool is_stable_diffusion = components_.family == ModelFamily::kStableDiffusion;
  check_input(!is_stable_diffusion || info.out_channels == info.in_channels, "the denoiser gives ", info.out_channels,
              " channels for ", info.in_channels, "; policies whose variance is learned are not supported");
  schedulers::SchedulerConfig config = sampler_config(/*is_switch=*/true);
  // Latents are not bounded by 1, which the file of a sampler that never clips need not say.
  if (!is_stable_diffusion && !config.clip_sample) config.clip_sample = false;
  return schedulers::StochasticDdim(config);
}

// Pipelines after Stable Diffusion's take the file as it is.
schedulers::SchedulerConfig TextToImage::sampler_config(bool is_switch) const {
  if (components_.family == ModelFamily::kFlux) {
    schedulers::SchedulerConfig config = components_.scheduler_config;
    config.sigmas_linear = true;
    return config;
  }
  if (components_.family != ModelFamily::kStableDiffusion) return components_.scheduler_config;
  return corrected(components_.scheduler_config, is_switch);
}

std::vector<int64_t> TextToImage::latent_shape(ImageSize size) const {
  const int64_t factor = components_.autoencoder->scale_factor_px();
  return {components_.autoencoder->config().latent_channels, size.height_px / factor, size.width_px / factor};
}

at::Tensor TextToImage::generate_latents(const std::vector<ImageRequest>& requests, const GenerateOptions& options) {
  SamplingRun run(*this, requests, options);
  while (!run.is_done()) run.step();
  return run.latents();
}

at::Tensor TextToImage::decode(const at::Tensor& latents) {
  const at::NoGradGuard no_grad;
  const kernels::ForwardOnly forward_only;
  release_sampling_memory(latents);
  std::vector<at::Tensor> images;
  for (const at::Tensor& item : latents.split(1)) {
    const at::Tensor pixel_values = components_.autoencoder->decode(item);
    check_run(pixel_values.isfinite().all().item<bool>(),
              "a picture came out with values that are not finite; use --dtype fp32 or another --scheduler");
    images.push_back(to_images(pixel_values));
  }
  return at::cat(images);
}

at::Tensor TextToImage::generate(const std::vector<ImageRequest>& requests, const GenerateOptions& options) {
  return decode(generate_latents(requests, options));
}

at::Tensor to_images(const at::Tensor& pixel_values) {
  const at::Tensor unit = (pixel_values.to(at::kFloat) * 0.5 + 0.5).clamp(0, 1);
  return (unit.permute({0, 2, 3, 1}) * 255).round().to(at::kByte).contiguous().cpu();
}

}  // namespace prefusion::pipelines
