#include "reward_models/clip_model.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "core/device.h"
#include "core/error.h"
#include "core/safetensors.h"
#include "text/clip_tokenizer.h"

namespace prefusion::reward_models {
namespace {

class ClipTower : public PictureTower {
 public:
  ClipTower(std::shared_ptr<ClipVisionModel> model, const PicturePreparation& preparation, const std::string& key)
      : model_(std::move(model)), preparation_(preparation), preparation_key_(preparation.key()), key_(key) {}

  const std::string& key() const override { return key_; }
  const std::string& preparation_key() const override { return preparation_key_; }

  at::Tensor prepare(const images::Picture& picture) const override { return prepare_picture(picture, preparation_); }

  at::Tensor features(const std::vector<at::Tensor>& prepared) override {
    const at::Tensor weight = model_->parameters().front();
    return model_->forward(to_device(at::stack(prepared), weight.device()).to(weight.scalar_type())).to(at::kFloat);
  }

 private:
  std::shared_ptr<ClipVisionModel> model_;
  PicturePreparation preparation_;
  std::string preparation_key_;
  std::string key_;
};

// The weights whose keys begin with one of `prefixes`.
TensorMap half_of(const TensorMap& weights, std::initializer_list<const char*> prefixes) {
  TensorMap half;
  for (const auto& [name, tensor] : weights) {
    const bool belongs = std::any_of(prefixes.begin(), prefixes.end(),
                                     [&key = name](const char* prefix) { return key.starts_with(prefix); });
    if (belongs && !name.ends_with("embeddings.position_ids")) half.emplace(name, tensor);
  }
  return half;
}

}  // namespace

PromptTokenizer clip_folder_tokenizer(const std::filesystem::path& folder, int64_t max_length) {
  auto tokenizer = std::make_shared<text::ClipTokenizer>(text::ClipTokenizer::load(folder, max_length));
  return [tokenizer, max_length](const std::string& prompt) {
    const std::vector<int64_t> tokens = tokenizer->encode(prompt);
    const auto room = static_cast<size_t>(std::min(max_length, tokenizer->model_max_length()) - 2);
    PromptTokens result{.ids = {tokenizer->bos_token_id()}};
    const size_t kept = std::min(tokens.size(), room);
    result.ids.insert(result.ids.end(), tokens.begin(), tokens.begin() + kept);
    result.ids.push_back(tokenizer->eos_token_id());
    result.num_truncated = static_cast<int64_t>(tokens.size() - kept);
    return result;
  };
}

TensorMap clip_picture_weights(const TensorMap& weights) {
  return half_of(weights, {"vision_model.", "visual_projection."});
}

TensorMap clip_text_weights(const TensorMap& weights) {
  return half_of(weights, {"text_model.", "text_projection."});
}

double stored_logit_scale(const TensorMap& weights, const std::string& where) {
  const auto found = weights.find("logit_scale");
  check_input(found != weights.end() && found->second.numel() == 1, where,
              ": the weights have no logit_scale, so they are no whole CLIP model");
  return found->second.to(at::kDouble).item<double>();
}

double clip_logit_scale(const TensorMap& weights, const std::string& where) {
  return std::exp(stored_logit_scale(weights, where));
}

at::Tensor token_ids(const PromptTokenizer& tokenizer, const std::vector<std::string>& prompts) {
  std::vector<PromptTokens> tokens;
  size_t longest = 1;
  for (const std::string& prompt : prompts) {
    tokens.push_back(tokenizer(prompt));
    longest = std::max(longest, tokens.back().ids.size());
  }
  at::Tensor ids = at::empty({static_cast<int64_t>(prompts.size()), static_cast<int64_t>(longest)}, at::kLong);
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i].ids.resize(longest, tokens[i].ids.back());  // the first end token is the one that is pooled
    ids[static_cast<int64_t>(i)].copy_(at::tensor(tokens[i].ids, at::kLong));
  }
  return ids;
}

