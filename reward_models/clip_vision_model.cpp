#include "reward_models/clip_vision_model.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "core/transformers_config.h"
#include "nn/clip_encoder.h"

namespace prefusion::reward_models {

void check_clip_vision_config(const ClipVisionConfig& config, const std::string& where) {
  const auto positive = [&](const char* key, int64_t value) {
    check_input(value > 0 && value < (int64_t{1} << 31), where, ": '", key, "' = ", value, " is out of range");
  };
  positive("hidden_size", config.hidden_size);
  positive("intermediate_size", config.intermediate_size);
  positive("projection_dim", config.projection_dim);
  positive("num_attention_heads", config.num_attention_heads);
  positive("image_size", config.image_size);
  positive("patch_size", config.patch_size);
  check_input(config.num_hidden_layers >= 0 && config.num_hidden_layers <= 1024, where,
              ": 'num_hidden_layers' = ", config.num_hidden_layers, " is out of range");
  check_input(config.hidden_size % config.num_attention_heads == 0, where, ": 'hidden_size' = ", config.hidden_size,
              " does not divide into 'num_attention_heads' = ", config.num_attention_heads);
  check_input(config.num_channels == 3, where, ": 'num_channels' = ", config.num_channels, " is not supported, only 3");
  check_input(config.image_size >= config.patch_size && config.image_size <= 16384, where,
              ": 'image_size' = ", config.image_size, " does not fit 'patch_size' = ", config.patch_size);
}

namespace {

class EmbeddingsImpl : public torch::nn::Module {
 public:
  explicit EmbeddingsImpl(const ClipVisionConfig& config) {
    const int64_t patches = config.image_size / config.patch_size;
    class_embedding = register_parameter("class_embedding", at::empty({config.hidden_size}));
    patch_embedding =
        register_module("patch_embedding", nn::Conv2d(nn::Conv2dOptions{.in_channels = config.num_channels,
                                                                        .out_channels = config.hidden_size,
                                                                        .kernel_size = config.patch_size,
                                                                        .stride = config.patch_size,
                                                                        .padding = 0,
                                                                        .has_bias = false}));
    position_embedding =
        register_module("position_embedding", nn::Embedding(patches * patches + 1, config.hidden_size));
  }

  // [N, 3, H, W] -> [N, 1 + patches, D]
  at::Tensor forward(const at::Tensor& pixel_values) {
    const at::Tensor patches = patch_embedding(pixel_values).flatten(2).transpose(1, 2);
    const at::Tensor class_token = class_embedding.expand({pixel_values.size(0), 1, -1});
    return at::cat({class_token, patches}, 1) + position_embedding->weight;
  }

 private:
  at::Tensor class_embedding;
  nn::Conv2d patch_embedding{nullptr};
  nn::Embedding position_embedding{nullptr};
};

ClipVisionConfig parse_vision_part(ConfigReader& reader) {
  ClipVisionConfig config;
  const std::string type = reader.get<std::string>("model_type", "clip_vision_model");
  if (type != "clip_vision_model") reader.refuse("model_type", type);
  config.hidden_size = reader.get("hidden_size", config.hidden_size);
  config.intermediate_size = reader.get("intermediate_size", config.intermediate_size);
  config.projection_dim = reader.get("projection_dim", config.projection_dim);
  config.num_hidden_layers = reader.get("num_hidden_layers", config.num_hidden_layers);
  config.num_attention_heads = reader.get("num_attention_heads", config.num_attention_heads);
  config.num_channels = reader.get("num_channels", config.num_channels);
  config.image_size = reader.get("image_size", config.image_size);
  config.patch_size = reader.get("patch_size", config.patch_size);
  config.hidden_act = reader.get("hidden_act", config.hidden_act);
  config.layer_norm_eps = reader.get("layer_norm_eps", config.layer_norm_eps);
  ignore_transformers_keys(reader);
  reader.ignore({"architectures", "bos_token_id", "eos_token_id", "pad_token_id"});
  reader.finish();
  return config;
}

}  // namespace

ClipVisionConfig parse_clip_vision_config(const Json& json, const std::string& where) {
  check_input(json.is_object(), where, ": expected a JSON object, found ", json.type_name());
  const Json half = transformers_half(json, "vision_config");
  const bool is_whole = half.is_object();
  ConfigReader reader(is_whole ? half : json, is_whole ? where + " (vision_config)" : where);
  ClipVisionConfig config = parse_vision_part(reader);
  // The projection of a whole CLIPModel is a property of the whole.
  if (is_whole) config.projection_dim = json.value("projection_dim", int64_t{512});
  check_clip_vision_config(config, where);
  return config;
}

class ClipVisionTransformerImpl : public torch::nn::Module {
 public:
  ClipVisionTransformerImpl(const ClipVisionConfig& config, const std::string& where) {
    embeddings = register_module("embeddings", std::make_shared<EmbeddingsImpl>(config));
    pre_layrnorm = register_module("pre_layrnorm", nn::LayerNorm(config.hidden_size, config.layer_norm_eps));
    const nn::ClipEncoderOptions options{.hidden_size = config.hidden_size,
                                         .intermediate_size = config.intermediate_size,
                                         .num_layers = config.num_hidden_layers,
                                         .num_heads = config.num_attention_heads,
                                         .layer_norm_eps = config.layer_norm_eps,
                                         .activation = nn::activation_by_name(config.hidden_act, where)};
    encoder = register_module("encoder", std::make_shared<nn::ClipEncoderImpl>(options));
    post_layernorm = register_module("post_layernorm", nn::LayerNorm(config.hidden_size, config.layer_norm_eps));
  }

  std::shared_ptr<EmbeddingsImpl> embeddings;
  nn::LayerNorm pre_layrnorm{nullptr};  // spelt so in every checkpoint
  std::shared_ptr<nn::ClipEncoderImpl> encoder;
  nn::LayerNorm post_layernorm{nullptr};
};

ClipVisionModel::ClipVisionModel(const ClipVisionConfig& config, const std::string& where) : config_(config) {
  vision_model = register_module("vision_model", std::make_shared<ClipVisionTransformerImpl>(config, where));
  visual_projection =
      register_module("visual_projection", nn::Linear(config.hidden_size, config.projection_dim, /*has_bias=*/false));
}

at::Tensor ClipVisionModel::embed(const at::Tensor& pixel_values) {
  const int64_t size = config_.image_size;
  check_usage(pixel_values.dim() == 4 && pixel_values.size(1) == 3 && pixel_values.size(2) == size &&
                  pixel_values.size(3) == size,
              "CLIP's picture tower takes [N, 3, ", size, ", ", size, "], found ", shape_text(pixel_values.sizes()));
  return vision_model->pre_layrnorm(vision_model->embeddings->forward(pixel_values));
}

at::Tensor ClipVisionModel::hidden_states(const at::Tensor& pixel_values) {
  return vision_model->encoder->forward(embed(pixel_values));
}

at::Tensor ClipVisionModel::pooled(const at::Tensor& pixel_values) {
  return vision_model->post_layernorm(vision_model->encoder->forward_first_token(embed(pixel_values)));
}

}  // namespace prefusion::reward_models
