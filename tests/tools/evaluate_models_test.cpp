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
  EvaluateOptions options{.models = {{.model = kModel}}, .baseline = kModel, .held_out = 3, .shows_progress = false};
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
  options.models = {{.model = folder / "missing"}};
  options.baseline = folder / "missing";
  try {
    ModelComparison comparison(options);
    FAIL() << "a prompt outside the grammar was taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.error_class(), ErrorClass::kUsage);
    EXPECT_NE(std::string(error.what()).find("a photo of a cat"), std::string::npos);
  }
}

TEST(EvaluateModels, AModelTiesWithItself) {
  const EvaluateOptions options = small_evaluation();
  const Evaluation evaluation = ModelComparison(options).compare(0);
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
    write_evaluation(options, ModelComparison(options).compare(0), options.output);
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

TEST(ParseContender, TakesAdaptersAfterAPlus) {
  const tests::TempDir folder;
  fs::create_directories(folder / "sd+turbo");
  const Contender plain = parse_contender((folder / "sd+turbo").string());
  EXPECT_EQ(plain.model, folder / "sd+turbo");
  EXPECT_TRUE(plain.loras.empty());
  const Contender adapted = parse_contender((folder / "sd+turbo").string() + "+a.safetensors:0.5+b");
  EXPECT_EQ(adapted.model, folder / "sd+turbo");
  EXPECT_EQ(adapted.loras, (std::vector<std::string>{"a.safetensors:0.5", "b"}));
  EXPECT_EQ(parse_contender("missing+a").model, "missing");
  EXPECT_THROW(parse_contender("missing+"), Error);
}

TEST(ModelComparison, SeveralModelsShareTheBaselineAndHaveNamesOfTheirOwn) {
  const tests::TempDir folder;
  EvaluateOptions options = small_evaluation();
  options.models = {{.model = kModel}, {.model = kModel}};
  options.output = folder.path();
  const ModelComparison comparison(options);
  const Evaluation first = comparison.compare(0), second = comparison.compare(1);
  EXPECT_EQ(first.name, "shapes");
  EXPECT_EQ(second.name, "shapes-2");
  EXPECT_TRUE(first.baseline_pictures[0].is_same(second.baseline_pictures[0]));

  write_overview(options, {{first.name, first.summary}, {second.name, second.summary}});
  const Json summary = read_json(folder / "summary.json");
  ASSERT_EQ(summary["models"].size(), 2u);
  EXPECT_EQ(summary["models"][1]["name"], "shapes-2");
  EXPECT_EQ(summary["models"][1]["win_rate"]["value"], 0.5);
  EXPECT_NE(read_file(folder / "report.html").find("shapes-2/report.html"), std::string::npos);
}

TEST(ModelComparison, AModelHasNoImplicitPreferenceAgainstItself) {
  EvaluateOptions options = small_evaluation();
  options.held_out = 1;
  options.preferences = {.data = fs::path(PREFUSION_ASSETS) / "shapes-preferences.parquet",
                         .num_pairs = 6,
                         .num_timesteps = 2,
                         .batch_size = 4};
  const Evaluation evaluation = ModelComparison(options).compare(0);
  ASSERT_TRUE(evaluation.summary.implicit.has_value());
  EXPECT_EQ(evaluation.summary.implicit->num_pairs, 6);
  EXPECT_EQ(evaluation.summary.implicit->margin.value, 0);
  EXPECT_EQ(evaluation.summary.implicit->accuracy.value, 0.5);
  EXPECT_NE(training::summary_table(evaluation.summary).find("on 6 labelled pairs"), std::string::npos);
}

}  // namespace
}  // namespace prefusion::tools
