#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <functional>

#include "core/error.h"
#include "core/rng.h"
#include "nn/activation_checkpoint.h"
#include "nn/layers.h"
#include "nn/transformer_block.h"
#include "nn/user_adapter.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tensor_near.h"

namespace prefusion::nn {
namespace {

at::Tensor randn(at::IntArrayRef shape, uint64_t seed) {
  return philox_randn(shape, {.seed = seed}, RandomPurpose::kOther);
}

// A feature map through one transformer block.
class Network : public torch::nn::Module {
 public:
  Network() {
    block = register_module("block", Transformer2D(Transformer2DOptions{.channels = 8,
                                                                        .num_heads = 2,
                                                                        .head_dim = 4,
                                                                        .num_layers = 1,
                                                                        .cross_attention_dim = 6,
                                                                        .norm_num_groups = 4}));
    at::NoGradGuard no_grad;
    auto generator = make_torch_generator(5);
    for (auto& parameter : parameters()) parameter.normal_(0.0, 0.3, generator).set_requires_grad(false);
  }
  at::Tensor forward(const at::Tensor& user_states, bool recompute = false) {
    return block->forward(randn({2, 8, 3, 3}, 1), randn({2, 4, 6}, 2), user_states, recompute);
  }
  Transformer2D block{nullptr};
};

constexpr UserAdapterConfig kConfig{.num_tokens = 2, .width = 3};

std::shared_ptr<UserAdapter> make_adapter(Network& network) {
  auto adapter = UserAdapter::create(network, kConfig, make_torch_generator(1));
  adapter->add_users({"anna", "bert"}, 7);
  return adapter;
}

// An adapter whose values differ from zero.
std::shared_ptr<UserAdapter> make_trained(Network& network) {
  auto adapter = make_adapter(network);
  at::NoGradGuard no_grad;
  for (auto& [name, tensor] : adapter->projections()) tensor.normal_(0.0, 0.5, make_torch_generator(9));
  return adapter;
}

std::string error_of(const std::function<void()>& action, ErrorClass expected = ErrorClass::kInput) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.error_class(), expected) << error.what();
    return error.what();
  }
  return "";
}

TEST(UserAdapter, LeavesTheOutputUnchangedAtTheStart) {
  Network network;
  const at::Tensor before = network.forward({});
  const auto adapter = make_adapter(network);
  EXPECT_TRUE(at::equal(network.forward(adapter->states({"anna", ""})), before));
}

TEST(UserAdapter, ChangesTheOutputForItsUsersAlone) {
  Network network;
  const at::Tensor before = network.forward({});
  const auto adapter = make_trained(network);
  EXPECT_TRUE(at::equal(network.forward({}), before));
  const at::Tensor both = network.forward(adapter->states({"anna", "bert"}));
  const at::Tensor one = network.forward(adapter->states({"anna", "anna"}));
  EXPECT_FALSE(tests::near(both, before, 1e-3));
  EXPECT_TRUE(tests::near(both[0], one[0], 1e-6));
  EXPECT_FALSE(tests::near(both[1], one[1], 1e-3));
}

TEST(UserAdapter, FirstGradientsReachTheValuesAndTheNextTheUsersAskedFor) {
  Network network;
  const auto adapter = make_adapter(network);
  for (auto& [name, tensor] : adapter->projections()) tensor.set_requires_grad(true);
  for (auto& [name, tensor] : adapter->user_tensors()) tensor.set_requires_grad(true);
  const auto size_of_gradient = [](const at::Tensor& tensor) {
    return tensor.grad().defined() ? tensor.grad().abs().max().item<double>() : 0.0;
  };
  const auto gradients = [&] {
    network.forward(adapter->states({"anna", "anna"})).square().sum().backward();
    std::map<std::string, double> sizes;
    for (const auto& tensors : {adapter->projections(), adapter->user_tensors()}) {
      for (const auto& [name, tensor] : tensors) sizes[name] = size_of_gradient(tensor);
    }
    return sizes;
  };
  const std::string path = "block.transformer_blocks.0.attn2.";
  auto first = gradients();
  EXPECT_GT(first.at(path + "to_v_user.weight"), 0);
  EXPECT_EQ(first.at(path + "to_k_user.weight"), 0);
  EXPECT_EQ(first.at("users.anna"), 0);
  {
    at::NoGradGuard no_grad;
    adapter->projections()[1].tensor.normal_(0.0, 0.5, make_torch_generator(3));
  }
  auto second = gradients();
  EXPECT_GT(second.at(path + "to_k_user.weight"), 0);
  EXPECT_GT(second.at("users.anna"), 0);
  EXPECT_EQ(second.at("users.bert"), 0);
  EXPECT_EQ(second.at("users."), 0);
  for (const auto& parameter : network.parameters()) EXPECT_FALSE(parameter.grad().defined());
}

