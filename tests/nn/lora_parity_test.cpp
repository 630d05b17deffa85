#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "core/rng.h"
#include "core/safetensors.h"
#include "nn/lora.h"
#include "tests/support/python_reference.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tensor_near.h"
#include "text/clip_text_model.h"
#include "unet/denoiser.h"

namespace prefusion::nn {
namespace {

constexpr double kTolerance = 1e-5;

struct Outputs {
  at::Tensor hidden;
  at::Tensor prediction;
};

// The tiny model of tests/reference/make_lora.py with its inputs.
class LoraParity : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    reference = new std::filesystem::path(tests::run_reference_script("make_lora.py"));
    inputs = new TensorMap(read_safetensors(*reference / "inputs.safetensors"));
  }
  static void TearDownTestSuite() {
    delete reference;
    delete inputs;
  }

  Outputs run() {
    at::NoGradGuard no_grad;
    const unet::Conditioning conditioning{.encoder_hidden_states = inputs->at("states")};
    return {text->forward(inputs->at("ids")).last_hidden_state,
            unet->forward(inputs->at("latents"), inputs->at("timesteps"), conditioning)};
  }
  static Outputs read_outputs(const std::filesystem::path& file) {
    const TensorMap tensors = read_safetensors(file);
    return {tensors.at("hidden"), tensors.at("prediction")};
  }
  static Outputs expected(const std::string& name) { return read_outputs(*reference / name / "expected.safetensors"); }

  static void expect_same(const Outputs& found, const Outputs& expected, const std::string& what) {
    EXPECT_TRUE(tests::near(found.prediction, expected.prediction, kTolerance)) << what;
    EXPECT_TRUE(tests::near(found.hidden, expected.hidden, kTolerance)) << what;
  }

  std::shared_ptr<unet::Denoiser> load_unet() {
    return unet::load_denoiser(*reference / "model" / "unet", at::kFloat, at::kCPU);
  }

  static std::filesystem::path* reference;
  static TensorMap* inputs;
  std::shared_ptr<unet::Denoiser> unet = load_unet();
  std::shared_ptr<text::ClipTextModel> text =
      text::load_clip_text_model(*reference / "model" / "text_encoder", at::kFloat, at::kCPU);
};
std::filesystem::path* LoraParity::reference = nullptr;
TensorMap* LoraParity::inputs = nullptr;

TEST_F(LoraParity, EveryDialectGivesTheOutputOfDiffusers) {
  const Outputs base = run();
  expect_same(base, expected("base"), "base");
  const std::pair<const char*, const char*> cases[] = {
      {"attention", "diffusers"}, {"plain", "diffusers"},    {"text", "diffusers"}, {"conv", "diffusers"},
      {"rslora", "diffusers"},    {"patterns", "diffusers"}, {"kohya", "kohya"},    {"original", "kohya"},
      {"old", "diffusers-old"},   {"peft", "peft"},
  };
  for (const auto& [name, dialect] : cases) {
    const auto report =
        load_lora(*unet, text.get(), *reference / name / (std::string(name) == "peft" ? "" : "lora.safetensors"), 1.0);
    EXPECT_EQ(report.dialect, dialect) << name;
    EXPECT_TRUE(report.unmatched.empty()) << name << ": " << report.unmatched.front();
    const Outputs found = run();
    expect_same(found, expected(name), name);
    EXPECT_FALSE(at::allclose(found.prediction, base.prediction, 1e-3, 1e-3)) << name << " has no effect";
    for (const auto& adapter : {report.unet, report.text_encoder}) {
      if (adapter) adapter->remove();
    }
  }
  expect_same(run(), base, "after removing all");
}

TEST_F(LoraParity, SeveralAdaptersAddUpWithTheirScales) {
  load_lora(*unet, text.get(), *reference / "attention" / "lora.safetensors", 0.7);
  load_lora(*unet, text.get(), *reference / "conv" / "lora.safetensors", -0.4);
  expect_same(run(), expected("two"), "two");
  merge_lora(*unet);
  expect_same(run(), expected("two"), "merged");
}

TEST_F(LoraParity, SavedFilesGiveTheSameOutputInDiffusers) {
  const auto train = [](torch::nn::Module& network, const LoraConfig& config, uint64_t seed) {
    const auto adapter = LoraAdapter::create(network, config, make_torch_generator(seed));
    auto generator = make_torch_generator(seed + 1);
    for (const auto& [name, tensor] : adapter->parameters()) tensor.detach().normal_(0.0, 0.15, generator);
    return adapter;
  };
  const auto unet_adapter =
      train(*unet, {.rank = 3, .alpha = 7, .target_modules = {"to_q", "to_v", "to_out.0", "conv1"}}, 1);
  // diffusers recognises kohya's CLIP names by those of out_proj.
  const auto text_adapter = train(*text, {.rank = 2, .alpha = 3, .target_modules = {"q_proj", "out_proj", "fc1"}}, 3);
  const Outputs both = run();
  text_adapter->remove();
  const Outputs unet_only = run();
  unet_adapter->remove();

  // A loaded adapter with ranks and alphas that differ by layer, saved again.
  const auto patterns = load_lora(*unet, nullptr, *reference / "patterns" / "lora.safetensors", 1.0);

  const tests::TempDir folder;
  const auto file = [&](const char* name) { return folder / name; };
  save_lora(file("both.safetensors"), unet_adapter.get(), text_adapter.get(), LoraFormat::kDiffusers);
  save_lora(file("kohya.safetensors"), unet_adapter.get(), text_adapter.get(), LoraFormat::kKohya);
  save_lora(file("unet.safetensors"), unet_adapter.get(), nullptr, LoraFormat::kDiffusers);
  save_lora(file("patterns.safetensors"), patterns.unet.get(), nullptr, LoraFormat::kDiffusers);
  const auto results = tests::run_reference_script(
      "make_lora.py", {(*reference / "model").string(), file("both.safetensors"), file("kohya.safetensors"),
                       file("unet.safetensors"), file("patterns.safetensors")});
  expect_same(read_outputs(results / "0.safetensors"), both, "diffusers");
  expect_same(read_outputs(results / "1.safetensors"), both, "kohya");
  expect_same(read_outputs(results / "2.safetensors"), unet_only, "unet only");
  expect_same(read_outputs(results / "3.safetensors"), expected("patterns"), "patterns");
}

}  // namespace
}  // namespace prefusion::nn
