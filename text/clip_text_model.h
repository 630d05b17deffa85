#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "nn/layers.h"
#include "text/clip_text_config.h"

namespace prefusion::text {

struct ClipTextOutput {
  at::Tensor last_hidden_state;           // [B, L, D], after the final layer norm
  std::vector<at::Tensor> hidden_states;  // embeddings, then each layer's output: num_hidden_layers + 1 of [B, L, D]
  at::Tensor pooled;                      // [B, D], last_hidden_state at the end-of-text token
  at::Tensor text_embeds;                 // [B, projection_dim]; undefined without a text_projection
};

class ClipTextTransformerImpl;

// CLIP's text encoder (arXiv 2103.00020) as transformers' CLIPTextModel and CLIPTextModelWithProjection compute it: a
// causal pre-norm transformer. Checkpoint keys are its named_parameters(): "text_model.encoder.layers.0...".
class ClipTextModel : public torch::nn::Module {
 public:
  // Allocates the parameters without setting them. Input error for an unknown activation, naming `where`.
  ClipTextModel(const ClipTextConfig& config, const std::string& where);

  // input_ids: int64 [B, L], L at most max_position_embeddings; attention_mask: [B, L], non-zero where a token counts,
  // or undefined for all. Usage error for other shapes.
  ClipTextOutput forward(const at::Tensor& input_ids, const at::Tensor& attention_mask = {});

  // text_embeds [P, projection_dim] of P >= 1 texts, each int64 [1, L] of its own length: what forward() gives each of
  // them, and to the bit the same whichever texts share the call. Computed layer by layer, so that a layer's weights
  // are read from memory once; large ones that are views of a mapped file leave resident memory behind each layer.
  // Without gradients, for a model with a projection.
  at::Tensor text_embeds_of_each(const std::vector<at::Tensor>& input_ids);

  // The final layer norm alone, for clip skip: [..., D] -> [..., D].
  at::Tensor final_layer_norm(const at::Tensor& hidden_states);

  // The projection alone, of a model that has one: [..., D] -> [..., projection_dim].
  at::Tensor project(const at::Tensor& hidden_states) { return text_projection(hidden_states); }

  // Recompute the activations of each layer in the backward pass instead of keeping them.
  void set_gradient_checkpointing(bool enabled);

  const ClipTextConfig& config() const { return config_; }

 private:
  at::Tensor pool(const at::Tensor& last_hidden_state, const at::Tensor& input_ids) const;

  ClipTextConfig config_;
  std::shared_ptr<ClipTextTransformerImpl> text_model;
  nn::Linear text_projection{nullptr};
};

// The text encoder in `folder`: config.json and model*.safetensors. Takes keys with and without the "text_model."
// prefix (transformers 5 drops it from CLIPTextModel) and the text half of a whole CLIPModel. Input error when a file
// is missing, a setting is not supported, or the weights do not fit.
std::shared_ptr<ClipTextModel> load_clip_text_model(const std::filesystem::path& folder, at::ScalarType dtype,
                                                    at::Device device);

// The same network with allocated but unset weights, for pretraining; `config_json` is the text of a config.json.
std::shared_ptr<ClipTextModel> make_clip_text_model(const std::string& config_json, const std::string& where);

}  // namespace prefusion::text
