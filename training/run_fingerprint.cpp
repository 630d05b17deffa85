#include "training/run_fingerprint.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "losses/registry.h"
#include "nn/layers.h"
#include "training/weights_key.h"

namespace prefusion::training {
namespace {

// Adapters of --init-lora bring their own shape, which the weights at the start tell.
Json adapter_json(const AlignOptions& options) {
  if (options.adapter_kind() == AdapterKind::kFull || !options.init_lora.empty()) return Json::object();
  Json json = {{"rank", options.rank}, {"lora_alpha", options.lora_alpha}, {"target_modules", options.target_modules}};
  json["base_dtype"] = options.base_dtype;
  json["train_text_encoder"] = options.train_text_encoder;
  if (!options.train_text_encoder) return json;
  json["text_encoder_rank"] = options.text_encoder_rank;
  json["text_encoder_alpha"] = options.text_encoder_alpha;
  return json;
}

// With a schedule that falls, the rate of a step depends on how many there are.
std::string schedule_text(const AlignOptions& options, int64_t num_steps) {
  const std::string text = concat(options.lr_schedule, ", warmup ", options.warmup);
  return options.lr_schedule == "constant" ? text : concat(text, ", ", num_steps, " steps");
}

std::string start_key(const Policy& policy) {
  TensorMap weights = nn::tensor_map(*policy.denoiser);
  const auto add = [&weights](const std::string& what, const std::vector<NamedTensor>& tensors) {
    for (const auto& [name, tensor] : tensors) weights[concat(what, " ", name)] = tensor.detach();
  };
  add("trained", policy.trainable);
  if (policy.text) {
    const text::ClipModels models = policy.text->encoder()->clip_models();
    if (models.text_encoder) add("text_encoder", nn::named_tensors(*models.text_encoder));
    if (models.text_encoder_2) add("text_encoder_2", nn::named_tensors(*models.text_encoder_2));
  }
  // Adapters may hold more than what is trained.
  if (policy.users) {
    add("users", policy.users->projections());
    add("users", policy.users->user_tensors());
  }
  if (policy.gate) {
    size_t number = 0;
    for (const auto& expert : policy.gate->experts()) add(concat("expert ", number++), expert.adapter->parameters());
  }
  return sampled_weights_key(weights);
}

}  // namespace

Json loss_options_json(const AlignOptions& options) {
  const losses::LossOptions& loss = options.loss;
  Json json = {{"loser_weight", loss.loser_weight},
               {"sft_weight", loss.sft_weight},
               {"anchor_weight", loss.anchor_weight},
               {"label_smoothing", loss.label_smoothing},
               {"soft_labels", loss.soft_labels},
               {"margin_drop", loss.margin_drop},
               {"swap_empty_prompts", loss.swap_empty_prompts},
               {"logit_weighting", options.logit_weighting},
               {"loss_weighting", options.loss_weighting}};
  if (loss.safe_loser) json["safe_loser"] = *loss.safe_loser;
  return json;
}

Json run_fingerprint(const AlignOptions& options, const losses::ObjectiveParams& params, const Policy& policy,
                     at::ScalarType dtype, int64_t num_steps) {
  Json fingerprint = {{"adapter", options.adapter},
                      {"seed", options.seed},
                      {"dtype", c10::toString(dtype)},
                      {"batch_size", options.batch_size},
                      {"accumulate", options.accumulate},
                      {"optimizer", options.optimizer},
                      {"optimizer_args", options.optimizer_args},
                      {"lr", options.lr},
                      {"lr_schedule", schedule_text(options, num_steps)},
                      {"max_grad_norm", options.max_grad_norm},
                      {"weight_decay", options.weight_decay},
                      {"ema", options.ema},
                      {"distilled_guidance", options.distilled_guidance},
                      {"long_prompts", options.long_prompts},
                      {"spike_factor", options.spike_factor},
                      {"start", start_key(policy)}};
  fingerprint.update(adapter_json(options));
  fingerprint.update(loss_options_json(options));
  // An objective with a parameter of an addition's name refuses the addition.
  fingerprint.update(Json(losses::params_metadata(params)));
  return fingerprint;
}

std::string changed_keys(const Json& saved, const Json& now) {
  std::string changes;
  for (const auto& [key, value] : now.items()) {
    const Json before = saved.value(key, Json());
    if (before == value) continue;
    changes +=
        concat(changes.empty() ? "" : "; ", "its ", key, " was ", before.dump(), ", this run's is ", value.dump());
  }
  return changes;
}

}  // namespace prefusion::training