TEST(UserAdapter, RecomputedBlocksGiveTheSameGradients) {
  Network network;
  const auto adapter = make_trained(network);
  std::vector<NamedTensor> trained = adapter->projections();
  for (const auto& user : adapter->user_tensors()) trained.push_back(user);
  for (auto& [name, tensor] : trained) tensor.set_requires_grad(true);
  const auto gradients = [&](bool recompute) {
    network.forward(adapter->states({"anna", "bert"}), recompute).square().sum().backward();
    std::map<std::string, at::Tensor> found;
    for (auto& [name, tensor] : trained) {
      if (tensor.grad().defined()) found[name] = tensor.grad().clone();
      tensor.mutable_grad().reset();
    }
    return found;
  };
  const auto kept = gradients(false);
  const auto recomputed = gradients(true);
  EXPECT_EQ(kept.size(), 4u);
  for (const auto& [name, gradient] : kept) EXPECT_TRUE(at::equal(recomputed.at(name), gradient)) << name;
}

TEST(UserAdapter, StartOfAUserDependsOnSeedAndNameAlone) {
  Network first, second, third;
  const auto few = UserAdapter::create(first, kConfig, make_torch_generator(1));
  few->add_users({"bert"}, 7);
  EXPECT_TRUE(at::equal(few->states({"bert"}), make_adapter(second)->states({"bert"})));
  const auto other = UserAdapter::create(third, kConfig, make_torch_generator(1));
  other->add_users({"bert", "anna"}, 8);
  EXPECT_FALSE(at::equal(few->states({"bert"}), other->states({"bert"})));
  EXPECT_FALSE(at::equal(other->states({"anna"}), other->states({"bert"})));
}

TEST(UserAdapter, MixtureIsTheMeanByWeight) {
  Network network;
  const auto adapter = make_adapter(network);
  const at::Tensor anna = adapter->states({"anna"})[0], bert = adapter->states({"bert"})[0];
  EXPECT_TRUE(at::equal(adapter->mixture({{"anna", 2.0}}), anna));
  EXPECT_TRUE(tests::near(adapter->mixture({{"anna", 3.0}, {"bert", 1.0}}), 0.75 * anna + 0.25 * bert, 1e-6));
  EXPECT_TRUE(tests::near(adapter->mixture({{"anna", 1.5}, {"bert", -0.5}}), 1.5 * anna - 0.5 * bert, 1e-6));
  const auto text = error_of([&] { adapter->mixture({{"carl", 1.0}}); }, ErrorClass::kUsage);
  EXPECT_NE(text.find("'carl'"), std::string::npos);
  EXPECT_NE(text.find("anna, bert"), std::string::npos) << text;
  EXPECT_NE(error_of([&] { adapter->mixture({{"anna", 1.0}, {"bert", -1.0}}); }, ErrorClass::kUsage), "");
}

TEST(UserAdapter, UnknownUsersAreTheEmptyOneAndNewOnesMayStartThere) {
  Network network;
  const auto adapter = make_adapter(network);
  EXPECT_TRUE(at::equal(adapter->states({"nobody"}), adapter->states({""})));
  adapter->add_users_like_empty({"carl", "anna"});
  EXPECT_TRUE(at::equal(adapter->states({"carl"}), adapter->states({""})));
  EXPECT_FALSE(at::equal(adapter->states({"anna"}), adapter->states({""})));
}

