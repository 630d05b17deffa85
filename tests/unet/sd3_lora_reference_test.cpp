// LoRAs of a transformer denoiser against diffusers and PEFT, in both directions.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "core/error.h"
#include "core/json_config.h"
#include "core/rng.h"
#include "core/safetensors.h"
#include "nn/lora.h"
#include "nn/lora_metadata.h"
#include "tests/support/python_reference.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tensor_near.h"
#include "tests/unet/denoiser_parity.h"
#include "tests/unet/sd3_reference.h"
#include "unet/denoiser.h"

namespace prefusion::unet {
namespace {

using nn::LoraAdapter;
using nn::LoraConfig;
using nn::LoraFormat;
using tests::near;

constexpr double kTolerance = 1e-5;

const std::vector<std::string>& joint_targets() {
  static const std::vector<std::string> targets = {"to_q",       "to_k",       "to_v",       "to_out.0",
                                                   "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"};
  return targets;
}

class SD3Lora : public testing::Test {
 protected:
  at::Tensor run() {
    const at::NoGradGuard no_grad;
    return predict(*model, tensors);
  }
  static at::Tensor prediction_in(const std::filesystem::path& file) {
    return read_safetensors(file).at("prediction").clone();
  }
  std::shared_ptr<LoraAdapter> random_adapter(const LoraConfig& config) {
    const auto adapter = LoraAdapter::create(*model, config, make_torch_generator(1));
    auto generator = make_torch_generator(2);
    for (const auto& [name, tensor] : adapter->parameters()) tensor.detach().normal_(0.0, 0.15, generator);
    return adapter;
  }

