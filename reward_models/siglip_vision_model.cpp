#include "reward_models/siglip_vision_model.h"

#include <ATen/ATen.h>

#include "core/device.h"
#include "core/error.h"
#include "core/safetensors.h"
#include "core/transformers_config.h"
#include "reward_models/picture_preparation.h"

namespace prefusion::reward_models {

class SiglipEmbeddingsImpl : public torch::nn::Module {
 public:
  explicit SiglipEmbeddingsImpl(const SiglipVisionConfig& config) {
    const int64_t patches = config.image_size / config.patch_size;
    patch_embedding =
        register_module("patch_embedding", nn::Conv2d(nn::Conv2dOptions{.in_channels = 3,
                                                                        .out_channels = config.hidden_size,
                                                                        .kernel_size = config.patch_size,
                                                                        .stride = config.patch_size,
                                                                        .padding = 0}));
    position_embedding = register_module("position_embedding", nn::Embedding(patches * patches, config.hidden_size));
  }

  // [N, 3, H, W] -> [N, patches, D]
  at::Tensor forward(const at::Tensor& pixel_values) {
    return patch_embedding(pixel_values).flatten(2).transpose(1, 2) + position_embedding->weight;
  }

 private:
  nn::Conv2d patch_embedding{nullptr};
  nn::Embedding position_embedding{nullptr};
};

namespace {

// torch.nn.MultiheadAttention with one query.
class PoolingAttentionImpl : public torch::nn::Module {
 public:
  PoolingAttentionImpl(int64_t dim, int64_t num_heads) : num_heads_(num_heads) {
    in_proj_weight = register_parameter("in_proj_weight", at::empty({3 * dim, dim}));
    in_proj_bias = register_parameter("in_proj_bias", at::empty({3 * dim}));
    out_proj = register_module("out_proj", nn::Linear(dim, dim));
  }

  // query [N, 1, D], tokens [N, L, D] -> [N, 1, D]
  at::Tensor forward(const at::Tensor& query, const at::Tensor& tokens) {
    const auto weights = in_proj_weight.chunk(3);
    const auto biases = in_proj_bias.chunk(3);
    const auto heads = [&](const at::Tensor& input, size_t part) {  // [N, heads, L, D / heads]
      return at::linear(input, weights[part], biases[part]).unflatten(-1, {num_heads_, -1}).transpose(1, 2);
    };
    const at::Tensor attended = at::scaled_dot_product_attention(heads(query, 0), heads(tokens, 1), heads(tokens, 2));
    return out_proj(attended.transpose(1, 2).flatten(2));
  }

 private:
  int64_t num_heads_;
  at::Tensor in_proj_weight, in_proj_bias;
  nn::Linear out_proj{nullptr};
};

class MlpImpl : public torch::nn::Module {
 public:
  MlpImpl(const SiglipVisionConfig& config, const std::string& where)
      : activation_(nn::activation_by_name(config.hidden_act, where)) {
    fc1 = register_module("fc1", nn::Linear(config.hidden_size, config.intermediate_size));
    fc2 = register_module("fc2", nn::Linear(config.intermediate_size, config.hidden_size));
  }
  at::Tensor forward(const at::Tensor& input) { return fc2(activation_(fc1(input))); }

 private:
  nn::Activation activation_;
  nn::Linear fc1{nullptr}, fc2{nullptr};
};

}  // namespace

class SiglipPoolingHeadImpl : public torch::nn::Module {
 public:
  SiglipPoolingHeadImpl(const SiglipVisionConfig& config, const std::string& where) {
    probe = register_parameter("probe", at::empty({1, 1, config.hidden_size}));
    attention = register_module("attention",
                                std::make_shared<PoolingAttentionImpl>(config.hidden_size, config.num_attention_heads));
    layernorm = register_module("layernorm", nn::LayerNorm(config.hidden_size, config.layer_norm_eps));
    mlp = register_module("mlp", std::make_shared<MlpImpl>(config, where));
  }

