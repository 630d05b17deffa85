#include "reward_models/mps.h"

#include <ATen/ATen.h>

#include <map>

#include "core/device.h"
#include "core/error.h"
#include "reward_models/clip_model.h"
#include "reward_models/mps_cross_model.h"
#include "text/clip_tokenizer.h"

namespace prefusion::reward_models {
namespace {

namespace fs = std::filesystem;

// What belongs to a condition. "overall" is the text of the authors' repository; for the others, which it does not
// give, those are the parts of it by subject.
const std::map<std::string, std::string> kConditions = {
    {"overall",
     "light, color, clarity, tone, style, ambiance, artistry, shape, face, hair, hands, limbs, structure, instance, "
     "texture, quantity, attributes, position, number, location, word, things."},
    {"aesthetics", "light, color, clarity, tone, style, ambiance, artistry"},
    {"detail", "shape, face, hair, hands, limbs, structure, instance, texture"},
    {"semantic", "quantity, attributes, position, number, location"}};

// A name above, or a list of words: anything with a space or a comma.
std::string condition_text(const std::string& value, const std::string& column) {
  if (const auto named = kConditions.find(value); named != kConditions.end()) return named->second;
  check_usage(value.find_first_of(" ,") != std::string::npos, "--reward-args ", column, ".condition=", value,
              ": expected overall, aesthetics, detail, semantic or a list such as 'light, color, tone'");
  return value;
}

// Features are all tokens [N, T, D], projected but not normalised, in the dtype of the tower.
class ClipTokenTower : public PictureTower {
 public:
  ClipTokenTower(std::shared_ptr<ClipVisionModel> model, const PicturePreparation& preparation, const std::string& name)
      : model_(std::move(model)), pixels_(make_clip_tower(model_, preparation, name)) {}

  const std::string& key() const override { return pixels_->key(); }
  const std::string& preparation_key() const override { return pixels_->preparation_key(); }
  at::Tensor prepare(const images::Picture& picture) const override { return pixels_->prepare(picture); }
  at::Tensor features(const std::vector<at::Tensor>& prepared) override {
    const at::Tensor weight = model_->parameters().front();
    const at::Tensor pixel_values = to_device(at::stack(prepared), weight.device()).to(weight.scalar_type());
    return model_->project(model_->hidden_states(pixel_values));
  }

 private:
  std::shared_ptr<ClipVisionModel> model_;
  std::shared_ptr<PictureTower> pixels_;
};

// Tokens of prompts and which of them belong to the condition.
class ConditionedPrompts {
 public:
  ConditionedPrompts(text::ClipTokenizer tokenizer, std::shared_ptr<text::ClipTextModel> model,
                     const std::string& condition, double threshold)
      : tokenizer_(std::move(tokenizer)), model_(std::move(model)), condition_(condition), threshold_(threshold) {}

  // fp32 [P, L + 1, D + 1]: a row a token, then one of the whole prompt; the last column is 1 where a token is seen.
  at::Tensor encode(const std::vector<std::string>& prompts) {
    if (!model_->parameters().front().is_cpu()) return encode_together(prompts);
    std::vector<at::Tensor> alone;
    for (const std::string& prompt : prompts) alone.push_back(encode_together({prompt}));
    return at::cat(alone);
  }

  PromptFacts facts(const std::string& prompt) const {
    const std::vector<int64_t> tokens = tokenizer_.encode(prompt);
    const auto num_cut = static_cast<int64_t>(tokenizer_.cut_off(tokens).size());
    return {.num_tokens = static_cast<int64_t>(tokens.size()) - num_cut + 2, .num_truncated = num_cut};
  }

 private:
  at::Tensor encode_together(const std::vector<std::string>& prompts) {
    const text::ClipTextOutput output = forward(prompts);
    const at::Tensor tokens = model_->project(output.last_hidden_state).to(at::kFloat);  // [P, L, D]
    const at::Tensor whole = output.text_embeds.to(at::kFloat).unsqueeze(1);
    const at::Tensor seen = is_seen(tokens).to(at::kFloat);
    const at::Tensor column = at::cat({seen, at::zeros_like(seen.slice(1, 0, 1))}, 1).unsqueeze(-1);
    return at::cat({at::cat({tokens, whole}, 1), column}, -1);
  }

  // Padding is part of the model: the public code pads to the full length and looks at the padding too.
  text::ClipTextOutput forward(const std::vector<std::string>& prompts) {
    return model_->forward(tokenizer_.tokenize_batch(prompts).to(model_->parameters().front().device()));
  }

  // bool [P, L]: similarity to the condition's most similar token, as a share of the prompt's highest, above the
  // threshold. The public code takes the highest of the whole batch; its evaluation scripts have batches of one.
  at::Tensor is_seen(const at::Tensor& tokens) {
    if (!condition_tokens_.defined()) {
      condition_tokens_ = model_->project(forward({condition_}).last_hidden_state).to(at::kFloat)[0];  // [L, D]
    }
    const at::Tensor similarity = at::matmul(tokens, condition_tokens_.t()).amax(-1);  // [P, L]
    return (similarity / similarity.amax(-1, /*keepdim=*/true)).gt(threshold_);
  }

