#include "training/align_options.h"

#include <gtest/gtest.h>

#include <functional>

#include "core/atomic_file.h"
#include "core/error.h"
#include "losses/registry.h"
#include "tests/support/temp_dir.h"

namespace prefusion::training {
namespace {

ReferenceKind reference_kind(const AlignOptions& options, const char* objective) {
  return options.reference_spec(losses::find_objective(objective).info).kind;
}

class AlignOptionsTest : public testing::Test {
 protected:
  AlignOptionsTest() {
    make_folder(folder / "model");
    write_file(folder / "data.parquet", "");
    options.model = folder / "model";
    options.data = {folder / "data.parquet"};
    options.output = folder / "out";
  }

  // The message of the error, after checking its exit code; empty when there is none.
  std::string problem(int exit_code = 2) {
    try {
      validate(options);
    } catch (const Error& error) {
      EXPECT_EQ(error.exit_code(), exit_code) << error.what();
      return error.what();
    }
    return "";
  }

  tests::TempDir folder;
  AlignOptions options;
};

TEST_F(AlignOptionsTest, DefaultsAreValid) {
  EXPECT_EQ(problem(), "");
}

TEST_F(AlignOptionsTest, AnOptimizerWithARateOfItsOwnTakesNone) {
  options.optimizer = "adafactor";
  options.optimizer_args = "relative_step=1";
  EXPECT_EQ(problem(), "");
  options.lr = 1e-3;
  EXPECT_NE(problem().find("leave --lr out"), std::string::npos);
  options.lr = AlignOptions{}.lr;
  options.warmup = 10;
  EXPECT_NE(problem().find("warmup_init=1"), std::string::npos);
  options.optimizer_args = "relative_step=2";
  EXPECT_NE(problem().find("expected 0 or 1"), std::string::npos);
}

TEST_F(AlignOptionsTest, WhatChangesAStepsLaunchesIsNotRecorded) {
  const AlignOptions valid = options;
  const auto refusal = [&](const std::function<void(AlignOptions&)>& change) {
    options = valid;
    options.cuda_graph = true;
    change(options);
    return problem();
  };
  EXPECT_EQ(refusal([](AlignOptions&) {}), "");
  EXPECT_EQ(refusal([](AlignOptions& o) { o.adapter = "full"; }), "");
  EXPECT_NE(refusal([](AlignOptions& o) { o.stream_weights = true; }).find("--stream-weights moves weights"),
            std::string::npos);
  EXPECT_NE(refusal([](AlignOptions& o) { o.train_text_encoder = true; }).find("prompts of any length"),
            std::string::npos);
  EXPECT_NE(refusal([](AlignOptions& o) { o.auto_kappa = 0.2; }).find("--auto-kappa changes"), std::string::npos);
  EXPECT_NE(refusal([](AlignOptions& o) {
              o.objective = "flow-grpo";
              o.data.clear();
            }).find("steps of several kinds"),
            std::string::npos);
  EXPECT_NE(refusal([](AlignOptions& o) { o.objective = "ppd"; }).find("user adapter"), std::string::npos);
}

TEST_F(AlignOptionsTest, AllProblemsAreNamedAtOnce) {
  options.output.clear();
  options.data = {folder / "absent.parquet"};
  options.batch_size = 0;
  options.accumulate = -1;
  options.lr = -1;
  options.rank = 0;
  options.ema = 1.0;
  options.empty_prompt_rate = 1.5;
  options.resolution = 100;
  options.random_crop = true;
  options.sample_every = 5;
  options.lr_schedule = "polynomial";
  options.objective = "no-such-objective";
  options.reference_model = folder / "other";
  const std::string text = problem();
  for (const char* part :
       {"--output", "absent.parquet", "--batch-size", "--accumulate", "--lr ", "--rank", "--ema", "--empty-prompt-rate",
        "--resolution", "--random-crop", "--sample-prompts", "polynomial", "no-such-objective", "--reference-model"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " is missing in: " << text;
  }
  EXPECT_EQ(text.find('\n'), std::string::npos);
}

TEST_F(AlignOptionsTest, MissingFilesAloneAreAnInputError) {
  options.model = folder / "absent";
  EXPECT_NE(problem(3).find("absent: no such folder"), std::string::npos);
  options.model = folder / "model";
  options.data.push_back(folder / "second.parquet");
  EXPECT_NE(problem(3).find("second.parquet: no such file"), std::string::npos);
  options.data.pop_back();
  options.eval_data = folder / "eval.parquet";
  EXPECT_NE(problem(3).find("--eval-data"), std::string::npos);
}

TEST_F(AlignOptionsTest, LoraHasItsReferenceAtHand) {
  EXPECT_EQ(reference_kind(options, "diffusion-dpo"), ReferenceKind::kAdapterOff);
  EXPECT_EQ(reference_kind(options, "sft"), ReferenceKind::kNone);
  options.reference_model = folder / "model";
  EXPECT_EQ(reference_kind(options, "diffusion-dpo"), ReferenceKind::kFrozen);
  options.reference_model.clear();
  options.adapter = "full";
  EXPECT_EQ(reference_kind(options, "diffusion-dpo"), ReferenceKind::kFrozen);
}

TEST_F(AlignOptionsTest, ReferenceMustFitObjectiveAndAdapter) {
  options.reference = "none";
  EXPECT_NE(problem().find("needs a reference"), std::string::npos);
  options.objective = "sft";
  EXPECT_EQ(problem(), "");
  options.objective = "diffusion-dpo";
  options.adapter = "full";
  options.reference = "adapter-off";
  EXPECT_NE(problem().find("needs --adapter lora"), std::string::npos);
  options.adapter = "lora";
  options.reference_model = folder / "model";
  EXPECT_NE(problem().find("--reference-model needs"), std::string::npos);
  options.reference = "sideways";
  EXPECT_NE(problem().find("sideways"), std::string::npos);
}

TEST_F(AlignOptionsTest, ObjectiveParametersAreChecked) {
  options.beta = 100;
  options.kappa = 50;
  EXPECT_NE(problem(), "");
  options.beta.reset();
  EXPECT_EQ(problem(), "");
  options.objective_args = "no_such_parameter=1";
  EXPECT_NE(problem().find("no_such_parameter"), std::string::npos);
}

TEST_F(AlignOptionsTest, DryRunNeedsOnlyAModel) {
  options.data.clear();
  options.output.clear();
  EXPECT_NE(problem(), "");
  options.dry_run = true;
  EXPECT_EQ(problem(), "");
}

TEST_F(AlignOptionsTest, NotANumberIsNoRate) {
  options.lr = std::nan("");
  EXPECT_NE(problem().find("--lr"), std::string::npos);
}

TEST_F(AlignOptionsTest, OnlineObjectivesTakePromptsInPlaceOfData) {
  options.objective = "ddpo";
  const std::string text = problem();
  for (const char* part : {"--prompts FILE", "leave --data out", "--steps"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " is missing in: " << text;
  }
  options.data.clear();
  options.steps = 5;
  write_file(folder / "prompts.txt", "a red circle\n");
  options.online.prompts = folder / "prompts.txt";
  EXPECT_EQ(problem(), "");
  options.online.group_size = 1;
  options.online.eta = 0;
  options.online.reward = "beauty";
  options.reference = "cached";
  const std::string more = problem();
  for (const char* part : {"--group-size", "--eta", "beauty", "cached"}) {
    EXPECT_NE(more.find(part), std::string::npos) << part << " is missing in: " << more;
  }
}

TEST_F(AlignOptionsTest, OptionsThatWouldDoNothingAreRefused) {
  options.online.group_size = 4;
  EXPECT_NE(problem().find("leave out --prompts"), std::string::npos);
  write_file(folder / "prompts.txt", "a red circle\n");
  options.objective = "ddpo";
  options.steps = 5;
  options.data.clear();
  options.online.prompts = folder / "prompts.txt";
  EXPECT_EQ(problem(), "");
  options.loss.sft_weight = 0.1;
  options.logit_weighting = "min-snr";
  options.loss_weighting = "cosmap";
  options.timestep_sampling = "mode";
  options.timestep_range = "0:10";
  options.empty_prompt_rate = 0.5;
  options.auto_kappa = 0.2;
  options.curriculum = "margin:4";
  options.score_name = "taste";
  options.keep_ties = true;
  const std::string text = problem();
  for (const char* part :
       {"--sft-weight", "--logit-weighting", "--loss-weighting", "--timestep-sampling", "--timestep-range",
        "--empty-prompt-rate", "--auto-kappa", "--curriculum", "--score-name", "--keep-ties"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " is missing in: " << text;
  }
}

TEST_F(AlignOptionsTest, ObjectivesOnDataKeepTheirOptionsOnOwnSamples) {
  write_file(folder / "prompts.txt", "a red circle\n");
  options.steps = 5;
  options.data.clear();
  options.online.prompts = folder / "prompts.txt";
  options.loss.sft_weight = 0.1;
  options.logit_weighting = "min-snr";
  options.timestep_range = "0:10";
  options.empty_prompt_rate = 0.5;
  EXPECT_EQ(problem(), "");
  options.train_text_encoder = true;
  EXPECT_NE(problem().find("--train-text-encoder"), std::string::npos);
}

TEST_F(AlignOptionsTest, CachedReferenceIsRefusedWhereItCannotBe) {
  options.reference = "cached";
  EXPECT_EQ(problem(), "");
  options.no_cache = true;
  EXPECT_NE(problem().find("leave --no-cache out"), std::string::npos);
  options.no_cache = false;
  options.objective = "dspo";
  EXPECT_NE(problem().find("predictions"), std::string::npos);
  options.objective = "ddim-inpo";
  EXPECT_NE(problem().find("inverts latents"), std::string::npos);
}

TEST_F(AlignOptionsTest, AutoKappaIsForPairsAndListsWithAKappa) {
  options.auto_kappa = 0.2;
  EXPECT_EQ(problem(), "");
  options.auto_kappa = 0.6;
  EXPECT_NE(problem().find("between 0 and 0.5"), std::string::npos);
  options.auto_kappa = 0.2;
  options.objective = "mapo";
  EXPECT_NE(problem().find("has no kappa"), std::string::npos);
  options.objective = "kto";
  EXPECT_NE(problem().find("compares no items"), std::string::npos);
}

TEST_F(AlignOptionsTest, DrawsAreThoseOfACachedReference) {
  options.reference_draws = 2;
  EXPECT_NE(problem().find("needs --reference cached"), std::string::npos);
  options.reference = "cached";
  EXPECT_EQ(problem(), "");
  options.reference_draws = -1;
  EXPECT_NE(problem().find("--reference-draws"), std::string::npos);
}

TEST_F(AlignOptionsTest, TiesNeedAnObjectiveThatReadsLabels) {
  options.keep_ties = true;
  EXPECT_NE(problem().find("--keep-ties: objective diffusion-dpo takes the first item"), std::string::npos);
  options.loss.soft_labels = true;
  EXPECT_EQ(problem(), "");
  options.loss.soft_labels = false;
  for (const char* reads_labels : {"smpo", "kto", "rankdpo"}) {
    options.objective = reads_labels;
    EXPECT_EQ(problem(), "") << reads_labels;
  }
  options.objective = "sft";
  EXPECT_NE(problem().find("leave --keep-ties out"), std::string::npos);
}

TEST_F(AlignOptionsTest, CurriculumByHardnessIsForGroupsInACache) {
  options.curriculum = "hardness:3";
  EXPECT_EQ(problem(), "");
  options.no_cache = true;
  EXPECT_NE(problem().find("leave --no-cache out"), std::string::npos);
  options.no_cache = false;
  for (const char* single : {"sft", "kto"}) {
    options.objective = single;
    EXPECT_NE(problem().find("needs pairs or lists"), std::string::npos) << single;
  }
}

TEST_F(AlignOptionsTest, DumpedGroupsAreMeasuredOnes) {
  options.dump_groups = folder / "groups.parquet";
  EXPECT_EQ(problem(), "");
  options.eval_groups = 0;
  EXPECT_NE(problem().find("--dump-groups"), std::string::npos);
  options.eval_groups = 8;
  options.dump_groups = folder / "groups.csv";
  EXPECT_NE(problem().find(".parquet"), std::string::npos);
}

}  // namespace
}  // namespace prefusion::training