at::Tensor ClipPromptEncoder::encode(const std::vector<std::string>& prompts) {
  const at::Device device = model_->parameters().front().device();
  if (device.is_cpu() && !c10::GradMode::is_enabled()) {
    std::vector<at::Tensor> ids;
    for (const std::string& prompt : prompts) ids.push_back(at::tensor(tokenizer_(prompt).ids, at::kLong).unsqueeze(0));
    return model_->text_embeds_of_each(ids).to(at::kFloat);
  }
  const at::Tensor ids = token_ids(tokenizer_, prompts).to(device);
  return model_->forward(ids).text_embeds.to(at::kFloat);
}

PromptFacts ClipPromptEncoder::facts(const std::string& prompt) const {
  const PromptTokens tokens = tokenizer_(prompt);
  return {.num_tokens = static_cast<int64_t>(tokens.ids.size()), .num_truncated = tokens.num_truncated};
}

std::shared_ptr<PictureTower> make_clip_tower(std::shared_ptr<ClipVisionModel> model,
                                              const PicturePreparation& preparation, const std::string& key) {
  const int64_t size = model->config().image_size;
  const PictureSize made = preparation.output_size();
  const std::string found = made.height > 0 ? concat("of ", made.height, "x", made.width, " pixels") : "of many sizes";
  check_input(made.height == size && made.width == size, key, ": the preprocessor makes pictures ", found,
              ", but the model takes ", size, "x", size);
  return std::make_shared<ClipTower>(std::move(model), preparation, key);
}

ClipParts open_clip_folder(const std::filesystem::path& folder, const RewardContext& context) {
  const std::filesystem::path config_path = folder / "config.json";
  const std::string where = config_path.string();
  check_input(std::filesystem::is_directory(folder), folder.string(), ": no such folder");
  const Json config = read_json(config_path);
  const auto weights = std::make_shared<TensorMap>(read_weights(folder, "model"));
  ClipParts parts;
  parts.logit_scale = clip_logit_scale(*weights, folder.string());
  parts.projection_dim = parse_clip_vision_config(config, where).projection_dim;
  parts.pictures = [=] {
    const ClipVisionConfig vision = parse_clip_vision_config(config, where);
    const PicturePreparation preparation = read_picture_preparation(folder, vision.image_size);
    const std::string key = concat("clip ", std::filesystem::canonical(folder).string(), ' ',
                                   c10::toString(context.dtype), ' ', preparation.key());
    const auto load = [&] {
      auto model = std::make_shared<ClipVisionModel>(vision, where);
      nn::load_module(*model, clip_picture_weights(*weights), context.dtype, context.device, folder.string());
      model->eval();
      return make_clip_tower(model, preparation, key);
    };
    return context.shared ? context.shared->towers.get(key, load) : load();
  };
  parts.prompts = [=] {
    const std::string key =
        concat("clip ", std::filesystem::canonical(folder).string(), ' ', c10::toString(context.dtype));
    const auto load = [&] {
      const text::ClipTextConfig text = text::parse_clip_text_config(config, where);
      auto model = std::make_shared<text::ClipTextModel>(text, where);
      nn::load_module(*model, clip_text_weights(*weights), context.dtype, context.device, folder.string());
      model->eval();
      return std::make_shared<ClipPromptEncoder>(clip_folder_tokenizer(folder, text.max_position_embeddings), model,
                                                 key);
    };
    return context.shared ? context.shared->prompt_encoders.get(key, load) : load();
  };
  return parts;
}

at::Tensor cosines(const at::Tensor& picture_features, const at::Tensor& prompt_features) {
  const auto unit = [](const at::Tensor& features) {
    const at::Tensor rows = features.to(at::kFloat);
    return rows / rows.norm(2, {-1}, /*keepdim=*/true);
  };
  return (unit(picture_features) * unit(prompt_features)).sum(-1);
}

}  // namespace prefusion::reward_models
