#include "reward_models/open_clip_config.h"

#include <array>
#include <cmath>
#include <sstream>

#include "core/error.h"

namespace prefusion::reward_models {
namespace {

// Of each tower: what the common transformer has.
struct TowerFields {
  int64_t width;
  int64_t layers;
  int64_t heads;
  double mlp_ratio;
  double norm_eps;
  std::string activation;
};

// An edge length that open_clip takes as one number or as height and width; only squares are supported.
int64_t read_edge(ConfigReader& reader, const std::string& key, int64_t fallback) {
  const std::vector<int64_t> edges = reader.int_or_list(key, 2, fallback);
  if (edges[0] != edges[1]) reader.refuse(key, reader.raw(key));
  return edges[0];
}

// Blocks other than the plain pre-norm ones have other weights and other mathematics.
void refuse_changed_blocks(ConfigReader& reader) {
  for (const char* key :
       {"qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"}) {
    reader.only(key, false);
  }
  reader.only("block_type", "default");
  if (reader.has("ls_init_value")) reader.refuse("ls_init_value", reader.raw("ls_init_value"));
}

double read_norm_eps(ConfigReader& reader) {
  const Json& options = reader.raw("norm_kwargs");
  if (options.is_null()) return 1e-5;
  ConfigReader norm(options, reader.where() + " (norm_kwargs)");
  const double eps = norm.get("eps", 1e-5);
  norm.finish();
  return eps;
}

std::string read_activation(ConfigReader& reader, bool is_quick) {
  const Json& options = reader.raw("act_kwargs");
  if (options.is_null()) return is_quick ? "quick_gelu" : "gelu";
  if (is_quick) reader.refuse("act_kwargs", options);
  ConfigReader gelu(options, reader.where() + " (act_kwargs)");
  const auto approximate = gelu.get<std::string>("approximate", "none");
  if (approximate != "none" && approximate != "tanh") gelu.refuse("approximate", approximate);
  gelu.finish();
  return approximate == "tanh" ? "gelu_pytorch_tanh" : "gelu";
}

int64_t scaled_width(int64_t width, double ratio, const std::string& where) {
  const double size = std::trunc(static_cast<double>(width) * ratio);
  check_input(size >= 1 && size < 2147483648.0, where, ": 'mlp_ratio' = ", ratio, " is out of range");
  return static_cast<int64_t>(size);
}

ClipVisionConfig parse_vision(ConfigReader& reader, int64_t embed_dim, bool is_quick) {
  const ClipVisionConfig defaults;
  if (reader.has("timm_model_name")) reader.refuse("timm_model_name", reader.raw("timm_model_name"));
  if (reader.raw("layers").is_array()) reader.refuse("layers", reader.raw("layers"));  // a ResNet
  ClipVisionConfig config;
  config.projection_dim = embed_dim;
  config.hidden_size = reader.get("width", int64_t{768});
  config.num_hidden_layers = reader.get("layers", int64_t{12});
  const auto head_width = reader.get("head_width", int64_t{64});
  check_input(head_width > 0 && head_width <= config.hidden_size, reader.where(), ": 'head_width' = ", head_width,
              " does not fit 'width' = ", config.hidden_size);
  config.num_attention_heads = config.hidden_size / head_width;
  config.intermediate_size = scaled_width(config.hidden_size, reader.get("mlp_ratio", 4.0), reader.where());
  config.image_size = read_edge(reader, "image_size", 224);
  config.patch_size = read_edge(reader, "patch_size", 16);
  config.hidden_act = read_activation(reader, is_quick);
  config.layer_norm_eps = read_norm_eps(reader);
  refuse_changed_blocks(reader);
  reader.only("attentional_pool", false);
  reader.only("no_ln_pre", false);
  reader.only("pool_type", "tok");
  // A norm acts on each token by itself, so that it makes no difference whether the class token is picked before or
  // after; both kinds of positions are stored among the weights; the rest acts in training or in parts left out above.
  reader.ignore({"final_ln_after_pool", "pos_embed_type", "patch_dropout", "output_tokens", "attn_pooler_queries",
                 "attn_pooler_heads", "timm_model_pretrained", "timm_pool", "timm_proj", "timm_proj_bias", "timm_drop",
                 "timm_drop_path"});
  reader.finish();
  return config;
}

text::ClipTextConfig parse_text(ConfigReader& reader, int64_t embed_dim, bool is_quick) {
  for (const char* key : {"hf_model_name", "hf_tokenizer_name"}) {
    if (reader.has(key)) reader.refuse(key, reader.raw(key));
  }
  text::ClipTextConfig config;
  config.has_projection = true;
  config.projection_dim = embed_dim;
  config.eos_token_id = 2;  // pools at the highest id
  config.hidden_size = reader.get("width", int64_t{512});
  config.num_attention_heads = reader.get("heads", int64_t{8});
  config.num_hidden_layers = reader.get("layers", int64_t{12});
  config.vocab_size = reader.get("vocab_size", int64_t{49408});
  config.max_position_embeddings = reader.get("context_length", int64_t{77});
  config.intermediate_size = scaled_width(config.hidden_size, reader.get("mlp_ratio", 4.0), reader.where());
  config.hidden_act = read_activation(reader, is_quick);
  config.layer_norm_eps = read_norm_eps(reader);
  refuse_changed_blocks(reader);
  for (const char* key : {"embed_cls", "no_causal_mask", "final_ln_after_pool", "proj_bias"}) reader.only(key, false);
  reader.only("pool_type", "argmax");
  reader.only("proj_type", "linear");
  if (reader.has("tokenizer_kwargs")) {
    ConfigReader tokenizer(reader.raw("tokenizer_kwargs"), reader.where() + " (tokenizer_kwargs)");
    tokenizer.only("clean", "lower");
    tokenizer.finish();
  }
  if (reader.has("tokenizer_mode")) reader.refuse("tokenizer_mode", reader.raw("tokenizer_mode"));
  // Of other kinds of pooling, of training, and of towers refused above.
  reader.ignore({"pad_id", "eos_id", "output_tokens", "hf_model_pretrained", "hf_proj_type", "hf_pooler_type"});
  reader.finish();
  return config;
}

// One number for all three channels, or three.
std::array<double, 3> read_channels(ConfigReader& reader, const std::string& key, std::array<double, 3> fallback) {
  const Json& value = reader.raw(key);
  if (value.is_null()) return fallback;
  if (value.is_number()) return {value.get<double>(), value.get<double>(), value.get<double>()};
  const auto list = reader.require<std::vector<double>>(key);
  if (list.size() != 3) reader.refuse(key, value);
  return {list[0], list[1], list[2]};
}

PicturePreparation parse_preprocess(ConfigReader& reader, int64_t image_size) {
  PicturePreparation preparation;
  preparation.recipe = PreparationRecipe::kPillow;
  preparation.shortest_edge = preparation.crop_height = preparation.crop_width = image_size;
  preparation.mean = read_channels(reader, "mean", preparation.mean);
  preparation.std = read_channels(reader, "std", preparation.std);
  for (const double deviation : preparation.std) {
    if (!(deviation > 0)) reader.refuse("std", reader.raw("std"));
  }
  const auto interpolation = reader.get<std::string>("interpolation", "bicubic");
  if (interpolation == "bilinear") {
    preparation.filter = images::ResizeFilter::kBilinear;
  } else if (interpolation != "bicubic" && interpolation != "random") {  // "random" is bicubic outside of training
    reader.refuse("interpolation", interpolation);
  }
  const auto mode = reader.get<std::string>("resize_mode", "shortest");
  if (mode == "squash") {
    preparation.shortest_edge = 0;
    preparation.resize_height = preparation.resize_width = image_size;
    preparation.crops = false;
  } else if (mode != "shortest") {
    reader.refuse("resize_mode", mode);
  }
  reader.only("mode", "RGB");
  // The size is the model's, whatever stands here; the colour fills borders of the resize mode "longest" only.
  reader.ignore({"size", "fill_color"});
  reader.finish();
  return preparation;
}

struct Architecture {
  const char* name;
  int64_t embed_dim;
  int64_t image_size, vision_layers, vision_width, head_width, patch_size;
  double vision_mlp_ratio;
  int64_t text_width, text_heads, text_layers;
};

// The files of open_clip's model_configs; with -quickgelu behind the name they have quick_gelu.
constexpr std::array kArchitectures = {
    Architecture{"ViT-B-32", 512, 224, 12, 768, 64, 32, 4, 512, 8, 12},
    Architecture{"ViT-B-16", 512, 224, 12, 768, 64, 16, 4, 512, 8, 12},
    Architecture{"ViT-L-14", 768, 224, 24, 1024, 64, 14, 4, 768, 12, 12},
    Architecture{"ViT-L-14-336", 768, 336, 24, 1024, 64, 14, 4, 768, 12, 12},
    Architecture{"ViT-H-14", 1024, 224, 32, 1280, 80, 14, 4, 1024, 16, 24},
    Architecture{"ViT-g-14", 1024, 224, 40, 1408, 88, 14, 4.3637, 1024, 16, 24},
    Architecture{"ViT-bigG-14", 1280, 224, 48, 1664, 104, 14, 4.9231, 1280, 20, 32},
};

}  // namespace

OpenClipConfig parse_open_clip_config(const Json& json, const std::string& where) {
  check_input(json.is_object(), where, ": expected a JSON object, found ", json.type_name());
  const Json model = json.contains("model_cfg") ? json.at("model_cfg") : json;
  check_input(model.is_object(), where, ": 'model_cfg' is no JSON object");
  ConfigReader reader(model, where + " (model_cfg)");
  const auto embed_dim = reader.require<int64_t>("embed_dim");
  const auto is_quick = reader.get("quick_gelu", false);
  ConfigReader vision(reader.require<Json>("vision_cfg"), where + " (vision_cfg)");
  ConfigReader text(reader.require<Json>("text_cfg"), where + " (text_cfg)");
  // Start values of weights, precision of training, what the forward pass returns, how the weights are grouped.
  reader.ignore(
      {"init_logit_scale", "init_logit_bias", "nonscalar_logit_scale", "cast_dtype", "output_dict", "custom_text"});
  reader.finish();
  OpenClipConfig config{.vision = parse_vision(vision, embed_dim, is_quick),
                        .text = parse_text(text, embed_dim, is_quick)};
  const bool has_preprocess = json.contains("preprocess_cfg") && !json.at("preprocess_cfg").is_null();
  ConfigReader preprocess(has_preprocess ? json.at("preprocess_cfg") : Json::object(), where + " (preprocess_cfg)");
  config.preparation = parse_preprocess(preprocess, config.vision.image_size);
  check_clip_vision_config(config.vision, where);
  text::check_clip_text_config(config.text, where);
  return config;
}

OpenClipConfig open_clip_architecture(const std::string& name) {
  constexpr std::string_view kQuick = "-quickgelu";
  const bool is_quick = name.ends_with(kQuick);
  const std::string base = is_quick ? name.substr(0, name.size() - kQuick.size()) : name;
  std::ostringstream known;
  for (const Architecture& a : kArchitectures) {
    known << (known.tellp() > 0 ? ", " : "") << a.name;
    if (base != a.name) continue;
    const Json model = {{"embed_dim", a.embed_dim},
                        {"quick_gelu", is_quick},
                        {"vision_cfg",
                         {{"image_size", a.image_size},
                          {"layers", a.vision_layers},
                          {"width", a.vision_width},
                          {"head_width", a.head_width},
                          {"mlp_ratio", a.vision_mlp_ratio},
                          {"patch_size", a.patch_size}}},
                        {"text_cfg", {{"width", a.text_width}, {"heads", a.text_heads}, {"layers", a.text_layers}}}};
    return parse_open_clip_config(model, name);
  }
  fail_usage("'", name, "' is no open_clip architecture known here; there are ", known.str(),
             ", each also with -quickgelu behind it; for others put an open_clip_config.json beside the weights");
}

}  // namespace prefusion::reward_models
