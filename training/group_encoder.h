#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "core/rng.h"
#include "data/transform.h"
#include "pipelines/model_index.h"
#include "text/prompt_encoder.h"
#include "training/align_options.h"
#include "training/train_step.h"
#include "vae/autoencoder_kl.h"

namespace prefusion::training {

// Unscaled posterior of pictures: mean and std, each [N, C, h, w] fp32.
struct EncodedPictures {
  at::Tensor mean;
  at::Tensor std;
};

// The frozen encoders of a run.
class GroupEncoder {
 public:
  // `size_multiple`: that of the denoiser, which sizes of latents must be multiples of.
  GroupEncoder(const AlignOptions& options, at::ScalarType dtype, at::Device device, int64_t size_multiple = 1);

  // pixel_values [N, 3, H, W] in [-1, 1].
  EncodedPictures encode_pictures(const at::Tensor& pixel_values);
  // Masks at the size of latents: uint8 [..., H, W] to fp32 [..., 1, h, w] in [0, 1].
  at::Tensor encode_masks(const at::Tensor& masks) const;
  text::PromptStates encode_prompts(const std::vector<std::string>& prompts);
  // Whether the model is told of each picture's size, and what. SDXL: original height and width, top and left of the
  // crop, target height and width, in pixels (int64); PixArt-alpha of 1024 pixels: height, width and their ratio
  // (fp32).
  bool uses_time_ids() const { return time_ids_ != TimeIds::kNone; }
  at::Tensor time_ids(const data::ImageGeometry& geometry) const;  // [n]
  at::Tensor example_time_ids() const;  // of a picture that fits as it is; undefined where there are none
  at::ScalarType time_ids_dtype() const { return time_ids_ == TimeIds::kSize ? at::kFloat : at::kLong; }

  // Encodes grey pictures of the largest size and a prompt, for what that takes.
  void rehearse(int64_t num_pictures);

  at::Device device() const { return device_; }
  const data::TransformOptions& transform() const { return transform_; }
  LatentScaling scaling() const;
  std::vector<int64_t> latent_shape() const;  // of one picture: [C, h, w]; of the largest bucket
  int64_t scale_factor_px() const { return vae_->scale_factor_px(); }
  // Whatever latents and text states depend on besides picture and prompt, for cache keys.
  std::string vae_key() const;
  std::string text_key() const { return prompt_encoder_->content_key(); }

 private:
  at::Device device_;
  std::shared_ptr<vae::AutoencoderKL> vae_;
  enum class TimeIds { kNone, kSizeAndCrop, kSize };
  images::PictureSize example_size() const;
  static TimeIds time_ids_of(pipelines::ModelFamily family, const std::filesystem::path& model);

  TimeIds time_ids_ = TimeIds::kNone;
  std::shared_ptr<text::PromptEncoder> prompt_encoder_;
  data::TransformOptions transform_;
};

// Whether this draw of a group trains on the empty prompt.
bool drops_caption(double empty_prompt_rate, const DrawKey& key);

}  // namespace prefusion::training
