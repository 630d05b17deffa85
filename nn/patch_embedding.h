#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <map>
#include <utility>

#include "nn/layers.h"

namespace prefusion::nn {

// Sines and cosines of the place of each patch in a grid, and the scale of that grid.
struct PositionOptions {
  int64_t dim;             // a multiple of 4: half of it tells the column, half the row
  int64_t base_size = 16;  // places run from 0 to base_size / interpolation_scale, however many patches there are
  double interpolation_scale = 1;
};

// fp32 [height * width, dim], row by row; each half holds sines, then cosines, of frequencies 10000^(-4 i / dim).
// Input error for a dim that is no multiple of 4.
at::Tensor sin_cos_positions(int64_t height, int64_t width, const PositionOptions& options);

struct PatchEmbeddingOptions {
  int64_t in_channels;
  int64_t patch_size = 2;
  PositionOptions positions;
  // Side of the square grid whose middle is used at every size: the positions then are a buffer of the checkpoint.
  // 0: a grid of its own for every size.
  int64_t max_size = 0;
};

// Latents cut into patches, each projected to a token and told its place ("An Image is Worth 16x16 Words", arXiv
// 2010.11929). Parameters `proj.weight` and `proj.bias`, and the buffer `pos_embed` where there is a max_size.
class PatchEmbeddingImpl : public torch::nn::Module {
 public:
  explicit PatchEmbeddingImpl(const PatchEmbeddingOptions& options);

  // [B, C, H, W] -> [B, H / patch_size * W / patch_size, dim]. Input error when H or W does not divide into patches, or
  // the patches exceed max_size.
  at::Tensor forward(const at::Tensor& latents);

  // The values of the buffer, for a checkpoint that leaves them out and for a new network: [1, max_size^2, dim] fp32.
  at::Tensor position_grid() const;

  Conv2d proj{nullptr};
  at::Tensor pos_embed;  // undefined without max_size

 private:
  at::Tensor positions(int64_t height, int64_t width);  // of a grid of patches: [1, height * width, dim]

  PatchEmbeddingOptions options_;
  // Without max_size: those of grids that were asked for, by height and width. They stay where they are, for a recorded
  // pass (kernels/device_graph.h) reads them there.
  std::map<std::pair<int64_t, int64_t>, at::Tensor> known_positions_;
};
TORCH_MODULE(PatchEmbedding);

// The reverse of cutting: [B, h * w, patch_size^2 * C] (row and column in the patch, then channel)
// -> [B, C, h * patch_size, w * patch_size].
at::Tensor join_patches(const at::Tensor& tokens, int64_t height, int64_t width, int64_t patch_size);

}  // namespace prefusion::nn