  // [N, L, D] -> [N, D]
  at::Tensor forward(const at::Tensor& tokens) {
    const at::Tensor pooled = attention->forward(probe.expand({tokens.size(0), -1, -1}), tokens);
    return (pooled + mlp->forward(layernorm(pooled))).squeeze(1);
  }

 private:
  at::Tensor probe;
  std::shared_ptr<PoolingAttentionImpl> attention;
  nn::LayerNorm layernorm{nullptr};
  std::shared_ptr<MlpImpl> mlp;
};

SiglipVisionModel::SiglipVisionModel(const SiglipVisionConfig& config, const std::string& where) : config_(config) {
  embeddings = register_module("embeddings", std::make_shared<SiglipEmbeddingsImpl>(config));
  const nn::ClipEncoderOptions options{.hidden_size = config.hidden_size,
                                       .intermediate_size = config.intermediate_size,
                                       .num_layers = config.num_hidden_layers,
                                       .num_heads = config.num_attention_heads,
                                       .layer_norm_eps = config.layer_norm_eps,
                                       .activation = nn::activation_by_name(config.hidden_act, where)};
  encoder = register_module("encoder", std::make_shared<nn::ClipEncoderImpl>(options));
  post_layernorm = register_module("post_layernorm", nn::LayerNorm(config.hidden_size, config.layer_norm_eps));
  head = register_module("head", std::make_shared<SiglipPoolingHeadImpl>(config, where));
}

at::Tensor SiglipVisionModel::forward(const at::Tensor& pixel_values) {
  const int64_t size = config_.image_size;
  check_usage(pixel_values.dim() == 4 && pixel_values.size(1) == 3 && pixel_values.size(2) == size &&
                  pixel_values.size(3) == size,
              "SigLIP's picture tower takes [N, 3, ", size, ", ", size, "], found ", shape_text(pixel_values.sizes()));
  return head->forward(post_layernorm(encoder->forward(embeddings->forward(pixel_values))));
}

namespace {

void check_sizes(const SiglipVisionConfig& config, const std::string& where) {
  const auto positive = [&](const char* key, int64_t value) {
    check_input(value > 0 && value < (int64_t{1} << 31), where, ": '", key, "' = ", value, " is out of range");
  };
  positive("hidden_size", config.hidden_size);
  positive("intermediate_size", config.intermediate_size);
  positive("num_attention_heads", config.num_attention_heads);
  positive("patch_size", config.patch_size);
  check_input(config.num_hidden_layers >= 0 && config.num_hidden_layers <= 1024, where,
              ": 'num_hidden_layers' = ", config.num_hidden_layers, " is out of range");
  check_input(config.hidden_size % config.num_attention_heads == 0, where, ": 'hidden_size' = ", config.hidden_size,
              " does not divide into 'num_attention_heads' = ", config.num_attention_heads);
  check_input(config.image_size >= config.patch_size && config.image_size <= 16384, where,
              ": 'image_size' = ", config.image_size, " does not fit 'patch_size' = ", config.patch_size);
}

class SiglipTower : public PictureTower {
 public:
  SiglipTower(std::shared_ptr<SiglipVisionModel> model, const PicturePreparation& preparation, const std::string& key)
      : model_(std::move(model)), preparation_(preparation), preparation_key_(preparation.key()), key_(key) {}

  const std::string& key() const override { return key_; }
  const std::string& preparation_key() const override { return preparation_key_; }
  at::Tensor prepare(const images::Picture& picture) const override { return prepare_picture(picture, preparation_); }
  at::Tensor features(const std::vector<at::Tensor>& prepared) override {
    const at::Tensor weight = model_->parameters().front();
    return model_->forward(to_device(at::stack(prepared), weight.device()).to(weight.scalar_type())).to(at::kFloat);
  }

