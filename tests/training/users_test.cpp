#include "training/users.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "losses/registry.h"
#include "tests/core/expect_error.h"
#include "tests/support/temp_dir.h"
#include "training/user_accuracy.h"
#include "unet/denoiser.h"

namespace prefusion::training {
namespace {

using tests::error_message;
using tests::mentions;

constexpr const char* kTinyUnet = R"({"_class_name": "UNet2DConditionModel", "sample_size": 8, "cross_attention_dim": 8,
  "block_out_channels": [8], "layers_per_block": 1, "down_block_types": ["CrossAttnDownBlock2D"],
  "up_block_types": ["CrossAttnUpBlock2D"], "attention_head_dim": 2, "norm_num_groups": 4})";

class Users : public testing::Test {
 protected:
  Users() {
    options.objective = "ppd";
    options.objective_args = "user_tokens=2,user_width=3";
  }
  std::string problem() {
    const auto& info = losses::find_objective_info(options.objective);
    return error_message(ErrorClass::kUsage, [&] { check_user_options(options, info); });
  }
  std::shared_ptr<nn::UserAdapter> make() {
    denoiser = unet::make_denoiser(kTinyUnet, "tiny");
    return make_user_adapter(*denoiser, options);
  }
  std::filesystem::path write_adapter() {
    const auto adapter = make();
    adapter->add_users({"anna"}, 1);
    adapter->save(folder / "start.safetensors");
    return folder / "start.safetensors";
  }
  static std::vector<std::string> names(const std::vector<NamedTensor>& tensors) {
    std::vector<std::string> found;
    for (const auto& [name, tensor] : tensors) {
      if (name.starts_with("users.")) found.push_back(name.substr(6));
    }
    return found;
  }

  AlignOptions options;
  tests::TempDir folder;
  std::shared_ptr<unet::Denoiser> denoiser;
};

TEST_F(Users, TrainProjectionsAndEverybodyByDefault) {
  const auto adapter = make();
  EXPECT_EQ(adapter->config().num_tokens, 2);
  const auto trained = enroll_users(*adapter, {"anna", "bert"}, options);
  EXPECT_EQ(names(trained), (std::vector<std::string>{"", "anna", "bert"}));
  EXPECT_EQ(trained.size(), adapter->projections().size() + 3);
  for (const auto& [name, tensor] : trained) EXPECT_TRUE(tensor.requires_grad()) << name;
}

TEST_F(Users, NewOnesAloneWhereTheProjectionsStay) {
  options.init_user_adapter = write_adapter();
  options.objective_args = "train=users";
  const auto adapter = make();
  const auto trained = enroll_users(*adapter, {"bert"}, options);
  EXPECT_EQ(names(trained), (std::vector<std::string>{"bert"}));
  EXPECT_EQ(trained.size(), 1u);
  EXPECT_TRUE(at::equal(adapter->states({"bert"}), adapter->states({""})));
  for (const auto& [name, tensor] : adapter->projections()) EXPECT_FALSE(tensor.requires_grad()) << name;
  const auto& info = losses::find_objective_info("ppd");
  EXPECT_EQ(user_dropout(losses::resolve_params(info, options.objective_args, {}, {})), 0.0);
  EXPECT_EQ(user_dropout(losses::resolve_params(info, "", {}, {})), 0.1);
}

TEST_F(Users, KnownOnesAreNotFittedAgain) {
  options.init_user_adapter = write_adapter();
  options.objective_args = "train=users";
  const auto adapter = make();
  const auto text = error_message(ErrorClass::kUsage, [&] { enroll_users(*adapter, {"anna", "bert"}, options); });
  EXPECT_TRUE(mentions(text, "'anna'")) << text;
}

TEST_F(Users, OfAFileStayAsTheyAre) {
  options.user_embeddings = folder / "embeddings.safetensors";
  write_safetensors(options.user_embeddings, {{"anna", at::ones({5})}, {"bert", at::zeros({5})}});
  const auto adapter = make();
  EXPECT_EQ(adapter->config().width, 5);
  const auto trained = enroll_users(*adapter, {"anna"}, options);
  EXPECT_TRUE(names(trained).empty());
  EXPECT_EQ(trained.size(), adapter->projections().size());
  const auto text = error_message(ErrorClass::kInput, [&] { enroll_users(*adapter, {"carl", "dora"}, options); });
  EXPECT_TRUE(mentions(text, "'carl' and 1 more")) << text;
}

TEST_F(Users, OptionsThatDoNotGoTogetherAreNamed) {
  const AlignOptions good = options;
  const auto expect_problem = [&](const auto& change, const char* part) {
    options = good;
    change(options);
    const std::string text = problem();
    EXPECT_TRUE(mentions(text, part)) << text;
  };
  check_user_options(options, losses::find_objective_info("ppd"));
  expect_problem([](AlignOptions& o) { o.reference = "ema:0.9"; }, "--reference ema:0.9");
  expect_problem([](AlignOptions& o) { o.objective_args = "train=users"; }, "--init-user-adapter");
  expect_problem([](AlignOptions& o) { o.init_user_adapter = o.user_embeddings = "x"; }, "--user-embeddings");
  expect_problem(
      [](AlignOptions& o) {
        o.objective = "diffusion-dpo";
        o.objective_args = "";
        o.user_embeddings = "x";
      },
      "knows no users");
}

TEST_F(Users, SizesThatDifferFromTheFilesAreRefused) {
  options.init_user_adapter = write_adapter();
  options.objective_args = "user_width=6";
  const auto text = error_message(ErrorClass::kUsage, [&] { make(); });
  EXPECT_TRUE(mentions(text, "user_width=3")) << text;
}

TEST(UserAccuracy, IsThatOfEachUserApart) {
  UserAccuracy accuracy;
  const at::Tensor error_ref = at::full({4, 2}, 1.0);
  const at::Tensor error = at::tensor({0.5, 0.9, 0.9, 0.5, 0.7, 0.7, 0.2, 0.4}, at::kDouble).view({4, 2});
  accuracy.add({"anna", "anna", "bert", "bert"}, error, error_ref);
  const Metrics metrics = accuracy.metrics();
  EXPECT_EQ(metrics.at("eval/user_accuracy/anna"), 0.5);
  EXPECT_EQ(metrics.at("eval/user_accuracy/bert"), 0.75);
  EXPECT_EQ(metrics.at("eval/user_accuracy"), 0.625);
  EXPECT_EQ(metrics.at("eval/user_accuracy_least"), 0.5);
  EXPECT_TRUE(UserAccuracy().metrics().empty());
}

}  // namespace
}  // namespace prefusion::training
