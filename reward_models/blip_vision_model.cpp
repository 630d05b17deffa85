#include "reward_models/blip_vision_model.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace prefusion::reward_models {
namespace {

constexpr double kEps = 1e-6;
constexpr int64_t kHeadWidth = 64;

class BlipAttentionImpl : public torch::nn::Module {
 public:
  explicit BlipAttentionImpl(const BlipVisionConfig& config) : num_heads_(config.num_heads) {
    qkv = register_module("qkv", nn::Linear(config.width, 3 * config.width));
    proj = register_module("proj", nn::Linear(config.width, config.width));
  }

  // [N, T, W] -> [N, T, W]
  at::Tensor forward(const at::Tensor& hidden_states) {
    const at::Tensor parts = qkv(hidden_states).unflatten(-1, {3, num_heads_, -1}).permute({2, 0, 3, 1, 4});
    const at::Tensor attended = at::scaled_dot_product_attention(parts[0], parts[1], parts[2]);
    return proj(attended.transpose(1, 2).flatten(2));
  }

 private:
  int64_t num_heads_;
  nn::Linear qkv{nullptr}, proj{nullptr};
};

class BlipMlpImpl : public torch::nn::Module {
 public:
  explicit BlipMlpImpl(const BlipVisionConfig& config) {
    fc1 = register_module("fc1", nn::Linear(config.width, config.mlp_width));
    fc2 = register_module("fc2", nn::Linear(config.mlp_width, config.width));
  }
  at::Tensor forward(const at::Tensor& hidden_states) { return fc2(at::gelu(fc1(hidden_states))); }

 private:
  nn::Linear fc1{nullptr}, fc2{nullptr};
};

const at::Tensor& require(const TensorMap& weights, const std::string& name, int64_t dim, const std::string& where) {
  const auto found = weights.find(name);
  check_input(found != weights.end(), where, ": the picture tower has no weight '", name, "'");
  check_input(found->second.dim() == dim, where, ": '", name, "' of the picture tower has the shape ",
              shape_text(found->second.sizes()), "; expected ", dim, " dimensions");
  return found->second;
}

}  // namespace

BlipVisionConfig blip_vision_config_of(const TensorMap& weights, int64_t num_heads, const std::string& where) {
  BlipVisionConfig config;
  const at::Tensor& patches = require(weights, "patch_embed.proj.weight", 4, where);
  config.width = patches.size(0);
  config.patch_size = patches.size(2);
  const int64_t num_patches = require(weights, "pos_embed", 3, where).size(1) - 1;
  const auto side =
      static_cast<int64_t>(std::lround(std::sqrt(static_cast<double>(std::max<int64_t>(num_patches, 0)))));
  check_input(num_patches > 0 && side * side == num_patches, where, ": 'pos_embed' has places for ", num_patches,
              " patches; expected a square of them and one token more");
  config.image_size = side * config.patch_size;
  config.depth = 0;
  while (weights.contains(concat("blocks.", config.depth, ".norm1.weight"))) ++config.depth;
  check_input(config.depth > 0, where, ": the picture tower has no weight 'blocks.0.norm1.weight'");
  config.mlp_width = require(weights, "blocks.0.mlp.fc1.weight", 2, where).size(0);
  check_usage(num_heads > 0 || config.width % kHeadWidth == 0, where, ": the picture tower is ", config.width,
              " wide, which is no multiple of ", kHeadWidth, "; say how many attention heads it has with heads=N");
  config.num_heads = num_heads > 0 ? num_heads : config.width / kHeadWidth;
  check_usage(config.width % config.num_heads == 0, where, ": the picture tower is ", config.width,
              " wide, which does not divide into ", config.num_heads, " heads");
  return config;
}

class BlipVisionModel::PatchEmbedImpl : public torch::nn::Module {
 public:
  explicit PatchEmbedImpl(const BlipVisionConfig& config) {
    proj = register_module("proj", nn::Conv2d(nn::Conv2dOptions{.in_channels = 3,
                                                                .out_channels = config.width,
                                                                .kernel_size = config.patch_size,
                                                                .stride = config.patch_size,
                                                                .padding = 0}));
  }
  // [N, 3, H, W] -> [N, patches, width]
  at::Tensor forward(const at::Tensor& pixel_values) { return proj(pixel_values).flatten(2).transpose(1, 2); }

 private:
  nn::Conv2d proj{nullptr};
};

class BlipVisionBlockImpl : public torch::nn::Module {
 public:
  explicit BlipVisionBlockImpl(const BlipVisionConfig& config) {
    norm1 = register_module("norm1", nn::LayerNorm(config.width, kEps));
    attn = register_module("attn", std::make_shared<BlipAttentionImpl>(config));
    norm2 = register_module("norm2", nn::LayerNorm(config.width, kEps));
    mlp = register_module("mlp", std::make_shared<BlipMlpImpl>(config));
  }

  at::Tensor forward(const at::Tensor& input) {
    const at::Tensor attended = input + attn->forward(norm1(input));
    return attended + mlp->forward(norm2(attended));
  }

 private:
  nn::LayerNorm norm1{nullptr}, norm2{nullptr};
  std::shared_ptr<BlipAttentionImpl> attn;
  std::shared_ptr<BlipMlpImpl> mlp;
};

BlipVisionModel::BlipVisionModel(const BlipVisionConfig& config) : config_(config), blocks(std::make_shared<Blocks>()) {
  const int64_t side = config.image_size / config.patch_size;
  cls_token = register_parameter("cls_token", at::empty({1, 1, config.width}));
  pos_embed = register_parameter("pos_embed", at::empty({1, side * side + 1, config.width}));
  patch_embed = register_module("patch_embed", std::make_shared<PatchEmbedImpl>(config));
  for (int64_t i = 0; i < config.depth; ++i) blocks->push_back(std::make_shared<BlipVisionBlockImpl>(config));
  register_module("blocks", blocks);
  norm = register_module("norm", nn::LayerNorm(config.width, kEps));
}

at::Tensor BlipVisionModel::forward(const at::Tensor& pixel_values) {
  const std::vector<int64_t> expected = {pixel_values.size(0), 3, config_.image_size, config_.image_size};
  check_usage(pixel_values.sizes() == expected, "BLIP vision model: expected pixel values ", shape_text(expected),
              ", found ", shape_text(pixel_values.sizes()));
  const at::Tensor patches = patch_embed->forward(pixel_values);
  at::Tensor states = at::cat({cls_token.expand({patches.size(0), 1, -1}), patches}, 1) + pos_embed;
  for (auto& block : *blocks) states = block->forward(states);
  return norm(states);
}

}  // namespace prefusion::reward_models
