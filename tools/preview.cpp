#include "tools/preview.h"

#include <ATen/ATen.h>

#include "core/atomic_file.h"
#include "core/error.h"
#include "images/image_encode.h"

namespace prefusion::tools {

Preview::Preview(const PreviewOptions& options, pipelines::TextToImage& pipeline, at::ScalarType dtype,
                 at::Device device)
    : options_(options), pipeline_(&pipeline) {
  check_usage(options.decoder.empty() || !options.file.empty(), "--preview-vae needs --preview FILE.png to draw on");
  if (options.file.empty()) return;
  check_usage(options.file.extension() == ".png", "--preview ", options.file.string(), ": must be a FILE.png");
  check_usage(options.every >= 1, "--preview-every must be at least 1, found ", options.every);
  if (options.decoder.empty()) return;
  decoder_ = vae::load_tiny_decoder(options.decoder, dtype, device);
  const vae::AutoencoderKL& autoencoder = *pipeline.components().autoencoder;
  const int64_t channels = autoencoder.config().latent_channels;
  check_input(
      decoder_->config().latent_channels == channels && decoder_->scale_factor_px() == autoencoder.scale_factor_px(),
      "--preview-vae ", options.decoder.string(), ": decodes ", decoder_->config().latent_channels,
      " channels, each latent to ", decoder_->scale_factor_px(), " pixels; the model's latents have ", channels,
      " channels and stand for ", autoencoder.scale_factor_px(), " pixels");
}

void Preview::update(const pipelines::SamplingRun& run) const {
  const bool is_due = run.position() % static_cast<size_t>(options_.every) == 0 || run.is_done();
  if (options_.file.empty() || !is_due) return;
  const at::NoGradGuard no_grad;
  const at::Tensor latents = run.predicted_clean();
  const at::Tensor images =
      decoder_ ? pipelines::to_images(decoder_->decode(latents).nan_to_num()) : pipeline_->decode(latents);
  write_file(options_.file, images::encode_png(at::cat(images.unbind(0), 1).contiguous()));
}

}  // namespace prefusion::tools