  std::filesystem::path base = sd3_reference() / "medium_35";
  std::shared_ptr<Denoiser> model = load_denoiser(base, at::kFloat, at::kCPU);
  TensorMap tensors = read_case(base);
};

TEST_F(SD3Lora, EveryFileGivesTheOutputOfDiffusers) {
  const at::Tensor without = run();
  // name, dialect, layers: 3 blocks, two of them dual; the last has no to_add_out and no ff_context.
  const std::vector<std::tuple<const char*, const char*, size_t>> cases = {
      {"attention", "diffusers", 20}, {"joint", "diffusers", 31}, {"everywhere", "diffusers", 41},
      {"plain", "diffusers", 31},     {"flat", "kohya", 31},
  };
  for (const auto& [name, dialect, num_layers] : cases) {
    const std::filesystem::path folder = sd3_reference() / "lora" / name;
    const auto report = nn::load_lora(*model, nullptr, folder / "lora.safetensors", 1.0);
    EXPECT_EQ(report.dialect, dialect) << name;
    EXPECT_TRUE(report.unmatched.empty()) << name << ": " << report.unmatched.front();
    EXPECT_EQ(report.matched.size(), num_layers) << name;
    EXPECT_TRUE(report.matched.front().starts_with("transformer.")) << report.matched.front();
    const at::Tensor found = run();
    EXPECT_TRUE(near(found, prediction_in(folder / "expected.safetensors"), kTolerance)) << name;
    EXPECT_FALSE(near(found, without, 0.01)) << name << " has no effect";
    report.unet->remove();
  }
  EXPECT_TRUE(at::equal(run(), without));
}

TEST_F(SD3Lora, SavedFilesGiveTheSameOutputInDiffusers) {
  const auto adapter = random_adapter({.rank = 3, .alpha = 7, .target_modules = joint_targets()});
  const at::Tensor with_adapter = run();
  adapter->remove();
  const auto patterns = nn::load_lora(*model, nullptr, sd3_reference() / "lora/joint/lora.safetensors", 1.0);
  const tests::TempDir folder;
  const auto save = [&](const char* name, const LoraAdapter& saved, LoraFormat format) {
    nn::save_lora(folder / name, &saved, nullptr, format, nullptr, model->info().component);
  };
  save("new.safetensors", *adapter, LoraFormat::kDiffusers);
  save("patterns.safetensors", *patterns.unet, LoraFormat::kDiffusers);
  save("flat.safetensors", *adapter, LoraFormat::kKohya);
  patterns.unet->remove();

  const auto results = tests::run_reference_script("make_transformers_sd3.py",
                                                   {base, folder / "new.safetensors", folder / "patterns.safetensors"});
  EXPECT_TRUE(near(prediction_in(results / "0.safetensors"), with_adapter, kTolerance));
  EXPECT_TRUE(near(prediction_in(results / "1.safetensors"),
                   prediction_in(sd3_reference() / "lora/joint/expected.safetensors"), kTolerance));
  nn::load_lora(*model, nullptr, folder / "flat.safetensors", 1.0);
  EXPECT_TRUE(near(run(), with_adapter, kTolerance));
}

TEST_F(SD3Lora, FilesNameTheTransformerAndDescribeItsAdapter) {
  const auto adapter = random_adapter({.rank = 2, .alpha = 5, .target_modules = {"attn.to_q"}});
  ASSERT_EQ(adapter->entries().size(), 3u);
  const tests::TempDir folder;
  const std::filesystem::path file = folder / "lora.safetensors";
  nn::save_lora(file, adapter.get(), nullptr, LoraFormat::kDiffusers, nullptr, "transformer");
  Metadata metadata;
  const TensorMap saved = read_safetensors(file, &metadata);
  EXPECT_TRUE(saved.contains("transformer.transformer_blocks.0.attn.to_q.lora_A.weight"));
  const Json description = Json::parse(metadata.at(nn::kLoraMetadataKey));
  EXPECT_EQ(description.at("transformer.r"), 2);
  EXPECT_EQ(description.at("transformer.lora_alpha"), 5);
  nn::save_lora(file, adapter.get(), nullptr, LoraFormat::kKohya, nullptr, "transformer");
  EXPECT_TRUE(read_safetensors(file).contains("lora_transformer_transformer_blocks_0_attn_to_q.lora_down.weight"));
  EXPECT_THROW(nn::save_lora(file, adapter.get(), nullptr, LoraFormat::kDiffusers, nullptr, "vae"), Error);
}

TEST_F(SD3Lora, TrainsThroughCheckpointedBlocksWithTheSameBits) {
  const auto adapter = random_adapter({.rank = 2, .alpha = 2, .target_modules = joint_targets()});
  std::vector<std::vector<at::Tensor>> grads(2);
  for (const bool recompute : {false, true}) {
    model->set_gradient_checkpointing(recompute);
    for (const auto& [name, tensor] : adapter->parameters()) at::Tensor(tensor).mutable_grad() = at::Tensor();
    predict(*model, tensors).backward(tensors.at("cotangent"));
    for (const auto& [name, tensor] : adapter->parameters()) {
      ASSERT_TRUE(tensor.grad().defined()) << name;
      grads[recompute].push_back(tensor.grad().clone());
    }
  }
  for (size_t i = 0; i < grads[0].size(); ++i) EXPECT_TRUE(at::equal(grads[0][i], grads[1][i])) << i;
}

TEST_F(SD3Lora, ActsInHalfPrecisionAndMerges) {
  const at::Tensor without = run();
  const auto adapter = random_adapter({.rank = 2, .alpha = 2, .target_modules = joint_targets()});
  const at::Tensor with_adapter = run();
  {
    const nn::AdapterOff off(*model);
    EXPECT_TRUE(at::equal(run(), without));
  }
  nn::merge_lora(*model);
  EXPECT_TRUE(near(run(), with_adapter, kTolerance));
  model = load_denoiser(base, at::kBFloat16, at::kCPU);
  random_adapter({.rank = 2, .alpha = 2, .target_modules = joint_targets()});
  EXPECT_TRUE(near(run(), with_adapter, 0.05));
}

}  // namespace
}  // namespace prefusion::unet
