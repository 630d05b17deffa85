#include "text/clip_text_config.h"

#include <vector>

#include "core/transformers_config.h"

namespace prefusion::text {

void check_clip_text_config(const ClipTextConfig& config, const std::string& where) {
  const auto positive = [&](const char* key, int64_t value) {
    check_input(value > 0 && value < (int64_t{1} << 31), where, ": '", key, "' = ", value, " is out of range");
  };
  positive("vocab_size", config.vocab_size);
  positive("hidden_size", config.hidden_size);
  positive("intermediate_size", config.intermediate_size);
  positive("num_attention_heads", config.num_attention_heads);
  positive("max_position_embeddings", config.max_position_embeddings);
  if (config.has_projection) positive("projection_dim", config.projection_dim);
  check_input(config.num_hidden_layers >= 0 && config.num_hidden_layers <= 1024, where,
              ": 'num_hidden_layers' = ", config.num_hidden_layers, " is out of range");
  check_input(config.hidden_size % config.num_attention_heads == 0, where, ": 'hidden_size' = ", config.hidden_size,
              " does not divide into 'num_attention_heads' = ", config.num_attention_heads);
}

namespace {

bool names_projection(const std::vector<std::string>& architectures, const std::string& where) {
  bool has_projection = false;
  for (const std::string& name : architectures) {
    check_input(name == "CLIPTextModel" || name == "CLIPTextModelWithProjection" || name == "CLIPModel", where,
                ": architecture '", name, "' is not supported; expected CLIPTextModel or CLIPTextModelWithProjection");
    has_projection = has_projection || name != "CLIPTextModel";
  }
  return has_projection;
}

ClipTextConfig parse_text_part(ConfigReader& reader) {
  ClipTextConfig config;
  const ClipTextConfig defaults;
  const std::string type = reader.get<std::string>("model_type", "clip_text_model");
  if (type != "clip_text_model") reader.refuse("model_type", type);
  config.vocab_size = reader.get("vocab_size", defaults.vocab_size);
  config.hidden_size = reader.get("hidden_size", defaults.hidden_size);
  config.intermediate_size = reader.get("intermediate_size", defaults.intermediate_size);
  config.projection_dim = reader.get("projection_dim", defaults.projection_dim);
  config.num_hidden_layers = reader.get("num_hidden_layers", defaults.num_hidden_layers);
  config.num_attention_heads = reader.get("num_attention_heads", defaults.num_attention_heads);
  config.max_position_embeddings = reader.get("max_position_embeddings", defaults.max_position_embeddings);
  config.hidden_act = reader.get("hidden_act", defaults.hidden_act);
  config.layer_norm_eps = reader.get("layer_norm_eps", defaults.layer_norm_eps);
  config.pad_token_id = reader.get("pad_token_id", defaults.pad_token_id);
  config.bos_token_id = reader.get("bos_token_id", defaults.bos_token_id);
  config.eos_token_id = reader.get("eos_token_id", defaults.eos_token_id);
  config.use_attention_mask = reader.get("use_attention_mask", false);
  config.has_projection = names_projection(reader.get("architectures", std::vector<std::string>{}), reader.where());
  ignore_transformers_keys(reader);
  reader.finish();
  return config;
}

}  // namespace

ClipTextConfig parse_clip_text_config(const Json& json, const std::string& where) {
  check_input(json.is_object(), where, ": expected a JSON object, found ", json.type_name());
  ClipTextConfig config;
  if (json.contains("text_config") && json.at("text_config").is_object()) {
    // The rest of a CLIPModel's config describes its picture tower.
    ConfigReader reader(transformers_half(json, "text_config"), where + " (text_config)");
    config = parse_text_part(reader);
    if (json.contains("projection_dim") && json.at("projection_dim").is_number_integer()) {
      config.projection_dim = json.at("projection_dim").get<int64_t>();
    }
    config.has_projection = true;
  } else {
    ConfigReader reader(json, where);
    config = parse_text_part(reader);
  }
  check_clip_text_config(config, where);
  return config;
}

}  // namespace prefusion::text
