#pragma once

#include <memory>

#include "pipelines/text_to_image.h"
#include "training/align_options.h"
#include "training/policy.h"

namespace prefusion::training {

// Pictures of the same prompts and seeds at several points of a run: OUTPUT/samples/step-NNNNNN/000.png ...
class SamplePictures {
 public:
  // Loads the model's VAE and text encoder beside the denoiser being trained. A policy that knows users draws for the
  // empty one.
  SamplePictures(const AlignOptions& options, const Policy& policy, at::ScalarType dtype, at::Device device);

  void write(int64_t step);

 private:
  const AlignOptions& options_;
  std::shared_ptr<const nn::UserAdapter> users_;
  pipelines::TextToImage pipeline_;
  std::vector<std::string> prompts_;
};

}  // namespace prefusion::training
