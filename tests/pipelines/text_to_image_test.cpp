#include "pipelines/text_to_image.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/json_config.h"
#include "core/safetensors.h"
#include "pipelines/sampling_start.h"
#include "tests/pipelines/pipeline_reference.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tensor_near.h"

namespace prefusion::pipelines {
namespace {

using tests::near;

// Peak signal-to-noise ratio of two uint8 pictures, in dB.
double psnr(const at::Tensor& found, const at::Tensor& expected) {
  if (found.sizes() != expected.sizes()) return -1;
  const double error = (found.to(at::kDouble) - expected.to(at::kDouble)).square().mean().item<double>();
  return error == 0 ? INFINITY : 10 * std::log10(255.0 * 255.0 / error);
}

class TextToImageReference : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = pipeline_reference();
    cases_ = new Json(read_json(folder_ / "cases.json"));
    tensors_ = new TensorMap(read_safetensors(folder_ / "cases.safetensors"));
  }
  static void TearDownTestSuite() {
    delete cases_;
    delete tensors_;
  }

  static TextToImage load(const std::string& model, int64_t clip_skip = 0, at::ScalarType dtype = at::kFloat) {
    return TextToImage::load(folder_ / "models" / model, dtype, at::kCPU, {.prompts = {.clip_skip = clip_skip}});
  }

  static ImageRequest request(const Json& item) {
    return {.prompt = item["prompt"], .negative_prompt = item["negative_prompt"], .seed = item["seed"]};
  }

  static GenerateOptions options(const Json& item) {
    GenerateOptions result;
    result.num_inference_steps = item["steps"];
    result.guidance = {.scale = item["guidance_scale"], .rescale = item["guidance_rescale"]};
    result.scheduler = item["scheduler"];
    result.eta = item["eta"];
    result.height_px = item["height"];
    result.width_px = item["width"];
    return result;
  }

  static void expect_equal(const at::Tensor& latents, const at::Tensor& image, const std::string& key) {
    EXPECT_TRUE(near(latents, tensors_->at(key + ".latents"), 2e-4));
    EXPECT_GT(psnr(image, tensors_->at(key + ".image")), 50.0);
  }

  inline static std::filesystem::path folder_;
  inline static Json* cases_ = nullptr;
  inline static TensorMap* tensors_ = nullptr;
};

TEST_F(TextToImageReference, EveryPictureEqualsDiffusers) {
  std::map<std::string, TextToImage> loaded;
  for (const Json& item : *cases_) {
    SCOPED_TRACE(item.dump());
    if (!item["loras"].empty()) continue;  // tests/tools/generate_test.cpp
    const std::string name = concat(item["model"].get<std::string>(), item["clip_skip"].dump());
    if (!loaded.contains(name)) loaded.emplace(name, load(item["model"], item["clip_skip"]));
    TextToImage& pipeline = loaded.at(name);
    const at::Tensor latents = pipeline.generate_latents({request(item)}, options(item));
    expect_equal(latents, pipeline.decode(latents)[0], item["key"]);
  }
}

TEST_F(TextToImageReference, PicturesOfABatchEqualThoseMadeAlone) {
  TextToImage pipeline = load("plain");
  std::vector<ImageRequest> requests;
  std::vector<std::string> keys;
  GenerateOptions shared;
  for (const Json& item : *cases_) {
    if (!item.contains("group")) continue;
    requests.push_back(request(item));
    keys.push_back(item["key"]);
    shared = options(item);
  }
  ASSERT_EQ(requests.size(), 3u);
  const at::Tensor latents = pipeline.generate_latents(requests, shared);
  const at::Tensor images = pipeline.decode(latents);
  for (size_t i = 0; i < keys.size(); ++i) {
    const auto index = static_cast<int64_t>(i);
    expect_equal(latents.narrow(0, index, 1), images[index], keys[i]);
  }
  EXPECT_LT(psnr(images[0], images[1]), 40.0);
}

TEST_F(TextToImageReference, UsesWeightsInMemory) {
  const TextToImage loaded = load("plain");
  TextToImage pipeline(loaded.components());
  const GenerateOptions options{.num_inference_steps = 2};
  const ImageRequest request{.prompt = "a red circle", .seed = 1};
  const at::Tensor before = pipeline.generate_latents({request}, options);
  {
    const at::NoGradGuard no_grad;
    for (at::Tensor& weight : loaded.components().denoiser->parameters()) weight.mul_(1.1);
  }
  EXPECT_FALSE(near(pipeline.generate_latents({request}, options), before, 1e-3));
  EXPECT_FALSE(before.requires_grad());
}

TEST_F(TextToImageReference, ReportsEveryDenoiserCall) {
  TextToImage pipeline = load("plain");
  GenerateOptions options{.num_inference_steps = 3, .scheduler = "heun"};
  std::vector<double> timesteps;
  at::Tensor last;
  options.on_step = [&](const SamplingStep& step) {
    EXPECT_EQ(step.index, timesteps.size());
    EXPECT_EQ(step.count, 5u);
    EXPECT_TRUE(!last.defined() || at::equal(step.latents, last));
    last = step.next;
    timesteps.push_back(step.timestep);
  };
  const at::Tensor latents = pipeline.generate_latents({{.prompt = "x"}}, options);
  EXPECT_EQ(timesteps.size(), 5u);
  EXPECT_TRUE(at::equal(latents, last));
}

TEST_F(TextToImageReference, RunsInHalfPrecision) {
  TextToImage pipeline = load("plain", 0, at::kBFloat16);
  const at::Tensor latents = pipeline.generate_latents({{.prompt = "x"}}, {.num_inference_steps = 2});
  EXPECT_EQ(latents.scalar_type(), at::kBFloat16);
  EXPECT_EQ(pipeline.decode(latents).scalar_type(), at::kByte);
}

