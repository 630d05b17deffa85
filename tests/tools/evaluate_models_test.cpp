#include "tools/evaluate_models.h"

#include <gtest/gtest.h>

#include <set>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/json_config.h"
#include "shapes/caption.h"
#include "tests/support/temp_dir.h"
#include "tools/evaluation_report.h"

namespace prefusion::tools {
namespace {

namespace fs = std::filesystem;

const fs::path kModel = fs::path(PREFUSION_ASSETS) / "shapes";

EvaluateOptions small_evaluation() {
  EvaluateOptions options{.model = kModel, .baseline = kModel, .held_out = 3, .shows_progress = false};
  options.batches = {.sampling = {.num_inference_steps = 2, .guidance = {.scale = 2}, .scheduler = "ddim"},
                     .batch_size = 2};
  return options;
}

TEST(PlanRequests, EveryPictureHasASeedOfItsOwn) {
  EvaluateOptions options = small_evaluation();
  options.held_out = 400;  // more than there are captions
  options.num_images = 2;
  options.seed = 1000;
  const auto requests = plan_requests(options);
  ASSERT_EQ(requests.size(), 800u);
  std::set<uint64_t> seeds;
  for (const auto& request : requests) seeds.insert(request.seed);
  EXPECT_EQ(seeds.size(), 800u);
  EXPECT_EQ(requests[0].seed, 1000u);
  EXPECT_EQ(requests[0].prompt, requests[1].prompt);
}

TEST(PlanRequests, HeldOutCaptionsDoNotDependOnTheSeed) {
  EvaluateOptions options = small_evaluation();
  options.held_out = 50;
  const auto first = plan_requests(options);
  options.seed = 7;
  const auto second = plan_requests(options);
  int held_out = 0;
  for (size_t i = 0; i < first.size(); ++i) {
    EXPECT_EQ(first[i].prompt, second[i].prompt);
    held_out += shapes::is_held_out(first[i].prompt);
  }
  EXPECT_GT(held_out, 25);
}

TEST(PlanRequests, ReadsPromptFiles) {
  const tests::TempDir folder;
  write_file(folder / "prompts.jsonl", R"({"prompt": "a red circle", "seed": 5}
{"prompt": "a blue square"}
)");
  EvaluateOptions options = small_evaluation();
  options.held_out = 0;
  options.prompts_file = folder / "prompts.jsonl";
  const auto requests = plan_requests(options);
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_EQ(requests[0].seed, 5u);
  EXPECT_EQ(requests[1].prompt, "a blue square");
}

TEST(PlanRequests, WantsOneSourceOfPrompts) {
  EvaluateOptions options = small_evaluation();
  options.held_out = 0;
  EXPECT_THROW(plan_requests(options), Error);
  options.held_out = 2;
  options.prompts_file = "prompts.txt";
  EXPECT_THROW(plan_requests(options), Error);
}

TEST(EvaluateModels, RefusesPromptsTheJudgeCannotTakeBeforeLoadingAnything) {
  const tests::TempDir folder;
  write_file(folder / "prompts.txt", "a photo of a cat\n");
  EvaluateOptions options = small_evaluation();
  options.held_out = 0;
  options.prompts_file = folder / "prompts.txt";
  options.model = options.baseline = folder / "missing";
  try {
    evaluate_models(options);
    FAIL() << "a prompt outside the grammar was taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.error_class(), ErrorClass::kUsage);
    EXPECT_NE(std::string(error.what()).find("a photo of a cat"), std::string::npos);
  }
}

TEST(EvaluateModels, AModelTiesWithItself) {
  const Evaluation evaluation = evaluate_models(small_evaluation());
  ASSERT_EQ(evaluation.pairs.size(), 3u);
  EXPECT_EQ(evaluation.summary.win_rate.ties, 3);
  EXPECT_EQ(evaluation.summary.axes[1].difference.value, 0);
  EXPECT_TRUE(evaluation.baseline_pictures[2].equal(evaluation.model_pictures[2]));
  EXPECT_FALSE(evaluation.model_pictures[0].equal(evaluation.model_pictures[2]));
}

TEST(EvaluateModels, WritesTheSameFilesEveryTime) {
  const tests::TempDir folder;
  EvaluateOptions options = small_evaluation();
  options.save_pictures = true;
  for (const char* name : {"first", "second"}) {
    options.output = folder / name;
    write_evaluation(options, evaluate_models(options));
  }
  for (const char* file : {"report.html", "summary.json", "results.jsonl", "baseline.png", "model.png", "best.png",
                           "worst.png", "pictures/00002-model.png"}) {
    EXPECT_EQ(read_file(folder / "first" / file), read_file(folder / "second" / file)) << file;
  }
  const Json summary = read_json(folder / "first" / "summary.json");
  EXPECT_EQ(summary["num_pairs"], 3);
  EXPECT_EQ(summary["settings"]["steps"], 2);
  const std::string page = read_file(folder / "first" / "report.html");
  EXPECT_NE(page.find("win rate 50.0 %"), std::string::npos);
  EXPECT_NE(page.find("data:image/png;base64,"), std::string::npos);
}

}  // namespace
}  // namespace prefusion::tools
