#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>

#include "pipelines/sampling_run.h"
#include "vae/tiny_decoder.h"

namespace prefusion::tools {

struct PreviewOptions {
  std::filesystem::path file;     // FILE.png; empty: no preview
  int64_t every = 5;              // denoiser calls
  std::filesystem::path decoder;  // folder of an AutoencoderTiny; empty: the model's own autoencoder
};

// What a batch that is being sampled will look like: the clean latents each call points to, as one PNG that is replaced
// whole, so that a viewer never sees half of it.
class Preview {
 public:
  // Usage error for a name that is no .png, input error for a decoder of other latents. `pipeline` must outlive this.
  Preview(const PreviewOptions& options, pipelines::TextToImage& pipeline, at::ScalarType dtype, at::Device device);

  // To be called after every step of a run.
  void update(const pipelines::SamplingRun& run) const;

 private:
  PreviewOptions options_;
  pipelines::TextToImage* pipeline_;
  std::shared_ptr<vae::TinyDecoder> decoder_;  // null: the model's own
};

}  // namespace prefusion::tools
