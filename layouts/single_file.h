#pragma once

#include <string>
#include <vector>

#include "layouts/family.h"
#include "layouts/network_layouts.h"

namespace prefusion::layouts {

// A network and its weights in diffusers' (transformers') names.
struct ComponentWeights {
  const ComponentLayout* layout = nullptr;
  TensorSources weights;
};

struct SingleFile {
  Family family = Family::kSd1;
  std::vector<ComponentWeights> components;  // those the file has, in the family's order
  std::vector<std::string> left_out;         // names that are no weights of them
};

struct SplitOptions {
  bool use_ema = false;  // the averaged weights of the denoiser, where a training script kept both
  // Layers the text encoder of SD 2 keeps: it was trained on the states before the last of ViT-H's 24 layers.
  int64_t sd2_text_layers = 23;
};

// Splits a single-file checkpoint into its networks. Input error for another architecture, and for tensors within a
// network that no layer of it has.
SingleFile split_single_file(const TensorSources& tensors, const SplitOptions& options, const std::string& where);

// The tensors of a single file of a family. Input error for weights that are not of the family's networks.
TensorSources join_single_file(Family family, const std::vector<ComponentWeights>& components,
                               const std::string& where);

// The table between a network's two layouts, made for the numbers of its blocks.
KeyMap layout_of_original(const ComponentLayout& component, const TensorSources& tensors, const std::string& where);
KeyMap layout_of_diffusers(const ComponentLayout& component, const TensorSources& tensors, const std::string& where);

}  // namespace prefusion::layouts
