#pragma once

#include <filesystem>
#include <memory>

#include "pipelines/model_index.h"
#include "text/prompt_encoder.h"

namespace prefusion::pipelines {

// All text encoders of a diffusers folder, by the family its model_index.json names. Input error when one is missing or
// unsupported or they do not fit each other; usage error for a clip skip they have no layers for.
std::shared_ptr<text::PromptEncoder> load_prompt_encoder(const std::filesystem::path& model_dir,
                                                         const ModelIndex& index, at::ScalarType dtype,
                                                         at::Device device,
                                                         const text::PromptEncoderOptions& options = {});

}  // namespace prefusion::pipelines
