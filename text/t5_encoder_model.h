#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <filesystem>
#include <memory>
#include <string>

#include "nn/layers.h"
#include "text/t5_config.h"

namespace prefusion::text {

class T5StackImpl;

// T5's encoder (arXiv 1910.10683, and its version 1.1) as transformers' T5EncoderModel computes it: pre-norm layers
// with RMS norms, unscaled attention with a bias by distance that all layers share, no biases elsewhere. Checkpoint
// keys are its named_parameters(): "shared.weight", "encoder.block.0.layer.0.SelfAttention.q.weight" ...
//
// In fp16 the last matrices of the feed-forward layers ("wo") stay fp32, as in transformers: their outputs leave the
// range of fp16. From the first of them on the states between layers are fp32 too.
class T5EncoderModel : public torch::nn::Module {
 public:
  // Allocates the parameters without setting them. Input error for an unknown activation, naming `where`.
  T5EncoderModel(const T5Config& config, const std::string& where);

  // input_ids: int64 [B, L]; attention_mask: [B, L], non-zero where a token counts, or undefined for all ->
  // [B, L, d_model], in the dtype of the embeddings. Usage error for other shapes.
  at::Tensor forward(const at::Tensor& input_ids, const at::Tensor& attention_mask = {});

  const T5Config& config() const { return config_; }
  // What a weight is computed with, wherever it is kept.
  at::ScalarType dtype_of(const std::string& name) const;
  // Of the embeddings.
  at::ScalarType dtype() const { return shared->weight.scalar_type(); }
  at::Device device() const { return shared->weight.device(); }

 private:
  T5Config config_;
  nn::Embedding shared{nullptr};
  std::shared_ptr<T5StackImpl> encoder;
};

// The encoder in `folder`: config.json and model*.safetensors, or pytorch_model*.bin where there are none. Takes the
// embeddings under either or both of their names, and the encoder's half of a whole T5 model. Input error when a file
// is missing, a setting is not supported, or the weights do not fit. With `streams_weights` those of its blocks stay in
// host memory (nn/frozen_weights.h).
std::shared_ptr<T5EncoderModel> load_t5_encoder_model(const std::filesystem::path& folder, at::ScalarType dtype,
                                                      at::Device device, bool streams_weights = false);

// The same network with allocated but unset weights; `config_json` is the text of a config.json.
std::shared_ptr<T5EncoderModel> make_t5_encoder_model(const std::string& config_json, const std::string& where);

}  // namespace prefusion::text
