#include "pipelines/text_to_image.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <numeric>
#include <utility>

#include "core/error.h"
#include "core/json_config.h"
#include "core/logging.h"
#include "pipelines/load_prompt_encoder.h"
#include "pipelines/model_index.h"
#include "pipelines/sampling_run.h"

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

// A row for each text; every distinct one is encoded once.
template <typename Encode>
text::PromptStates encode_texts(const Encode& encode, const std::vector<std::string>& texts) {
  std::vector<std::string> distinct;
  std::map<std::string, int64_t> positions;
  std::vector<int64_t> order;
  for (const std::string& text : texts) {
    const auto [entry, is_new] = positions.try_emplace(text, static_cast<int64_t>(distinct.size()));
    if (is_new) distinct.push_back(text);
    order.push_back(entry->second);
  }
  const text::PromptStates states = encode(distinct);
  const at::Tensor rows = at::tensor(order, at::kLong).to(states.encoder_hidden_states.device());
  return states.map([&](const at::Tensor& part) { return part.index_select(0, rows); });
}

}  // namespace

TextToImage TextToImage::load(const std::filesystem::path& model_dir, at::ScalarType dtype, at::Device device,
                              const text::PromptEncoderOptions& prompt_options) {
  const ModelIndex index = read_model_index(model_dir);
  PipelineComponents components;
  components.family = index.family;
  components.scheduler_config = schedulers::read_scheduler_config(model_dir);
  if (!index.scheduler_class.empty()) components.scheduler_config.class_name = index.scheduler_class;
  components.prompt_encoder = load_prompt_encoder(model_dir, index, dtype, device, prompt_options);
  components.denoiser = unet::load_denoiser(unet::denoiser_folder(model_dir), dtype, device);
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
  check_input(info.in_channels == channels, "the denoiser takes ", info.in_channels,
              " channels, the autoencoder makes ", channels, "; only text-to-image models are supported");
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
  const auto expected_ids = time_ids({1, 1}).numel();
  check_input(found_ids == expected_ids, "the denoiser takes ", found_ids, " time ids, this pipeline gives ",
              expected_ids);
  ImageSize& size = components_.default_size;
  const int64_t factor = components_.autoencoder->scale_factor_px();
  if (size.height_px == 0) size.height_px = info.sample_size * factor;
  if (size.width_px == 0) size.width_px = info.sample_width * factor;
}

ImageSize TextToImage::image_size(const GenerateOptions& options) const {
  const int64_t unit =
      std::lcm(int64_t{8}, components_.autoencoder->scale_factor_px() * components_.denoiser->info().size_multiple);
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
  check_input(info.out_channels == info.in_channels, "the denoiser gives ", info.out_channels, " channels for ",
              info.in_channels, "; policies whose variance is learned are not supported");
  return schedulers::StochasticDdim(sampler_config(/*is_switch=*/true));
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
  return {components_.denoiser->info().in_channels, size.height_px / factor, size.width_px / factor};
}

GuidedConditioning TextToImage::encode(const std::vector<std::string>& prompts,
                                       const std::vector<std::string>& negative_prompts,
                                       const GuidanceOptions& guidance, ImageSize size) {
  const at::NoGradGuard no_grad;
  text::PromptEncoder& encoder = *components_.prompt_encoder;
  const auto encode_prompts = [&](const auto& texts) { return encoder.encode(texts); };
  const auto encode_negative = [&](const auto& texts) { return encoder.encode_negative(texts); };
  GuidedConditioning result;
  result.prompt = conditioning(encode_texts(encode_prompts, prompts), guidance, size);
  const bool has_negative = std::any_of(negative_prompts.begin(), negative_prompts.end(),
                                        [](const std::string& prompt) { return !prompt.empty(); });
  if (components_.family == ModelFamily::kFlux && has_negative) {
    log_warn("this model is distilled under guidance: negative prompts have no effect");
  }
  if (asked_twice(guidance).is_active()) {
    result.negative = conditioning(encode_texts(encode_negative, negative_prompts), guidance, size);
  }
  return result;
}

GuidanceOptions TextToImage::asked_twice(const GuidanceOptions& guidance) const {
  return components_.family == ModelFamily::kFlux ? GuidanceOptions{.scale = 1.0} : guidance;
}

unet::Conditioning TextToImage::conditioning(const text::PromptStates& states, const GuidanceOptions& guidance,
                                             ImageSize size) const {
  const at::ScalarType dtype = components_.denoiser->parameters().front().scalar_type();
  const at::Tensor& hidden = states.encoder_hidden_states;
  unet::Conditioning result{.encoder_hidden_states = hidden.to(dtype), .encoder_mask = states.encoder_mask};
  if (states.pooled.defined()) result.pooled = states.pooled.to(dtype);
  if (const at::Tensor ids = time_ids(size); ids.numel() > 0) {
    result.time_ids = ids.to(hidden.device(), dtype).expand({hidden.size(0), -1});
  }
  if (components_.denoiser->info().uses_guidance) {
    result.guidance = at::full({hidden.size(0)}, guidance.scale, hidden.options().dtype(at::kFloat));
  }
  return result;
}

at::Tensor TextToImage::time_ids(ImageSize size) const {
  const auto height = static_cast<double>(size.height_px);
  const auto width = static_cast<double>(size.width_px);
  // Original size, place of the crop, target size: the picture is whole and of the size asked for.
  if (components_.family == ModelFamily::kStableDiffusionXl) {
    return at::tensor({height, width, 0.0, 0.0, height, width}, at::kDouble);
  }
  if (components_.denoiser->info().uses_time_ids) return at::tensor({height, width, height / width}, at::kDouble);
  return at::empty({0}, at::kDouble);
}

at::Tensor TextToImage::generate_latents(const std::vector<ImageRequest>& requests, const GenerateOptions& options) {
  SamplingRun run(*this, requests, options);
  while (!run.is_done()) run.step();
  return run.latents();
}

at::Tensor TextToImage::decode(const at::Tensor& latents) {
  const at::NoGradGuard no_grad;
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
  return (unit.cpu().permute({0, 2, 3, 1}) * 255).round().to(at::kByte).contiguous();
}

}  // namespace prefusion::pipelines
