#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/json_config.h"
#include "text/prompt_encoder.h"

namespace prefusion::text {

// The prompts of a model that is conditioned on classes instead of text: the label of a class, or its number. No text
// is no class. The state of a prompt is one token with a one at its class, which is exact in every dtype.
class ClassLabelEncoder : public PromptEncoder {
 public:
  // `labels`: number of a class by each of its names. Input error for one that is no class.
  ClassLabelEncoder(std::map<std::string, int64_t> labels, int64_t num_classes, at::ScalarType dtype,
                    at::Device device);

  // The number of the class a prompt names, num_classes for none. Input error for a prompt that names no class.
  int64_t class_of(const std::string& prompt) const;

  int64_t truncated_tokens(const std::string&) const override { return 0; }
  PromptWidths widths() const override { return {.states = num_classes_ + 1}; }
  ClipModels clip_models() const override { return {}; }

 private:
  PromptStates encode_prompts(const std::vector<std::string>& prompts, int64_t) override;
  PromptStates encode_negative_prompts(const std::vector<std::string>& prompts, int64_t) override {
    return encode(prompts);
  }
  std::string compute_content_key() const override;

  std::map<std::string, int64_t> labels_;
  int64_t num_classes_;
  at::ScalarType dtype_;
  at::Device device_;
};

// Names of the classes by `id2label` of a model_index.json: {"388": "giant panda, panda bear"} names class 388 twice.
// Where two classes share a name, the later entry has it. Input error, naming `where`, for anything else.
std::map<std::string, int64_t> class_labels(const Json& id2label, const std::string& where);

}  // namespace prefusion::text
