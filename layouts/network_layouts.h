#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/tensor_source.h"
#include "layouts/key_map.h"

// The layouts of single networks. "Original" is the code a family was published with: CompVis' latent-diffusion and
// Stability's generative-models (UNet, autoencoder, OpenCLIP), Stability's sd3-ref, Black Forest Labs' flux.
namespace prefusion::layouts {

// Numbers of a UNet that its block names depend on.
struct UNetShape {
  std::vector<int64_t> layers;     // resnet blocks of each down block; an up block has one more
  std::vector<bool> up_attention;  // of each up block
  int64_t num_blocks() const { return static_cast<int64_t>(layers.size()); }
};
// Input error, naming `where`, for names of another network.
UNetShape unet_shape_of_original(const TensorSources& tensors, const std::string& where);
UNetShape unet_shape_of_diffusers(const TensorSources& tensors, const std::string& where);
KeyMap unet_layout(const UNetShape& shape);

KeyMap autoencoder_layout(int64_t num_blocks);

// A text encoder as transformers names it; files differ from folders by their prefix alone.
KeyMap transformers_layout();

// OpenCLIP's text tower against transformers' CLIPTextModel.
KeyMap open_clip_layout();

// MMDiT of SD3 and 3.5. `num_blocks` tells which block's context has an adaptive norm without a gate.
KeyMap sd3_layout(int64_t num_blocks);

// `width` of the hidden states; single blocks pack query, key, value and the feed-forward's input in one matrix.
KeyMap flux_layout(int64_t width);

// One more than the largest number behind `prefix` in the names: 0 where there is none.
int64_t count_numbered(const TensorSources& tensors, const std::string& prefix);

// Tensors of an original layout in diffusers' names and packing, and back. Input error that lists names the layout does
// not have, and parts of a packed tensor that are missing.
TensorSources original_to_diffusers(const TensorSources& tensors, const KeyMap& layout, const std::string& where);
TensorSources diffusers_to_original(const TensorSources& tensors, const KeyMap& layout, const std::string& where);

// The rows of each part of a packed tensor of `rows` rows. Input error when they do not add up.
std::vector<int64_t> part_rows(const KeyRule& rule, int64_t rows, const std::string& what);

}  // namespace prefusion::layouts
