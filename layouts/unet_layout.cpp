#include "core/error.h"
#include "layouts/network_layouts.h"

// The UNet of latent-diffusion numbers its layers through: input block 0 is the first convolution, then come the layers
// of the down blocks, each closed by a downsampler; output blocks are the layers of the up blocks, the last of each
// with the upsampler in it, behind the attention where there is one.
namespace prefusion::layouts {
namespace {

void add_resnet(std::vector<KeyRule>& rules, const std::string& original, const std::string& diffusers) {
  rules.push_back({original + ".in_layers.0.*", {diffusers + ".norm1.*"}});
  rules.push_back({original + ".in_layers.2.*", {diffusers + ".conv1.*"}});
  rules.push_back({original + ".emb_layers.1.*", {diffusers + ".time_emb_proj.*"}});
  rules.push_back({original + ".out_layers.0.*", {diffusers + ".norm2.*"}});
  rules.push_back({original + ".out_layers.3.*", {diffusers + ".conv2.*"}});
  rules.push_back({original + ".skip_connection.*", {diffusers + ".conv_shortcut.*"}});
}

void add_down_blocks(std::vector<KeyRule>& rules, const UNetShape& shape) {
  int64_t index = 1;
  for (int64_t block = 0; block < shape.num_blocks(); ++block) {
    const std::string name = concat("down_blocks.", block);
    for (int64_t layer = 0; layer < shape.layers[block]; ++layer, ++index) {
      const std::string original = concat("input_blocks.", index);
      add_resnet(rules, original + ".0", concat(name, ".resnets.", layer));
      rules.push_back({original + ".1.*", {concat(name, ".attentions.", layer, ".*")}});
    }
    if (block + 1 == shape.num_blocks()) continue;
    rules.push_back({concat("input_blocks.", index, ".0.op.*"), {name + ".downsamplers.0.conv.*"}});
    ++index;
  }
}

void add_up_blocks(std::vector<KeyRule>& rules, const UNetShape& shape) {
  int64_t index = 0;
  for (int64_t block = 0; block < shape.num_blocks(); ++block) {
    const std::string name = concat("up_blocks.", block);
    const int64_t layers = shape.layers[shape.num_blocks() - 1 - block] + 1;
    for (int64_t layer = 0; layer < layers; ++layer, ++index) {
      const std::string original = concat("output_blocks.", index);
      add_resnet(rules, original + ".0", concat(name, ".resnets.", layer));
      if (layer + 1 == layers) {
        rules.push_back(
            {concat(original, shape.up_attention[block] ? ".2" : ".1", ".conv.*"), {name + ".upsamplers.0.conv.*"}});
      }
      if (shape.up_attention[block]) {
        rules.push_back({original + ".1.*", {concat(name, ".attentions.", layer, ".*")}});
      }
    }
  }
}

}  // namespace

KeyMap unet_layout(const UNetShape& shape) {
  std::vector<KeyRule> rules = {{"input_blocks.0.0.*", {"conv_in.*"}},
                                {"time_embed.0.*", {"time_embedding.linear_1.*"}},
                                {"time_embed.2.*", {"time_embedding.linear_2.*"}},
                                {"label_emb.0.0.*", {"add_embedding.linear_1.*"}},
                                {"label_emb.0.2.*", {"add_embedding.linear_2.*"}},
                                {"out.0.*", {"conv_norm_out.*"}},
                                {"out.2.*", {"conv_out.*"}},
                                {"middle_block.1.*", {"mid_block.attentions.0.*"}}};
  add_resnet(rules, "middle_block.0", "mid_block.resnets.0");
  add_resnet(rules, "middle_block.2", "mid_block.resnets.1");
  add_down_blocks(rules, shape);
  add_up_blocks(rules, shape);
  return KeyMap(std::move(rules));
}

UNetShape unet_shape_of_original(const TensorSources& tensors, const std::string& where) {
  UNetShape shape;
  const int64_t count = count_numbered(tensors, "input_blocks.");
  int64_t layers = 0;
  for (int64_t i = 1; i < count; ++i) {
    if (tensors.contains(concat("input_blocks.", i, ".0.op.weight"))) {
      shape.layers.push_back(layers);
      layers = 0;
    } else {
      ++layers;
    }
  }
  shape.layers.push_back(layers);
  int64_t last = -1;  // output block that closes an up block
  for (int64_t block = 0; block < shape.num_blocks(); ++block) {
    check_input(shape.layers[block] > 0, where, ": the UNet has no layers in down block ", block);
    last += shape.layers[shape.num_blocks() - 1 - block] + 1;
    shape.up_attention.push_back(tensors.contains(concat("output_blocks.", last, ".1.norm.weight")));
  }
  check_input(count_numbered(tensors, "output_blocks.") == last + 1, where, ": the UNet has ",
              count_numbered(tensors, "output_blocks."), " output blocks, expected ", last + 1,
              " for its input blocks");
  return shape;
}

UNetShape unet_shape_of_diffusers(const TensorSources& tensors, const std::string& where) {
  UNetShape shape;
  const int64_t blocks = count_numbered(tensors, "down_blocks.");
  check_input(blocks > 0 && count_numbered(tensors, "up_blocks.") == blocks, where, ": the UNet has ", blocks,
              " down blocks and ", count_numbered(tensors, "up_blocks."), " up blocks");
  for (int64_t block = 0; block < blocks; ++block) {
    shape.layers.push_back(count_numbered(tensors, concat("down_blocks.", block, ".resnets.")));
    shape.up_attention.push_back(count_numbered(tensors, concat("up_blocks.", block, ".attentions.")) > 0);
  }
  return shape;
}

}  // namespace prefusion::layouts
