#include "pipelines/sampling_run.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/pipelines/pipeline_reference.h"
#include "tests/support/tensor_near.h"

namespace prefusion::pipelines {
namespace {

using tests::near;

TextToImage load(const std::string& model) {
  return TextToImage::load(pipeline_reference() / "models" / model, at::kFloat, at::kCPU);
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
  TextToImage pipeline = load("plain");
  const at::Tensor kept = at::tensor({0, 2, 3}, at::kLong);
  for (const auto& entry : schedulers::scheduler_entries()) {
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
