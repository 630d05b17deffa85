#include "training/text_policy.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <optional>

#include "core/error.h"
#include "pipelines/load_prompt_encoder.h"
#include "training/prompt_options.h"

namespace prefusion::training {
namespace {

nn::LoraConfig adapter_config(const AlignOptions& options) {
  const int64_t rank = options.text_encoder_rank > 0 ? options.text_encoder_rank : options.rank;
  return {.rank = rank,
          .alpha = options.text_encoder_alpha > 0 ? options.text_encoder_alpha : static_cast<double>(rank),
          .target_modules = {"q_proj", "k_proj", "v_proj", "out_proj"},
          .timestep_range = std::nullopt};
}

}  // namespace

std::shared_ptr<TextPolicy> TextPolicy::make(const AlignOptions& options, at::ScalarType dtype, at::Device device,
                                             at::Generator generator) {
  auto policy = std::make_shared<TextPolicy>();
  const pipelines::ModelIndex index = pipelines::read_model_index(options.model);
  policy->encoder_ = pipelines::load_prompt_encoder(options.model, index, dtype, device, prompt_options(options));
  check_usage(policy->encoder_->can_be_trained(), "--train-text-encoder: ", options.model.string(),
              " is not of Stable Diffusion 1.x, 2.x or XL; the text encoders of other families are not trained");
  const auto add = [&](const std::shared_ptr<text::ClipTextModel>& model) -> std::shared_ptr<nn::LoraAdapter> {
    if (!model) return nullptr;
    model->set_gradient_checkpointing(options.gradient_checkpointing);
    return nn::LoraAdapter::create(*model, adapter_config(options), generator);
  };
  const text::ClipModels models = policy->encoder_->clip_models();
  policy->first_ = add(models.text_encoder);
  policy->second_ = add(models.text_encoder_2);
  return policy;
}

text::PromptStates TextPolicy::encode_start(const std::vector<std::string>& prompts) {
  std::optional<nn::AdapterOff> first_off, second_off;
  if (first_) first_off.emplace(*first_);
  if (second_) second_off.emplace(*second_);
  return encoder_->encode(prompts);
}

std::vector<NamedTensor> TextPolicy::parameters() const {
  std::vector<NamedTensor> all;
  const auto add = [&all](const char* component, const nn::LoraAdapter* adapter) {
    if (!adapter) return;
    for (const auto& [name, tensor] : adapter->parameters()) all.push_back({concat(component, ".", name), tensor});
  };
  add("text_encoder", first());
  add("text_encoder_2", second());
  return all;
}

size_t TextPolicy::weight_bytes() const {
  size_t bytes = 0;
  const text::ClipModels models = encoder_->clip_models();
  for (const auto& model : {models.text_encoder, models.text_encoder_2}) {
    if (!model) continue;
    for (const auto& parameter : model->parameters()) bytes += parameter.nbytes();
  }
  return bytes;
}

}  // namespace prefusion::training