TEST(UserAdapter, SecondOneIsRefused) {
  Network network;
  const auto adapter = make_adapter(network);
  EXPECT_NE(error_of([&] { make_adapter(network); }, ErrorClass::kUsage), "");
}

class UserAdapterFile : public testing::Test {
 protected:
  void SetUp() override {
    make_trained(network_)->save(path_);
    tensors_ = read_safetensors(path_, &metadata_);
  }
  std::string load_error() {
    write_safetensors(path_, tensors_, metadata_);
    Network other;
    return error_of([&] { UserAdapter::load(other, path_); });
  }

  Network network_;
  tests::TempDir folder_;
  std::filesystem::path path_ = folder_.path() / "user_adapter.safetensors";
  TensorMap tensors_;
  Metadata metadata_;
};

TEST_F(UserAdapterFile, HoldsEverything) {
  Network other;
  const auto loaded = UserAdapter::load(other, path_);
  EXPECT_EQ(loaded->users(), (std::vector<std::string>{"anna", "bert"}));
  EXPECT_EQ(loaded->config().num_tokens, 2);
  EXPECT_EQ(loaded->config().width, 3);
  const at::Tensor states = loaded->states({"anna", "bert"});
  EXPECT_TRUE(at::equal(other.forward(states), network_.forward(states)));
  EXPECT_TRUE(is_user_adapter(metadata_));
}

TEST_F(UserAdapterFile, OfAnotherKindIsRefused) {
  metadata_.erase("prefusion_adapter");
  EXPECT_NE(load_error().find("is no user adapter"), std::string::npos);
}

TEST_F(UserAdapterFile, WithoutTheEmptyUserIsRefused) {
  tensors_.erase("users.");
  EXPECT_NE(load_error().find("'users.'"), std::string::npos);
}

TEST_F(UserAdapterFile, MissingAndUnexpectedProjectionsAreNamed) {
  const std::string value = "block.transformer_blocks.0.attn2.to_v_user.weight";
  tensors_["block.elsewhere.to_v_user.weight"] = tensors_.at(value);
  tensors_.erase(value);
  const std::string text = load_error();
  EXPECT_NE(text.find(value), std::string::npos) << text;
  EXPECT_NE(text.find("elsewhere"), std::string::npos) << text;
}

TEST_F(UserAdapterFile, UsersOfOtherShapesTypesOrValuesAreNamed) {
  const at::Tensor good = tensors_.at("users.anna");
  for (const at::Tensor& bad : {good.slice(0, 0, 1), good.flatten(), good.to(at::kLong), good / 0.0}) {
    tensors_["users.anna"] = bad.contiguous();
    const std::string text = load_error();
    EXPECT_NE(text.find("'users.anna'"), std::string::npos) << text;
  }
}

TEST_F(UserAdapterFile, ValuesThatAreNotFiniteAreRefused) {
  at::Tensor& weight = tensors_["block.transformer_blocks.0.attn2.to_k_user.weight"];
  weight = weight / 0.0;
  EXPECT_NE(load_error().find("not finite"), std::string::npos);
}

TEST(UserStates, MayBeOneVectorAUser) {
  tests::TempDir folder;
  const auto path = folder.path() / "embeddings.safetensors";
  write_safetensors(path, {{"anna", at::ones({3})}, {"bert", at::full({3}, 3.0)}});
  const TensorMap states = read_user_states(path);
  EXPECT_EQ(states.at("anna").sizes(), at::IntArrayRef({1, 3}));
  Network network;
  const auto adapter = UserAdapter::create(network, {.num_tokens = 1, .width = 3}, make_torch_generator(1));
  adapter->set_users(states);
  EXPECT_TRUE(at::equal(adapter->states({""}), at::full({1, 1, 3}, 2.0)));
  EXPECT_TRUE(at::equal(adapter->states({"bert"}), at::full({1, 1, 3}, 3.0)));
  write_safetensors(path, {{"anna", at::ones({3})}, {"bert", at::ones({4})}});
  EXPECT_NE(error_of([&] { read_user_states(path); }).find("'bert'"), std::string::npos);
}

}  // namespace
}  // namespace prefusion::nn
