#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/nn/module.h>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/json_config.h"
#include "core/rng.h"
#include "core/safetensors.h"
#include "nn/layers.h"
#include "nn/lora.h"
#include "nn/lora_file.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tensor_near.h"

namespace prefusion::nn {
namespace {

class TwoLayers : public torch::nn::Module {
 public:
  TwoLayers() {
    to_q = register_module("to_q", Linear(4, 6));
    conv = register_module("conv_in",
                           Conv2d(Conv2dOptions{.in_channels = 4, .out_channels = 3, .kernel_size = 1, .padding = 0}));
  }
  Linear to_q{nullptr};
  Conv2d conv{nullptr};
};

at::Tensor draw(at::IntArrayRef shape, uint64_t seed) {
  return at::randn(shape, make_torch_generator(seed), at::kFloat);
}

class LoraFileTest : public testing::Test {
 protected:
  TensorMap linear_pair(const std::string& prefix = "unet.to_q") {
    return {{prefix + ".lora_A.weight", draw({2, 4}, 1)}, {prefix + ".lora_B.weight", draw({6, 2}, 2)}};
  }
  std::filesystem::path write(const TensorMap& tensors, const Metadata& metadata = {}) {
    write_safetensors(folder / "lora.safetensors", tensors, metadata);
    return folder / "lora.safetensors";
  }
  // What the branch on to_q adds for `input`, over B A input.
  double scale_of(const LoraLoadReport& report) { return network.to_q->lora_branches().back().scale; }
  std::string load_error(const std::filesystem::path& path) {
    try {
      load_lora(network, nullptr, path, 1.0);
    } catch (const Error& error) {
      EXPECT_EQ(error.exit_code(), 3) << error.what();
      EXPECT_TRUE(network.to_q->lora_branches().empty());
      return error.what();
    }
    return "";
  }

