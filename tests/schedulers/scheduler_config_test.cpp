#include "schedulers/scheduler_config.h"

#include <gtest/gtest.h>

#include "core/atomic_file.h"
#include "core/error.h"
#include "tests/support/temp_dir.h"

namespace prefusion::schedulers {
namespace {

std::string refusal(const std::string& json) {
  try {
    parse_scheduler_config(json, "scheduler_config.json");
  } catch (const Error& error) {
    EXPECT_EQ(error.error_class(), ErrorClass::kInput);
    return error.what();
  }
  return "";
}

TEST(SchedulerConfig, ReadsTheFolder) {
  const tests::TempDir folder;
  make_folder(folder / "scheduler");
  write_file(
      folder / "scheduler/scheduler_config.json",
      R"({"_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "beta_start": 0.00085, "beta_end": 0.012,
                 "beta_schedule": "scaled_linear", "num_train_timesteps": 1000, "set_alpha_to_one": false,
                 "skip_prk_steps": true, "steps_offset": 1, "trained_betas": null, "clip_sample": false})");
  const SchedulerConfig config = read_scheduler_config(folder.path());
  EXPECT_EQ(config.class_name, "PNDMScheduler");
  EXPECT_EQ(config.steps_offset, 1);
  EXPECT_EQ(config.clip_sample, false);
  EXPECT_TRUE(config.skip_prk_steps);
  EXPECT_THROW(read_scheduler_config(folder / "absent"), Error);
}

TEST(SchedulerConfig, TakesPythonInfinities) {
  const SchedulerConfig config = parse_scheduler_config(
      R"({"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity, "_note": "a \"-Infinity\" \\"})",
      "test");
  EXPECT_FALSE(config.lambda_min_clipped.has_value());
  EXPECT_DOUBLE_EQ(*parse_scheduler_config(R"({"lambda_min_clipped": -5.1})", "test").lambda_min_clipped, -5.1);
  EXPECT_NE(refusal(R"({"lambda_min_clipped": Infinity})").find("lambda_min_clipped"), std::string::npos);
}

TEST(SchedulerConfig, AbsentFieldsTakeTheDefaultsOfTheReadingClass) {
  const SchedulerConfig config = parse_scheduler_config(R"({"_class_name": "PNDMScheduler"})", "test");
  EXPECT_EQ(*resolve_for(config, SchedulerClass::kDdim).clip_sample, true);
  EXPECT_EQ(*resolve_for(config, SchedulerClass::kPndm).set_alpha_to_one, false);
  EXPECT_EQ(*resolve_for(config, SchedulerClass::kDdim).set_alpha_to_one, true);
  EXPECT_EQ(*resolve_for(config, SchedulerClass::kDdpm).timestep_spacing, "leading");
  EXPECT_EQ(*resolve_for(config, SchedulerClass::kEuler).timestep_spacing, "linspace");
  EXPECT_EQ(*resolve_for(config, SchedulerClass::kHeun).beta_start, 0.00085);
  EXPECT_EQ(*resolve_for(config, SchedulerClass::kUniPc).solver_type, "bh2");
  EXPECT_EQ(*resolve_for(config, SchedulerClass::kDpmSolver).solver_type, "midpoint");
}

TEST(SchedulerConfig, RefusesByName) {
  for (const auto& [json, named] : std::vector<std::pair<std::string, std::string>>{
           {R"({"beta_shedule": "linear"})", "beta_shedule"},
           {R"({"beta_schedule": "quadratic"})", "quadratic"},
           {R"({"_class_name": "FlowMatchEulerDiscreteScheduler"})", "FlowMatchEulerDiscreteScheduler"},
           {R"({"use_flow_sigmas": true})", "use_flow_sigmas"},
           {R"({"use_dynamic_shifting": true})", "use_dynamic_shifting"},
           {R"({"shift_terminal": 0.1})", "shift_terminal"},
           {R"({"solver_p": {"_class_name": "DDIMScheduler"}})", "solver_p"},
           {R"({"timestep_spacing": "random"})", "timestep_spacing"},
           {R"({"final_sigmas_type": "one"})", "final_sigmas_type"},
           {R"({"variance_type": "fixed_large_log"})", "variance_type"},
           {R"({"algorithm_type": "dpmsolver+++"})", "algorithm_type"},
           {R"({"num_train_timesteps": 0})", "num_train_timesteps"},
           {R"({"num_train_timesteps": 5, "trained_betas": [0.1, 0.2]})", "trained_betas"},
           {R"({"use_karras_sigmas": true, "use_exponential_sigmas": true})", "use_exponential_sigmas"},
           {R"({"prediction_type": "noise"})", "noise"},
           {R"({"beta_start": "small"})", "beta_start"},
           {R"([1, 2])", "object"},
           {R"({"beta_start": )", "JSON"},
       }) {
    EXPECT_NE(refusal(json).find(named), std::string::npos) << json << " -> " << refusal(json);
  }
}

TEST(SchedulerConfig, ClassesRefuseWhatTheyDoNotHave) {
  const auto config = [](const std::string& json) { return parse_scheduler_config(json, "test"); };
  EXPECT_THROW(resolve_for(config(R"({"beta_schedule": "sigmoid"})"), SchedulerClass::kDdim), Error);
  EXPECT_NO_THROW(resolve_for(config(R"({"beta_schedule": "sigmoid"})"), SchedulerClass::kDdpm));
  EXPECT_THROW(resolve_for(config(R"({"beta_schedule": "exp"})"), SchedulerClass::kDdpm), Error);
  EXPECT_THROW(resolve_for(config(R"({"prediction_type": "sample"})"), SchedulerClass::kPndm), Error);
  EXPECT_THROW(resolve_for(config(R"({"algorithm_type": "dpmsolver"})"), SchedulerClass::kDpmSolver), Error);
  EXPECT_THROW(resolve_for(config(R"({"solver_order": 4})"), SchedulerClass::kDpmSolver), Error);
  EXPECT_THROW(resolve_for(config(R"({"variance_type": "learned_range"})"), SchedulerClass::kDpmSolver), Error);
}

}  // namespace
}  // namespace prefusion::schedulers
