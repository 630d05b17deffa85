#include "tools/bench_pipeline.h"

#include <ATen/ATen.h>

#include <utility>

#include "core/error.h"
#include "core/json_config.h"
#include "pipelines/model_index.h"
#include "schedulers/scheduler_config.h"
#include "tools/bench_denoiser.h"
#include "vae/autoencoder_kl.h"

namespace prefusion::tools {
namespace {

// Says the same of every prompt: what it is given.
class FixedPromptEncoder : public text::PromptEncoder {
 public:
  explicit FixedPromptEncoder(text::PromptStates states) : states_(std::move(states)) {}

  int64_t truncated_tokens(const std::string&) const override { return 0; }
  text::PromptWidths widths() const override {
    return {.states = states_.encoder_hidden_states.size(1),
            .pooled = states_.pooled.defined() ? states_.pooled.size(0) : 0};
  }
  text::ClipModels clip_models() const override { return {}; }

 private:
  text::PromptStates encode_prompts(const std::vector<std::string>& prompts, int64_t) override {
    return text::stack_states(std::vector<text::PromptStates>(prompts.size(), states_));
  }
  text::PromptStates encode_negative_prompts(const std::vector<std::string>& prompts, int64_t least) override {
    return encode_prompts(prompts, least);
  }
  std::string compute_content_key() const override { return ""; }

  text::PromptStates states_;
};

std::shared_ptr<text::PromptEncoder> random_prompts(const unet::DenoiserInfo& info, const BenchOptions& options) {
  check_usage(!info.is_class_conditional, "bench generate --random-weights: ", info.class_name,
              " is conditioned on classes, which random text states are not");
  const auto like = at::TensorOptions().device(options.device).dtype(options.dtype);
  text::PromptStates states{.encoder_hidden_states = at::randn({options.num_tokens, info.cross_attention_dim}, like)};
  if (info.uses_pooled) {
    states.pooled = at::randn({info.pooled_dim > 0 ? info.pooled_dim : options.pooled_width}, like);
  }
  return std::make_shared<FixedPromptEncoder>(states);
}

std::shared_ptr<vae::AutoencoderKL> random_autoencoder(const BenchOptions& options) {
  const auto config = options.model / "vae" / "config.json";
  auto autoencoder = vae::make_autoencoder(read_json(config).dump(), config.string());
  const bool is_upcast = options.dtype == at::kHalf && autoencoder->config().force_upcast;
  randomise(*autoencoder, is_upcast ? at::kFloat : options.dtype, options.device);
  return autoencoder;
}

}  // namespace

pipelines::TextToImage open_bench_pipeline(const BenchOptions& options) {
  if (!options.random_weights) return pipelines::TextToImage::load(options.model, options.dtype, options.device);
  const at::NoGradGuard no_grad;
  const pipelines::ModelIndex index = pipelines::read_model_index(options.model);
  pipelines::PipelineComponents components{.family = index.family};
  components.denoiser = open_bench_denoiser(options);
  components.autoencoder = random_autoencoder(options);
  components.prompt_encoder = random_prompts(components.denoiser->info(), options);
  components.scheduler_config = schedulers::read_scheduler_config(options.model);
  if (!index.scheduler_class.empty()) components.scheduler_config.class_name = index.scheduler_class;
  return pipelines::TextToImage(std::move(components));
}

}  // namespace prefusion::tools