  tests::TempDir folder;
  TwoLayers network;
};

TEST_F(LoraFileTest, AlphaIsTheRankWithoutADescription) {
  const auto report = load_lora(network, nullptr, write(linear_pair()), 0.5);
  EXPECT_EQ(report.matched, std::vector<std::string>{"unet.to_q"});
  EXPECT_EQ(report.ranks.at("unet.to_q"), 2);
  EXPECT_EQ(report.alphas.at("unet.to_q"), 2);
  EXPECT_EQ(report.dialect, "diffusers");
  EXPECT_DOUBLE_EQ(scale_of(report), 0.5);
}

TEST_F(LoraFileTest, AlphaTensorsCountEachForItsOwnLayer) {
  TensorMap tensors = {{"lora_unet_to_q.lora_down.weight", draw({2, 4}, 1)},
                       {"lora_unet_to_q.lora_up.weight", draw({6, 2}, 2)},
                       {"lora_unet_to_q.alpha", at::scalar_tensor(1.0, at::kFloat)},
                       {"lora_unet_conv_in.lora_down.weight", draw({1, 4, 1, 1}, 3)},
                       {"lora_unet_conv_in.lora_up.weight", draw({3, 1, 1, 1}, 4)},
                       {"lora_unet_conv_in.alpha", at::full({1}, 5.0, at::kHalf)}};
  const auto report = load_lora(network, nullptr, write(tensors), 1.0);
  EXPECT_EQ(report.dialect, "kohya");
  EXPECT_DOUBLE_EQ(network.to_q->lora_branches().back().scale, 0.5);
  EXPECT_DOUBLE_EQ(network.conv->lora_branches().back().scale, 5.0);
}

TEST_F(LoraFileTest, DescriptionGivesAlphaWithPatternsAndRankStabilisation) {
  const auto scale = [&](const std::string& description) {
    return scale_of(load_lora(network, nullptr, write(linear_pair(), {{"lora_adapter_metadata", description}}), 1.0));
  };
  EXPECT_DOUBLE_EQ(scale(R"({"unet.r": 2, "unet.lora_alpha": 5})"), 2.5);
  EXPECT_DOUBLE_EQ(scale(R"({"unet.r": 7, "unet.rank_pattern": {"to_q": 2}, "unet.lora_alpha": 4})"), 2.0);
  EXPECT_DOUBLE_EQ(scale(R"({"unet.r": 2, "unet.alpha_pattern": {"^to_.": 6}, "unet.lora_alpha": 4})"), 3.0);
  EXPECT_DOUBLE_EQ(scale(R"({"unet.r": 2, "unet.alpha_pattern": {"q": 6}, "unet.lora_alpha": 4})"), 2.0);
  EXPECT_DOUBLE_EQ(scale(R"({"unet.r": 2, "unet.lora_alpha": 4, "unet.use_rslora": true})"), 4 / std::sqrt(2.0));
  EXPECT_DOUBLE_EQ(scale(R"({"text_encoder.r": 9, "text_encoder.lora_alpha": 4})"), 1.0);
}

TEST_F(LoraFileTest, RefusesDescriptionsOfMoreThanALora) {
  for (const char* key :
       {R"("unet.use_dora": true)", R"("unet.lora_bias": true)", R"("unet.bias": "all")",
        R"("unet.modules_to_save": ["conv_out"])", R"("unet.init_lora_weights": "pissa")",
        R"("unet.peft_type": "LOKR")", R"("unet.r": 3)", R"("unet.r": "2")", R"("unet.alpha_pattern": {"(": 2})"}) {
    const std::string message =
        load_error(write(linear_pair(), {{"lora_adapter_metadata", "{" + std::string(key) + "}"}}));
    EXPECT_NE(message.find("lora_adapter_metadata"), std::string::npos) << key << ": " << message;
  }
  EXPECT_NE(load_error(write(linear_pair(), {{"lora_adapter_metadata", "{"}})), "");
}

TEST_F(LoraFileTest, ReportsKeysThatFitNoLayer) {
  TensorMap tensors = linear_pair();
  tensors.merge(linear_pair("text_encoder.x"));
  tensors.emplace("unet.y.weight", draw({1}, 1));
  const auto report = load_lora(network, nullptr, write(tensors), 1.0);
  EXPECT_EQ(report.matched.size(), 1u);
  EXPECT_EQ(report.unmatched, (std::vector<std::string>{"unet.y.weight", "text_encoder.x.lora_A.weight",
                                                        "text_encoder.x.lora_B.weight"}));
}

TEST_F(LoraFileTest, RefusesAFileThatFitsNothing) {
  const std::string message = load_error(write(linear_pair("unet.other")));
  EXPECT_NE(message.find("unet.other.lora_A.weight"), std::string::npos) << message;
  EXPECT_NE(load_error(write({})), "");
  EXPECT_NE(load_error(folder / "missing.safetensors"), "");
}

TEST_F(LoraFileTest, RefusesDamagedPairsByName) {
  const auto with = [&](const std::string& key, const at::Tensor& tensor) {
    TensorMap tensors = linear_pair();
    tensors[key] = tensor;
    return load_error(write(tensors));
  };
  EXPECT_NE(with("unet.to_q.lora_A.weight", draw({3, 4}, 1)).find("disagree on the rank"), std::string::npos);
  EXPECT_NE(with("unet.to_q.lora_A.weight", draw({2, 5}, 1)).find("[2, 4]"), std::string::npos);
  EXPECT_NE(with("unet.to_q.lora_B.weight", draw({7, 2}, 1)).find("[6, 2]"), std::string::npos);
  EXPECT_NE(with("unet.to_q.lora_A.weight", draw({8}, 1)).find("dimensions"), std::string::npos);
  EXPECT_NE(with("unet.to_q.lora_A.weight", at::ones({2, 4}, at::kLong)).find("I64"), std::string::npos);
  EXPECT_NE(with("unet.to_q.lora_A.other.weight", draw({2, 4}, 1)).find("more than one adapter"), std::string::npos);
  EXPECT_NE(with("unet.conv_in.lora_A.weight", draw({1, 4, 1, 1}, 1)).find("without its B"), std::string::npos);
  EXPECT_NE(with("unet.to_q.alpha", draw({2}, 1)).find("single number"), std::string::npos);
  EXPECT_NE(with("unet.x.alpha", draw({1}, 1)).find("no weights"), std::string::npos);
}

TEST_F(LoraFileTest, LinearPairFitsAOneByOneConvolution) {
  const TensorMap tensors = {{"unet.conv_in.lora_A.weight", draw({2, 4}, 1)},
                             {"unet.conv_in.lora_B.weight", draw({3, 2}, 2)}};
  load_lora(network, nullptr, write(tensors), 1.0);
  EXPECT_EQ(network.conv->lora_branches().back().A.sizes(), at::IntArrayRef({2, 4, 1, 1}));
}

TEST_F(LoraFileTest, IsFoundInItsFolder) {
  write_safetensors(folder / "other.safetensors", {{"x", draw({1}, 1)}});
  write_safetensors(folder / "another.safetensors", {{"x", draw({1}, 1)}});
  EXPECT_NE(load_error(folder.path()).find("found 2"), std::string::npos);
  write_safetensors(folder / "pytorch_lora_weights.safetensors", linear_pair());
  EXPECT_EQ(load_lora(network, nullptr, folder.path(), 1.0).file, folder / "pytorch_lora_weights.safetensors");
}

TEST_F(LoraFileTest, SavedLoraComesBackTheSameInBothFormats) {
  const LoraConfig config{.rank = 2, .alpha = 5, .target_modules = {"to_q", "conv_in"}};
  const auto adapter = LoraAdapter::create(network, config, make_torch_generator(1));
  for (const auto& [name, tensor] : adapter->parameters()) tensor.detach().normal_(0.0, 1.0, make_torch_generator(2));
  adapter->remove();
  for (const auto format : {LoraFormat::kDiffusers, LoraFormat::kKohya}) {
    save_lora(folder / "saved.safetensors", adapter.get(), nullptr, format);
    const auto report = load_lora(network, nullptr, folder / "saved.safetensors", 1.0);
    ASSERT_TRUE(report.unet);
    ASSERT_EQ(report.unet->entries().size(), 2u);
    EXPECT_TRUE(report.unmatched.empty());
    for (const auto& loaded : report.unet->entries()) {
      const auto& saved = adapter->entries()[loaded.path == "to_q" ? 0 : 1];
      EXPECT_EQ(loaded.alpha, 5);
      EXPECT_TRUE(at::equal(loaded.A, saved.A));
      EXPECT_TRUE(at::equal(loaded.B, saved.B));
    }
    report.unet->remove();
  }
}

TEST_F(LoraFileTest, HeaderDescribesTheAdapterAsPeftDoes) {
  const LoraConfig config{.rank = 2, .alpha = 5, .target_modules = {"to_q", "conv_in"}};
  const auto adapter = LoraAdapter::create(network, config, make_torch_generator(1));
  save_lora(folder / "saved.safetensors", adapter.get(), nullptr, LoraFormat::kDiffusers);
  Metadata metadata;
  const TensorMap tensors = read_safetensors(folder / "saved.safetensors", &metadata);
  EXPECT_TRUE(tensors.contains("unet.to_q.lora_A.weight"));
  EXPECT_EQ(metadata.at("format"), "pt");
  const Json description = Json::parse(metadata.at("lora_adapter_metadata"));
  EXPECT_EQ(description.at("unet.r"), 2);
  EXPECT_EQ(description.at("unet.lora_alpha"), 5);
  EXPECT_EQ(description.at("unet.target_modules"), Json({"conv_in", "to_q"}));
  EXPECT_EQ(description.at("unet.peft_type"), "LORA");
  EXPECT_EQ(description.at("unet.rank_pattern"), Json::object());
}

}  // namespace
}  // namespace prefusion::nn
