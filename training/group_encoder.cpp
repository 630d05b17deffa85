#include "training/group_encoder.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/device.h"
#include "core/error.h"
#include "core/json_config.h"
#include "core/step_clock.h"
#include "data/buckets.h"
#include "data/mask.h"
#include "nn/layers.h"
#include "pipelines/load_prompt_encoder.h"
#include "training/prompt_options.h"
#include "training/weights_key.h"
#include "unet/denoiser.h"

namespace prefusion::training {
namespace {

// The pixel size the model was made for: the denoiser's sample size times the VAE's factor.
int64_t native_resolution(const AlignOptions& options, const vae::AutoencoderKL& vae) {
  const Json config = read_json(unet::denoiser_folder(options.model) / "config.json");
  const Json size = config.value("sample_size", Json(64));
  return (size.is_array() ? size.at(0).get<int64_t>() : size.get<int64_t>()) * vae.scale_factor_px();
}

}  // namespace

GroupEncoder::GroupEncoder(const AlignOptions& options, at::ScalarType dtype, at::Device device, int64_t size_multiple)
    : device_(device), vae_(vae::load_autoencoder(options.model / "vae", dtype, device)) {
  const pipelines::ModelIndex index = pipelines::read_model_index(options.model);
  time_ids_ = time_ids_of(index.family, options.model);
  prompt_encoder_ = pipelines::load_prompt_encoder(options.model, index, dtype, device, prompt_options(options));
  transform_ = {.resolution = options.resolution > 0 ? options.resolution : native_resolution(options, *vae_),
                .random_crop = options.random_crop,
                .hflip = !options.no_hflip,
                .buckets = {}};
  const int64_t multiple = vae_->scale_factor_px() * size_multiple;
  if (!options.buckets) {
    check_usage(transform_.resolution % multiple == 0, "--resolution ", transform_.resolution,
                " must be a multiple of ", multiple, ", the VAE's factor times the denoiser's patch size");
    return;
  }
  check_usage(options.bucket_reso_steps % multiple == 0, "--bucket-reso-steps ", options.bucket_reso_steps,
              " must be a multiple of ", multiple, ", the VAE's factor times the denoiser's patch size");
  transform_.buckets = data::bucket_sizes({.resolution = transform_.resolution,
                                           .step = options.bucket_reso_steps,
                                           .shortest = options.min_bucket_reso,
                                           .longest = options.max_bucket_reso});
}

GroupEncoder::TimeIds GroupEncoder::time_ids_of(pipelines::ModelFamily family, const std::filesystem::path& model) {
  if (family == pipelines::ModelFamily::kStableDiffusionXl) return TimeIds::kSizeAndCrop;
  if (family != pipelines::ModelFamily::kPixArtAlpha && family != pipelines::ModelFamily::kPixArtSigma) {
    return TimeIds::kNone;
  }
  const Json config = read_json(unet::denoiser_folder(model) / "config.json");
  const Json uses_size = config.value("use_additional_conditions", Json());
  const bool is_told = uses_size.is_null() ? config.value("sample_size", 128) == 128 : uses_size == Json(true);
  return is_told ? TimeIds::kSize : TimeIds::kNone;
}

EncodedPictures GroupEncoder::encode_pictures(const at::Tensor& pixel_values) {
  const TimedPart vae(StepPart::kVae);
  at::NoGradGuard no_grad;
  // The encoder's activations at full resolution are large; a CPU is busy with one picture.
  const int64_t at_once = device_.is_cpu() ? 1 : pixel_values.size(0);
  std::vector<at::Tensor> means, stds;
  for (const at::Tensor& part : pixel_values.split(at_once)) {
    const auto posterior = vae_->encode(to_device(part, device_));
    means.push_back(posterior.mean.to(at::kFloat));
    stds.push_back(posterior.std.to(at::kFloat));
  }
  return {at::cat(means), at::cat(stds)};
}

at::Tensor GroupEncoder::encode_masks(const at::Tensor& masks) const {
  return to_device(data::average_masks(masks, scale_factor_px()), device_);
}

text::PromptStates GroupEncoder::encode_prompts(const std::vector<std::string>& prompts) {
  const TimedPart text(StepPart::kText);
  return prompt_encoder_->encode(prompts);
}

at::Tensor GroupEncoder::time_ids(const data::ImageGeometry& geometry) const {
  const auto& [height, width] = geometry.target;
  if (time_ids_ == TimeIds::kSize) {
    const double ratio = static_cast<double>(height) / static_cast<double>(width);
    return at::tensor({static_cast<double>(height), static_cast<double>(width), ratio}, at::kFloat);
  }
  return at::tensor(
      {geometry.original_height, geometry.original_width, geometry.crop_top, geometry.crop_left, height, width},
      at::kLong);
}

at::Tensor GroupEncoder::example_time_ids() const {
  if (!uses_time_ids()) return {};
  const images::PictureSize size = example_size();
  return time_ids({.original_height = size.height, .original_width = size.width, .target = size});
}

images::PictureSize GroupEncoder::example_size() const {
  images::PictureSize largest = transform_.buckets.empty() ? transform_.square() : transform_.buckets.front();
  for (const auto& bucket : transform_.buckets) {
    if (bucket.height * bucket.width > largest.height * largest.width) largest = bucket;
  }
  return largest;
}

void GroupEncoder::rehearse(int64_t num_pictures) {
  const images::PictureSize size = example_size();
  encode_pictures(at::zeros({num_pictures, 3, size.height, size.width}));
  encode_prompts({""});
}

LatentScaling GroupEncoder::scaling() const {
  return {.scale = vae_->config().scaling_factor, .shift = vae_->config().shift_factor};
}

std::vector<int64_t> GroupEncoder::latent_shape() const {
  const auto [height, width] = example_size();
  return {vae_->config().latent_channels, height / vae_->scale_factor_px(), width / vae_->scale_factor_px()};
}

std::string GroupEncoder::vae_key() const {
  return weights_key("AutoencoderKL, version 1", nn::tensor_map(*vae_));
}

bool drops_caption(double empty_prompt_rate, const DrawKey& key) {
  return CounterRng(key, RandomPurpose::kCaptionDrop).uniform() < empty_prompt_rate;
}

}  // namespace prefusion::training
