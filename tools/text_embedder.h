#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>
#include <vector>

namespace prefusion::tools {

// Where embeddings of prompts come from: fp32 [P, D] of unit length.
struct TextEmbedderOptions {
  std::filesystem::path text_encoder;  // empty: hashed n-grams
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
  bool progress = true;
};

// Of a CLIP folder the projected text features, of a diffusers model folder what its text encoder pools at the end
// token; without a folder hashed_ngrams(). Input error when the folder holds neither.
at::Tensor embed_texts(const std::vector<std::string>& texts, const TextEmbedderOptions& options);

}  // namespace prefusion::tools
