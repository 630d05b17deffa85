#include "pipelines/sampling_run.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "tests/pipelines/pipeline_reference.h"
#include "tests/support/tensor_near.h"

namespace prefusion::pipelines {
namespace {

using tests::near;

TextToImage load(const std::string& model) {
  return TextToImage::load(pipeline_reference() / "models" / model, at::kFloat, at::kCPU);
}

// The same network taken for a flow model.
TextToImage load_flow(const std::string& fields = R"("shift": 3.0)") {
  PipelineComponents components = load("plain").components();
  components.scheduler_config = schedulers::parse_scheduler_config(
      R"({"_class_name": "FlowMatchEulerDiscreteScheduler", )" + fields + "}", "test");
  return TextToImage(std::move(components));
}

std::vector<ImageRequest> requests() {
  return {{.prompt = "a red circle", .seed = 3},
          {.prompt = "a blue square", .seed = 4},
          {.prompt = "a red circle", .negative_prompt = "blue", .seed = 5},
          {.prompt = "", .seed = 6}};
}

at::Tensor run_to_end(SamplingRun& run) {
  while (!run.is_done()) run.step();
  return run.latents();
}

// Whatever a sampler remembers of its earlier calls, the pictures that go on are those of a whole batch.
TEST(SamplingRun, PicturesThatGoOnAreNotChangedByThoseThatAreDropped) {
  TextToImage plain = load("plain"), flow = load_flow(R"("shift": 3.0, "stochastic_sampling": true)");
  const at::Tensor kept = at::tensor({0, 2, 3}, at::kLong);
  for (const auto& entry : schedulers::scheduler_entries()) {
    if (std::string(entry.name) == "flow-heun") flow = load_flow();
    TextToImage& pipeline = std::string(entry.name).starts_with("flow") ? flow : plain;
    const GenerateOptions options{.num_inference_steps = 5, .scheduler = entry.name, .eta = 0.0};
    SamplingRun whole(pipeline, requests(), options);
    const at::Tensor expected = run_to_end(whole);
    for (const size_t call : {size_t{1}, size_t{2}, whole.num_calls() - 1}) {
      SCOPED_TRACE(concat(entry.name, " after call ", call));
      SamplingRun run(pipeline, requests(), options);
      while (run.position() < call) run.step();
      run.keep({0, 2, 3});
      EXPECT_TRUE(near(run_to_end(run), expected.index_select(0, kept), 1e-5));
    }
  }
}

TEST(SamplingRun, DropsAgainAndAgain) {
  TextToImage pipeline = load("plain");
  const GenerateOptions options{.num_inference_steps = 6, .scheduler = "euler-a"};
  SamplingRun whole(pipeline, requests(), options);
  const at::Tensor expected = run_to_end(whole);
  SamplingRun run(pipeline, requests(), options);
  run.step();
  run.keep({1, 2, 3});
  run.step();
  run.keep({0, 1, 2});
  run.step();
  run.keep({1});
  EXPECT_TRUE(near(run_to_end(run), expected.narrow(0, 2, 1), 1e-5));
}

TEST(SamplingRun, GuidanceAndStepInOnePassMakeTheSamePictures) {
  TextToImage plain = load("plain"), v = load("v"), flow = load_flow();
  for (const auto& [pipeline, scheduler] : {std::pair<TextToImage*, const char*>{&plain, "ddim"},
                                            {&v, "ddim"},
                                            {&plain, "euler"},
                                            {&flow, "flow-euler"},
                                            {&plain, "heun"}}) {
    for (const double rescale : {0.0, 0.7}) {
      SCOPED_TRACE(concat(scheduler, ", rescale ", rescale));
      GenerateOptions options{.num_inference_steps = 5, .scheduler = scheduler};
      options.guidance.rescale = rescale;
      SamplingRun apart(*pipeline, requests(), options);
      options.fuses_steps = true;
      SamplingRun together(*pipeline, requests(), options);
      while (!apart.is_done()) {
        apart.step();
        together.step();
        EXPECT_TRUE(near(together.predicted_clean(), apart.predicted_clean(), 1e-4));
      }
      EXPECT_TRUE(near(together.latents(), apart.latents(), 1e-4));
      // Flow models' step is rounded in the same order either way.
      if (std::string(scheduler) == "flow-euler") continue;
      const bool is_one_pass = rescale == 0 && std::string(scheduler) != "heun";
      EXPECT_EQ(!at::equal(together.latents(), apart.latents()), is_one_pass) << "the order of rounding";
    }
  }
}

// Euler's last step goes to noise level 0 along the last prediction.
TEST(SamplingRun, LastPredictionIsThePicture) {
  for (const char* model : {"plain", "v"}) {
    SCOPED_TRACE(model);
    TextToImage pipeline = load(model);
    for (const char* scheduler : {"euler", "heun"}) {
      SamplingRun run(pipeline, requests(), {.num_inference_steps = 4, .scheduler = scheduler});
      const at::Tensor latents = run_to_end(run);
      EXPECT_TRUE(near(run.predicted_clean(), latents, 1e-3)) << scheduler;
    }
  }
}

// The last step of a flow model goes to noise level 0 along the last velocity, or to what it points to.
TEST(SamplingRun, LastPredictionOfAFlowModelIsThePicture) {
  for (const char* fields : {R"("shift": 3.0)", R"("shift": 3.0, "stochastic_sampling": true)",
                             R"("shift": 3.0, "use_dynamic_shifting": true)"}) {
    TextToImage pipeline = load_flow(fields);
    for (const char* scheduler : {"flow-euler", "flow-heun", "dpm++", "unipc"}) {
      if (std::string(scheduler) != "flow-euler" && std::string(fields).find("stochastic") != std::string::npos)
        continue;
      if (std::string(scheduler) == "flow-heun" && std::string(fields).find("dynamic") != std::string::npos) continue;
      SCOPED_TRACE(concat(fields, " ", scheduler));
      SamplingRun run(pipeline, requests(), {.num_inference_steps = 4, .scheduler = scheduler});
      const at::Tensor latents = run_to_end(run);
      EXPECT_TRUE(near(run.predicted_clean(), latents, 1e-3));
    }
  }
}

// 8 x 8 latents are 64 tokens of an unpatched network, and larger pictures are shifted more.
TEST(SamplingRun, DynamicShiftFollowsTheSizeOfThePicture) {
  const TextToImage pipeline = load_flow(
      R"("use_dynamic_shifting": true, "base_shift": 1.0, "max_shift": 3.0, "base_image_seq_len": 0,
         "max_image_seq_len": 128)");
  const auto second_timestep = [&](int64_t size_px) {
    const auto scheduler = pipeline.make_scheduler({.height_px = size_px, .width_px = size_px});
    scheduler->set_timesteps(2);
    return scheduler->timesteps()[1];
  };
  const int64_t factor = pipeline.components().autoencoder->scale_factor_px();
  const auto expected = [](double mu) { return 1000 * std::exp(mu) / (std::exp(mu) + 999); };
  EXPECT_NEAR(second_timestep(8 * factor), expected(2.0), 1e-3);
  EXPECT_NEAR(second_timestep(16 * factor), expected(5.0), 1e-3);
}

TEST(SamplingRun, PredictionsComeCloserToThePicture) {
  TextToImage pipeline = load("plain");
  SamplingRun run(pipeline, requests(), {.num_inference_steps = 8, .scheduler = "ddim"});
  std::vector<at::Tensor> previews;
  while (!run.is_done()) {
    run.step();
    previews.push_back(run.predicted_clean());
  }
  const auto distance = [&](size_t call) { return (previews[call] - run.latents()).square().mean().item<double>(); };
  EXPECT_LT(distance(7), 0.05 * distance(0));
  EXPECT_LT(distance(4), distance(0));
}

TEST(SamplingRun, RefusesItemsItDoesNotHave) {
  TextToImage pipeline = load("plain");
  SamplingRun run(pipeline, requests(), {.num_inference_steps = 2});
  EXPECT_THROW(run.predicted_clean(), Error);
  for (const std::vector<int64_t>& items : {std::vector<int64_t>{}, {4}, {-1, 0}, {1, 1}, {2, 1}}) {
    EXPECT_THROW(run.keep(items), Error) << shape_text(items);
  }
}

}  // namespace
}  // namespace prefusion::pipelines