 private:
  std::shared_ptr<SiglipVisionModel> model_;
  PicturePreparation preparation_;
  std::string preparation_key_;
  std::string key_;
};

// The picture half of a SigLIP's weights; whole models keep it below "vision_model.".
TensorMap picture_half(const TensorMap& weights) {
  constexpr std::string_view kPrefix = "vision_model.";
  TensorMap half;
  for (const auto& [name, tensor] : weights) {
    const bool is_other = name.starts_with("text_model.") || name == "logit_scale" || name == "logit_bias";
    if (is_other || name.ends_with("embeddings.position_ids")) continue;
    half.emplace(name.starts_with(kPrefix) ? name.substr(kPrefix.size()) : name, tensor);
  }
  return half;
}

}  // namespace

SiglipVisionConfig parse_siglip_vision_config(const Json& json, const std::string& where) {
  check_input(json.is_object(), where, ": expected a JSON object, found ", json.type_name());
  const Json half = transformers_half(json, "vision_config");
  ConfigReader reader(half.is_object() ? half : json, half.is_object() ? where + " (vision_config)" : where);
  SiglipVisionConfig config;
  const auto type = reader.get<std::string>("model_type", "siglip_vision_model");
  if (type != "siglip_vision_model") reader.refuse("model_type", type);
  config.hidden_size = reader.get("hidden_size", config.hidden_size);
  config.intermediate_size = reader.get("intermediate_size", config.intermediate_size);
  config.num_hidden_layers = reader.get("num_hidden_layers", config.num_hidden_layers);
  config.num_attention_heads = reader.get("num_attention_heads", config.num_attention_heads);
  reader.only("num_channels", 3);
  config.image_size = reader.get("image_size", config.image_size);
  config.patch_size = reader.get("patch_size", config.patch_size);
  config.hidden_act = reader.get("hidden_act", config.hidden_act);
  config.layer_norm_eps = reader.get("layer_norm_eps", config.layer_norm_eps);
  reader.only("vision_use_head", true);
  ignore_transformers_keys(reader);
  reader.ignore({"architectures", "bos_token_id", "eos_token_id", "pad_token_id"});
  reader.finish();
  check_sizes(config, where);
  return config;
}

bool is_siglip(const std::filesystem::path& folder) {
  const std::filesystem::path config = folder / "config.json";
  if (!std::filesystem::exists(config)) return false;
  const Json json = read_json(config);
  return json.is_object() && json.contains("model_type") &&
         (json.at("model_type") == "siglip" || json.at("model_type") == "siglip_vision_model");
}

std::shared_ptr<PictureTower> load_siglip_tower(const std::filesystem::path& folder, const RewardContext& context) {
  namespace fs = std::filesystem;
  check_input(fs::exists(folder / "preprocessor_config.json") || fs::exists(folder / "processor_config.json"),
              folder.string(), ": has no preprocessor_config.json, which says how SigLIP sees pictures");
  const PicturePreparation preparation = read_picture_preparation(folder);
  const std::string key =
      concat("siglip ", fs::canonical(folder).string(), ' ', c10::toString(context.dtype), ' ', preparation.key());
  const auto load = [&] {
    const std::string where = (folder / "config.json").string();
    const SiglipVisionConfig config = parse_siglip_vision_config(read_json(folder / "config.json"), where);
    const int64_t height = preparation.crops ? preparation.crop_height : preparation.resize_height;
    const int64_t width = preparation.crops ? preparation.crop_width : preparation.resize_width;
    check_input(height == config.image_size && width == config.image_size, folder.string(),
                ": the preprocessor makes pictures of ", height, "x", width, " pixels, but the model takes ",
                config.image_size, "x", config.image_size);
    const auto model = std::make_shared<SiglipVisionModel>(config, where);
    nn::load_module(*model, picture_half(read_weights(folder, "model")), context.dtype, context.device,
                    folder.string());
    model->eval();
    return std::make_shared<SiglipTower>(model, preparation, key);
  };
  return context.shared ? context.shared->towers.get(key, load) : load();
}

}  // namespace prefusion::reward_models
