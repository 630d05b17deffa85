#include "text/t5_config.h"

#include <algorithm>
#include <array>
#include <vector>

#include "core/transformers_config.h"

namespace prefusion::text {
namespace {

void check_architectures(const std::vector<std::string>& architectures, const std::string& where) {
  constexpr std::array kKnown = {"T5EncoderModel", "T5Model", "T5ForConditionalGeneration", "T5WithLMHeadModel"};
  for (const std::string& name : architectures) {
    check_input(std::find(kKnown.begin(), kKnown.end(), name) != kKnown.end(), where, ": architecture '", name,
                "' is not supported; expected T5EncoderModel");
  }
}

// "relu", "gated-gelu": an activation, gated or not. T5's gated GELU has always been the tanh approximation.
void parse_feed_forward(ConfigReader& reader, T5Config& config) {
  const std::string projection = reader.get<std::string>("feed_forward_proj", "relu");
  const size_t dash = projection.find('-');
  config.is_gated_act = dash != std::string::npos;
  config.dense_act_fn = config.is_gated_act ? projection.substr(dash + 1) : projection;
  const bool is_valid = !config.is_gated_act || projection.starts_with("gated-");
  if (!is_valid || config.dense_act_fn.find('-') != std::string::npos) reader.refuse("feed_forward_proj", projection);
  if (projection == "gated-gelu") config.dense_act_fn = "gelu_new";
  // Saved beside it by transformers since 4.22, which lets them win.
  config.dense_act_fn = reader.get("dense_act_fn", config.dense_act_fn);
  config.is_gated_act = reader.get("is_gated_act", config.is_gated_act);
}

void check_t5_config(const T5Config& config, const std::string& where) {
  const auto positive = [&](const char* key, int64_t value) {
    check_input(value > 0 && value < (int64_t{1} << 31), where, ": '", key, "' = ", value, " is out of range");
  };
  positive("vocab_size", config.vocab_size);
  positive("d_model", config.d_model);
  positive("d_kv", config.d_kv);
  positive("d_ff", config.d_ff);
  positive("num_heads", config.num_heads);
  check_input(config.num_layers >= 1 && config.num_layers <= 1024, where, ": 'num_layers' = ", config.num_layers,
              " is out of range");
  // A quarter of the buckets holds one distance each, the next quarter shares the rest up to the maximum; and as much
  // for the other direction.
  const int64_t num_exact = config.relative_attention_num_buckets / 4;
  check_input(num_exact >= 1 && config.relative_attention_num_buckets < (1 << 20), where,
              ": 'relative_attention_num_buckets' = ", config.relative_attention_num_buckets,
              " is out of range; expected at least 4");
  check_input(config.relative_attention_max_distance > num_exact, where,
              ": 'relative_attention_max_distance' = ", config.relative_attention_max_distance,
              " is out of range; expected more than ", num_exact);
}

}  // namespace

T5Config parse_t5_config(const Json& json, const std::string& where) {
  T5Config config;
  ConfigReader reader(json, where);
  reader.only<std::string>("model_type", "t5");
  check_architectures(reader.get("architectures", std::vector<std::string>{}), where);
  config.vocab_size = reader.get("vocab_size", config.vocab_size);
  config.d_model = reader.get("d_model", config.d_model);
  config.d_kv = reader.get("d_kv", config.d_kv);
  config.d_ff = reader.get("d_ff", config.d_ff);
  config.num_layers = reader.get("num_layers", config.num_layers);
  config.num_heads = reader.get("num_heads", config.num_heads);
  config.relative_attention_num_buckets =
      reader.get("relative_attention_num_buckets", config.relative_attention_num_buckets);
  config.relative_attention_max_distance =
      reader.get("relative_attention_max_distance", config.relative_attention_max_distance);
  config.layer_norm_epsilon = reader.get("layer_norm_epsilon", config.layer_norm_epsilon);
  parse_feed_forward(reader, config);
  reader.only("is_decoder", false);
  ignore_transformers_keys(reader);
  // Dropout acts in training alone, the rest in the decoder or in nothing but old versions of the library.
  reader.ignore({"dropout_rate", "classifier_dropout", "num_decoder_layers", "scale_decoder_outputs", "use_cache",
                 "pad_token_id", "bos_token_id", "eos_token_id", "n_positions", "output_past",
                 "gradient_checkpointing"});
  reader.finish();
  check_t5_config(config, where);
  return config;
}

}  // namespace prefusion::text
