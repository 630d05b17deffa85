#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/weights.h"
#include "nn/lora.h"
#include "text/prompt_encoder.h"
#include "training/align_options.h"

namespace prefusion::training {

// The text encoders of a policy that trains them too: those of the model, with an adapter on the attention of each CLIP
// text model (q_proj, k_proj, v_proj, out_proj, as the training scripts of diffusers have it).
class TextPolicy {
 public:
  // Usage error, naming the family's class, for a model whose text encoders are not trained: only those of SD 1.x, 2.x
  // and SDXL are.
  static std::shared_ptr<TextPolicy> make(const AlignOptions& options, at::ScalarType dtype, at::Device device,
                                          at::Generator generator);

  // Text states of prompts under the adapters, with gradients.
  text::PromptStates encode(const std::vector<std::string>& prompts) {
    return encoder_->encode_with_gradients(prompts);
  }
  // The same of the start, the adapters off, without gradients: by the same operations on the same batch, so that they
  // are equal while the adapters are zero.
  text::PromptStates encode_start(const std::vector<std::string>& prompts);

  // By the component's name and the layer's: "text_encoder.text_model.encoder...".
  std::vector<NamedTensor> parameters() const;
  size_t weight_bytes() const;

  const std::shared_ptr<text::PromptEncoder>& encoder() const { return encoder_; }
  const nn::LoraAdapter* first() const { return first_.get(); }    // null where the model has none
  const nn::LoraAdapter* second() const { return second_.get(); }  // the same

 private:
  std::shared_ptr<text::PromptEncoder> encoder_;
  std::shared_ptr<nn::LoraAdapter> first_, second_;
};

}  // namespace prefusion::training
