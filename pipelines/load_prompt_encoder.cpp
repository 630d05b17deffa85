#include "pipelines/load_prompt_encoder.h"

#include "core/error.h"
#include "core/json_config.h"
#include "text/class_label_encoder.h"
#include "text/flux_prompt_encoder.h"
#include "text/pixart_prompt_encoder.h"
#include "text/sd3_prompt_encoder.h"
#include "text/sd_prompt_encoder.h"
#include "text/sdxl_prompt_encoder.h"

namespace prefusion::pipelines {
namespace {

// Before the denoiser is there: how wide the states are that it takes.
int64_t joint_attention_dim(const std::filesystem::path& model_dir) {
  ConfigReader reader = ConfigReader::from_file(model_dir / "transformer" / "config.json");
  return reader.get<int64_t>("joint_attention_dim", 4096);
}

int64_t num_classes(const std::filesystem::path& model_dir) {
  ConfigReader reader = ConfigReader::from_file(model_dir / "transformer" / "config.json");
  return reader.get<int64_t>("num_embeds_ada_norm", 1000);
}

}  // namespace

std::shared_ptr<text::PromptEncoder> load_prompt_encoder(const std::filesystem::path& model_dir,
                                                         const ModelIndex& index, at::ScalarType dtype,
                                                         at::Device device, const text::PromptEncoderOptions& options) {
  using text::PromptEncoder;
  const auto shared = [](auto encoder) -> std::shared_ptr<PromptEncoder> {
    return std::make_shared<decltype(encoder)>(std::move(encoder));
  };
  const bool has_clip_alone =
      index.family == ModelFamily::kStableDiffusion || index.family == ModelFamily::kStableDiffusionXl;
  check_usage(has_clip_alone || options.syntax == text::PromptSyntax::kPlain,
              "weights in prompts (--prompt-syntax weighted) are for Stable Diffusion 1.x, 2.x and SDXL, not for ",
              index.class_name);
  const char* instead = index.family == ModelFamily::kDit ? " takes names of classes" : " reads long prompts by T5";
  check_usage(has_clip_alone || options.long_prompts == text::LongPrompts::kTruncate, "--long-prompts ",
              text::long_prompts_name(options.long_prompts), " is for Stable Diffusion 1.x, 2.x and SDXL; ",
              index.class_name, instead);
  check_usage(options.long_prompts != text::LongPrompts::kSegments || options.syntax == text::PromptSyntax::kPlain,
              "--long-prompts segments does not go with --prompt-syntax weighted: sentences are cut out of plain text");
  switch (index.family) {
    case ModelFamily::kStableDiffusion: return shared(text::SdPromptEncoder::load(model_dir, dtype, device, options));
    case ModelFamily::kStableDiffusionXl:
      return shared(text::SdxlPromptEncoder::load(model_dir, dtype, device, index.has_first_encoder,
                                                  index.zeros_for_no_negative_prompt, options));
    case ModelFamily::kStableDiffusion3:
      return shared(text::Sd3PromptEncoder::load(model_dir, dtype, device, index.has_t5, joint_attention_dim(model_dir),
                                                 options));
    case ModelFamily::kFlux: return shared(text::FluxPromptEncoder::load(model_dir, dtype, device, options));
    case ModelFamily::kPixArtAlpha:
      return shared(text::PixArtPromptEncoder::load(model_dir, dtype, device, /*max_tokens=*/120, options));
    case ModelFamily::kPixArtSigma:
      return shared(text::PixArtPromptEncoder::load(model_dir, dtype, device, /*max_tokens=*/300, options));
    case ModelFamily::kDit:
      check_usage(options.clip_skip == 0, "clip skip ", options.clip_skip, ": DiT has no CLIP encoder; leave it out");
      return shared(text::ClassLabelEncoder(index.class_labels, num_classes(model_dir), dtype, device));
  }
  fail_run("no text encoders for this family of models");
}

}  // namespace prefusion::pipelines
