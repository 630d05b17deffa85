#include "pipelines/load_prompt_encoder.h"

#include "core/error.h"
#include "text/sd_prompt_encoder.h"
#include "text/sdxl_prompt_encoder.h"

namespace prefusion::pipelines {

std::shared_ptr<text::PromptEncoder> load_prompt_encoder(const std::filesystem::path& model_dir,
                                                         const ModelIndex& index, at::ScalarType dtype,
                                                         at::Device device, const text::PromptEncoderOptions& options) {
  switch (index.family) {
    case ModelFamily::kStableDiffusion:
      return std::make_shared<text::SdPromptEncoder>(text::SdPromptEncoder::load(model_dir, dtype, device, options));
    case ModelFamily::kStableDiffusionXl:
      return std::make_shared<text::SdxlPromptEncoder>(
          text::SdxlPromptEncoder::load(model_dir, dtype, device, index.zeros_for_no_negative_prompt, options));
  }
  fail_run("no text encoders for this family of models");
}

}  // namespace prefusion::pipelines