TEST_F(TextToImageReference, RefusesSizesAndStepsTheModelCannotDo) {
  TextToImage pipeline = load("plain");
  const std::vector<ImageRequest> requests = {{.prompt = "x"}};
  const auto error_of = [&](const GenerateOptions& options) {
    try {
      pipeline.generate_latents(requests, options);
    } catch (const Error& error) {
      EXPECT_EQ(error.error_class(), ErrorClass::kUsage);
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(error_of({.height_px = 60}).find("--height 60"), std::string::npos);
  EXPECT_NE(error_of({.width_px = -8}).find("--width -8"), std::string::npos);
  EXPECT_NE(error_of({.num_inference_steps = 1001}).find("1001"), std::string::npos);
  EXPECT_NE(error_of({.scheduler = "best"}).find("best"), std::string::npos);
  EXPECT_NE(error_of({.scheduler = "ddim", .eta = 1.5}).find("--eta"), std::string::npos);
}

TEST_F(TextToImageReference, RefusesOtherPipelinesAndBrokenIndexes) {
  const tests::TempDir copy;
  std::filesystem::copy(folder_ / "models/plain", copy.path(), std::filesystem::copy_options::recursive);
  const Json original = read_json(copy / "model_index.json");
  const auto error_with = [&](const std::string& key, const Json& value) {
    Json changed = original;
    changed[key] = value;
    write_file(copy / "model_index.json", changed.dump());
    try {
      TextToImage::load(copy.path(), at::kFloat, at::kCPU);
    } catch (const Error& error) {
      EXPECT_EQ(error.error_class(), ErrorClass::kInput);
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(error_with("_class_name", "StableDiffusionUpscalePipeline").find("StableDiffusionUpscalePipeline"),
            std::string::npos);
  EXPECT_NE(error_with("unet", {"diffusers", "UNet3DConditionModel"}).find("UNet3DConditionModel"), std::string::npos);
  EXPECT_NE(error_with("vae", nullptr).find("vae"), std::string::npos);
  EXPECT_NE(error_with("text_encoder_2", {"transformers", "CLIPTextModel"}).find("text_encoder_2"), std::string::npos);
  EXPECT_EQ(error_with("safety_checker", {"stable_diffusion", "StableDiffusionSafetyChecker"}), "");
  std::filesystem::remove(copy / "model_index.json");
  EXPECT_THROW(TextToImage::load(copy.path(), at::kFloat, at::kCPU), Error);
}

TEST(Guidance, IsAStepFromNegativeToPositive) {
  const at::Tensor both = at::cat({at::full({1, 1, 2, 2}, 1.0), at::full({1, 1, 2, 2}, 3.0)});
  EXPECT_TRUE(near(apply_guidance(both, {.scale = 7.5}), at::full({1, 1, 2, 2}, 16.0), 1e-6));
}

TEST(Guidance, RescaleRestoresTheSpreadOfEachItem) {
  const at::Tensor both = at::arange(32, at::kFloat).reshape({4, 2, 2, 2}).sin();
  const at::Tensor rescaled = apply_guidance(both, {.scale = 5, .rescale = 1.0});
  const at::Tensor positive = both.narrow(0, 2, 2);
  EXPECT_TRUE(near(rescaled.flatten(1).std(1), positive.flatten(1).std(1), 1e-5));
}

TEST(Guidance, IntervalsAreSharesOfTheCalls) {
  const GuidanceInterval middle{.begin = 0.25, .end = 0.75};
  std::vector<bool> guided;
  for (size_t call = 0; call < 6; ++call) guided.push_back(middle.contains(call, 6));
  EXPECT_EQ(guided, (std::vector<bool>{false, true, true, true, false, false}));
  EXPECT_TRUE(GuidanceInterval{}.contains(0, 1));
}

TEST(Guidance, LimitedRangeIsThatOfTheModestScaleAroundTheSameMean) {
  const at::Tensor weak = at::arange(48, at::kFloat).reshape({2, 2, 3, 4}).sin();
  const at::Tensor limited = limit_range(5 * weak + 1, weak, 1.0);
  EXPECT_TRUE(near(limited, weak - weak.mean({2, 3}, true) + (5 * weak + 1).mean({2, 3}, true), 1e-5));
  EXPECT_TRUE(near(limit_range(at::ones({1, 1, 2, 2}), at::ones({1, 1, 2, 2}), 1.0), at::ones({1, 1, 2, 2}), 1e-6));
}

TEST(StartPicture, SkipsStepsByTheRuleOfTheFamily) {
  EXPECT_EQ(skipped_steps(ModelFamily::kStableDiffusion, 4, 0.6), 2);
  EXPECT_EQ(skipped_steps(ModelFamily::kStableDiffusion3, 4, 0.6), 1);
  EXPECT_EQ(skipped_steps(ModelFamily::kFlux, 10, 1.0), 0);
  EXPECT_EQ(skipped_steps(ModelFamily::kStableDiffusionXl, 100, 0.29), 72);  // 100 * 0.29 is 28.999... in double
  EXPECT_EQ(skipped_steps(ModelFamily::kStableDiffusion, 4, 0.2), 4);
}

TEST(ToImages, RoundsAndClamps) {
  const at::Tensor values = at::tensor({-2.0, -1.0, 0.0, 1.0, 3.0, 0.0039}, at::kFloat).reshape({1, 1, 1, 6});
  const at::Tensor image = to_images(values.expand({1, 3, 1, 6}));
  EXPECT_TRUE(at::equal(image[0][0].select(1, 0), at::tensor({0, 0, 128, 255, 255, 128}, at::kByte)));
}

}  // namespace
}  // namespace prefusion::pipelines
