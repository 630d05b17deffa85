// Decoupled cross-attention against diffusers' IP-Adapter processors on the same weights.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "core/safetensors.h"
#include "nn/user_adapter.h"
#include "tests/support/python_reference.h"
#include "tests/support/tensor_near.h"
#include "unet/denoiser.h"

namespace prefusion::nn {
namespace {

TEST(UserAdapterParity, EqualsIpAdapterProcessors) {
  const at::NoGradGuard no_grad;
  const auto folder = tests::run_reference_script("make_user_attention.py");
  const TensorMap inputs = read_safetensors(folder / "inputs.safetensors");
  const TensorMap expected = read_safetensors(folder / "expected.safetensors");
  const auto unet = unet::load_denoiser(folder / "unet", at::kFloat, at::kCPU);
  const auto predict = [&](const at::Tensor& user_states) {
    return unet->forward(
        inputs.at("latents"), inputs.at("timesteps"),
        {.encoder_hidden_states = inputs.at("states"), .pooled = {}, .time_ids = {}, .user_states = user_states});
  };
  const auto adapter = UserAdapter::load(*unet, folder / "user_adapter.safetensors");
  EXPECT_EQ(adapter->users(), (std::vector<std::string>{"42", "anna"}));
  EXPECT_TRUE(tests::near(predict({}), expected.at("plain"), 1e-5));
  EXPECT_TRUE(tests::near(predict(adapter->states({"anna", "42"})), expected.at("users"), 1e-5));
  EXPECT_FALSE(tests::near(expected.at("users"), expected.at("plain"), 1e-2));
  adapter->set_scale(0.5);
  EXPECT_TRUE(tests::near(predict(adapter->states({"42", "somebody else"})), expected.at("half"), 1e-5));
}

}  // namespace
}  // namespace prefusion::nn
