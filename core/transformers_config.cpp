#include "core/transformers_config.h"

namespace prefusion {

void ignore_transformers_keys(ConfigReader& reader) {
  reader.ignore({"transformers_version",
                 "torch_dtype",
                 "dtype",
                 "initializer_range",
                 "initializer_factor",
                 "dropout",
                 "attention_dropout",
                 "attn_implementation",
                 "return_dict",
                 "output_hidden_states",
                 "output_attentions",
                 "torchscript",
                 "use_bfloat16",
                 "tf_legacy_loss",
                 "pruned_heads",
                 "tie_word_embeddings",
                 "chunk_size_feed_forward",
                 "is_encoder_decoder",
                 "is_decoder",
                 "cross_attention_hidden_size",
                 "add_cross_attention",
                 "tie_encoder_decoder",
                 "max_length",
                 "min_length",
                 "do_sample",
                 "early_stopping",
                 "num_beams",
                 "num_beam_groups",
                 "diversity_penalty",
                 "temperature",
                 "top_k",
                 "top_p",
                 "typical_p",
                 "repetition_penalty",
                 "length_penalty",
                 "no_repeat_ngram_size",
                 "encoder_no_repeat_ngram_size",
                 "bad_words_ids",
                 "num_return_sequences",
                 "output_scores",
                 "return_dict_in_generate",
                 "forced_bos_token_id",
                 "forced_eos_token_id",
                 "remove_invalid_values",
                 "exponential_decay_length_penalty",
                 "suppress_tokens",
                 "begin_suppress_tokens",
                 "finetuning_task",
                 "id2label",
                 "label2id",
                 "tokenizer_class",
                 "prefix",
                 "sep_token_id",
                 "decoder_start_token_id",
                 "task_specific_params",
                 "problem_type"});
}

Json transformers_half(const Json& config, const std::string& name) {
  const auto part = [&](const std::string& key) -> Json {
    return config.contains(key) && config.at(key).is_object() ? config.at(key) : Json();
  };
  Json half = part(name);
  const Json older = part(name + "_dict");
  if (older.is_null()) return half;
  if (half.is_null()) half = Json::object();
  half.update(older);
  return half;
}

}  // namespace prefusion
