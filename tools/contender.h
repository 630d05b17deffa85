#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "pipelines/text_to_image.h"

namespace prefusion::tools {

// A model among others, with the adapters on it.
struct Contender {
  std::filesystem::path model;
  std::vector<std::string> loras;  // PATH[:SCALE]
  std::string user_adapter;        // PATH[:SCALE], or empty
  std::string user;                // ID[:WEIGHT],...: whom its pictures are for; empty: the empty user
};

// DIR or DIR+LORA[:SCALE]+...: a model folder and adapters of its own. A plus that is part of an existing path is none.
Contender parse_contender(const std::string& text);

// What tells each model from the others: its folder, or that of its last adapter; names that repeat are numbered.
std::vector<std::string> distinct_names(const std::vector<Contender>& models);

// The pipeline with its LoRAs.
pipelines::TextToImage load_contender(const Contender& model, at::ScalarType dtype, at::Device device);

// Attaches the user adapter to it; the states of whom its pictures are for, [M, U], undefined without an adapter.
at::Tensor attach_users(const Contender& model, const pipelines::TextToImage& pipeline);

}  // namespace prefusion::tools