  text::ClipTokenizer tokenizer_;
  std::shared_ptr<text::ClipTextModel> model_;
  std::string condition_;
  double threshold_;
  at::Tensor condition_tokens_;
};

class Mps : public RewardModel {
 public:
  Mps(std::shared_ptr<PictureTower> tower, ConditionedPrompts prompts, std::shared_ptr<MpsCrossModel> cross,
      double logit_scale)
      : tower_(std::move(tower)), prompts_(std::move(prompts)), cross_(std::move(cross)), logit_scale_(logit_scale) {}

  const std::shared_ptr<PictureTower>& tower() const override { return tower_; }
  at::Tensor prompt_features(const std::vector<std::string>& prompts) override { return prompts_.encode(prompts); }
  PromptFacts prompt_facts(const std::string& prompt) const override { return prompts_.facts(prompt); }

  at::Tensor score(const at::Tensor& picture_features, const at::Tensor& prompt_features) override {
    const int64_t length = prompt_features.size(1) - 1;
    const int64_t width = prompt_features.size(2) - 1;
    const at::Tensor features = prompt_features.slice(2, 0, width);
    const at::Tensor tokens = features.slice(1, 0, length).to(picture_features.scalar_type());
    const at::Tensor is_seen = prompt_features.select(2, width).slice(1, 0, length).gt(0.5);
    const at::Tensor looked = cross_->forward(picture_features, tokens, is_seen).select(1, 0);  // [N, D]
    return (cosines(looked, features.select(1, length)) * logit_scale_).cpu();
  }

 private:
  std::shared_ptr<PictureTower> tower_;
  ConditionedPrompts prompts_;
  std::shared_ptr<MpsCrossModel> cross_;
  double logit_scale_;
};

TensorMap below(const TensorMap& weights, const std::string& prefix) {
  TensorMap part;
  for (const auto& [name, tensor] : weights) {
    if (name.starts_with(prefix)) part.emplace(name.substr(prefix.size()), tensor);
  }
  return part;
}

// Keys that are neither the CLIP model's nor the cross model's.
void check_prefixes(const TensorMap& weights, const std::string& where) {
  for (const auto& [name, tensor] : weights) {
    check_input(
        name.starts_with("model.") || name.starts_with("cross_model."), where, ": the weight '", name,
        "' is not one of an MPS model; expected the state_dict of the public module, with the prefixes 'model.' "
        "and 'cross_model.'");
  }
}

std::shared_ptr<MpsCrossModel> load_cross_model(const TensorMap& weights, int64_t clip_width,
                                                const RewardContext& context, const std::string& where) {
  TensorMap part = below(weights, "cross_model.");
  // The frequencies of rotary positions, a function of the width alone.
  std::erase_if(part, [](const auto& entry) { return entry.first.ends_with(".rotary_emb.inv_freq"); });
  const MpsCrossConfig config = mps_cross_config_of(part, where);
  check_input(config.width == clip_width, where, ": the cross model takes tokens of ", config.width,
              " channels, but CLIP makes tokens of ", clip_width);
  auto model = std::make_shared<MpsCrossModel>(config);
  nn::load_module(*model, part, context.dtype, context.device, where + " (cross_model)");
  model->eval();
  return model;
}

}  // namespace

std::unique_ptr<RewardModel> open_mps(const RewardSpec& spec, const RewardContext& context) {
  RewardOptions options(spec);
  const std::string condition = condition_text(options.text("condition", "overall"), spec.column);
  const double threshold = options.number("threshold", 0.3);
  const bool is_folder = fs::is_directory(spec.path);
  const fs::path folder = options.text("clip", (is_folder ? spec.path : spec.path.parent_path()).string());
  options.finish();
  check_usage(threshold < 1, "--reward-args ", spec.column, ".threshold=", threshold,
              ": expected a number below 1, or no token is seen");

  const std::string where = spec.path.string();
  const std::string config_path = (folder / "config.json").string();
  const TensorMap weights = is_folder ? read_weights(spec.path, "model") : read_safetensors(spec.path);
  check_prefixes(weights, where);
  const TensorMap clip = below(weights, "model.");
  const double logit_scale = clip_logit_scale(clip, where);
  const Json config = read_json(config_path);

  auto vision = std::make_shared<ClipVisionModel>(parse_clip_vision_config(config, config_path), config_path);
  nn::load_module(*vision, clip_picture_weights(clip), context.dtype, context.device, where + " (model)");
  vision->eval();
  const std::string name = concat("mps ", where, ' ', folder.string(), ' ', c10::toString(context.dtype));
  auto tower =
      std::make_shared<ClipTokenTower>(vision, read_picture_preparation(folder, vision->config().image_size), name);

  auto text = std::make_shared<text::ClipTextModel>(text::parse_clip_text_config(config, config_path), config_path);
  nn::load_module(*text, clip_text_weights(clip), context.dtype, context.device, where + " (model)");
  text->eval();
  auto tokenizer = text::ClipTokenizer::load(folder, text->config().max_position_embeddings);
  check_input(tokenizer.model_max_length() <= text->config().max_position_embeddings, folder.string(),
              ": the tokenizer makes ", tokenizer.model_max_length(), " tokens, but the text model takes at most ",
              text->config().max_position_embeddings);
  auto cross = load_cross_model(weights, vision->config().projection_dim, context, where);
  return std::make_unique<Mps>(std::move(tower),
                               ConditionedPrompts(std::move(tokenizer), std::move(text), condition, threshold),
                               std::move(cross), logit_scale);
}

}  // namespace prefusion::reward_models
