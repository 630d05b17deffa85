// What to_channels_last does to whole networks: the order in memory, and nothing else.
#include "nn/channels_last.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "core/json_config.h"
#include "core/rng.h"
#include "nn/layers.h"
#include "tests/support/tensor_near.h"
#include "unet/denoiser.h"

namespace prefusion::unet {
namespace {

at::Tensor random(at::IntArrayRef shape, uint64_t item) {
  return philox_randn(shape, DrawKey{7, item, 0}, RandomPurpose::kOther);
}

std::shared_ptr<Denoiser> make(const char* time_scale_shift, bool use_linear_projection) {
  Json config = parse_json(R"({"_class_name": "UNet2DConditionModel", "down_block_types":
    ["CrossAttnDownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4, "cross_attention_dim": 12,
    "attention_head_dim": 2})",
                           "test");
  config["resnet_time_scale_shift"] = time_scale_shift;
  config["use_linear_projection"] = use_linear_projection;
  const auto model = make_denoiser(config.dump(), "test");
  nn::init_weights(*model, make_torch_generator(1));
  return model;
}

// Output, then the gradients of all weights in the order of the checkpoint.
std::vector<at::Tensor> differentiate(Denoiser& model) {
  std::vector<at::Tensor> weights;
  for (const auto& [name, weight] : nn::named_tensors(model))
    weights.push_back(at::Tensor(weight).requires_grad_(true));
  const at::Tensor output =
      model.forward(random({2, 4, 7, 10}, 1), at::tensor({17, 503}), {.encoder_hidden_states = random({2, 5, 12}, 2)});
  auto results = torch::autograd::grad({output}, weights, {random(output.sizes(), 3)});
  results.insert(results.begin(), output.detach());
  return results;
}

TEST(ChannelsLast, LeavesWhatANetworkComputesAsItIs) {
  for (const auto& [time_scale_shift, use_linear_projection] :
       {std::pair<const char*, bool>{"default", false}, {"default", true}, {"scale_shift", false}}) {
    const auto model = make(time_scale_shift, use_linear_projection);
    const auto expected = differentiate(*model);
    nn::to_channels_last(*model);
    const auto found = differentiate(*model);
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i) {
      EXPECT_TRUE(tests::near(found[i], expected[i], 2e-5)) << time_scale_shift << ", result " << i;
    }
    EXPECT_TRUE(nn::is_channels_last(found[0]));
    EXPECT_FALSE(nn::is_channels_last(expected[0]));
  }
}

TEST(ChannelsLast, MovesNoWeightOnACpu) {
  const auto model = make("default", false);
  nn::to_fastest_layout(*model);
  for (const auto& [name, weight] : nn::named_tensors(*model)) EXPECT_TRUE(weight.is_contiguous()) << name;
}

}  // namespace
}  // namespace prefusion::unet
