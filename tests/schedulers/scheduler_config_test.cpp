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
           {R"({"_class_name": "FlowMatchLCMScheduler"})", "FlowMatchLCMScheduler"},
           {R"({"_class_name": "FlowMatchEulerDiscreteScheduler", "prediction_type": "epsilon"})", "prediction_type"},
           {R"({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 0})", "shift"},
           {R"({"_class_name": "FlowMatchEulerDiscreteScheduler", "shfit": 3})", "shfit"},
           {R"({"_class_name": "FlowMatchEulerDiscreteScheduler", "time_shift_type": "square"})", "time_shift_type"},
           {R"({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift_terminal": 1.0})", "shift_terminal"},
           {R"({"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": true,
                "base_image_seq_len": 64, "max_image_seq_len": 64})",
            "base_image_seq_len"},
           {R"({"use_flow_sigmas": true, "invert_sigmas": true})", "invert_sigmas"},
           {R"({"stochastic_sampling": true})", "stochastic_sampling"},
           {R"({"original_inference_steps": 0})", "original_inference_steps"},
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

std::string resolving_refusal(const std::string& json, SchedulerClass scheduler_class) {
  try {
    resolve_for(parse_scheduler_config(json, "test"), scheduler_class);
  } catch (const Error& error) {
    EXPECT_EQ(error.error_class(), ErrorClass::kInput);
    return error.what();
  }
  return "";
}

TEST(SchedulerConfig, FlowModelsAreForFlowSamplers) {
  using enum SchedulerClass;
  const std::string flow = R"({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0})";
  for (const SchedulerClass scheduler_class : {kDdpm, kDdim, kPndm, kEuler, kEulerAncestral, kHeun, kLcm}) {
    EXPECT_NE(resolving_refusal(flow, scheduler_class).find("flow-euler"), std::string::npos);
    EXPECT_NE(resolving_refusal(R"({"use_flow_sigmas": true})", scheduler_class).find("use_flow_sigmas"),
              std::string::npos);
  }
  for (const SchedulerClass scheduler_class : {kDpmSolver, kUniPc, kFlowEuler, kFlowHeun}) {
    EXPECT_EQ(resolving_refusal(flow, scheduler_class), "");
  }
  EXPECT_NE(resolving_refusal("{}", kFlowEuler).find("epsilon"), std::string::npos);
  EXPECT_NE(resolving_refusal(R"({"prediction_type": "flow_prediction"})", kDpmSolver).find("use_flow_sigmas"),
            std::string::npos);
}

TEST(SchedulerConfig, FlowClassesRefuseWhatTheyDoNotHave) {
  using enum SchedulerClass;
  const auto refusal_of = [](const std::string& fields, SchedulerClass scheduler_class) {
    return resolving_refusal(R"({"_class_name": "FlowMatchEulerDiscreteScheduler", )" + fields + "}", scheduler_class);
  };
  for (const std::string key : {"invert_sigmas", "stochastic_sampling", "use_karras_sigmas", "use_exponential_sigmas",
                                "use_beta_sigmas", "use_lu_lambdas"}) {
    for (const SchedulerClass scheduler_class : {kDpmSolver, kUniPc, kFlowHeun}) {
      EXPECT_NE(refusal_of("\"" + key + "\": true", scheduler_class).find(key), std::string::npos);
    }
  }
  EXPECT_NE(refusal_of(R"("shift_terminal": 0.1)", kDpmSolver).find("shift_terminal"), std::string::npos);
  EXPECT_NE(refusal_of(R"("shift_terminal": 0.1)", kFlowHeun).find("shift_terminal"), std::string::npos);
  EXPECT_EQ(refusal_of(R"("shift_terminal": 0.1)", kUniPc), "");
  const std::string dynamic = R"("use_dynamic_shifting": true)";
  EXPECT_NE(refusal_of(dynamic, kFlowHeun).find("use_dynamic_shifting"), std::string::npos);
  EXPECT_EQ(refusal_of(dynamic, kDpmSolver), "");
  EXPECT_NE(refusal_of(dynamic + R"(, "time_shift_type": "linear")", kDpmSolver).find("time_shift_type"),
            std::string::npos);
  EXPECT_NE(refusal_of(R"("algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min")", kDpmSolver)
                .find("algorithm_type"),
            std::string::npos);
  EXPECT_NE(refusal_of(R"("predict_x0": false)", kUniPc).find("predict_x0"), std::string::npos);
}

TEST(SchedulerConfig, ShiftHasANameInEitherKindOfFile) {
  EXPECT_EQ(parse_scheduler_config(R"({"_class_name": "FlowMatchHeunDiscreteScheduler", "shift": 3.0})", "test").shift,
            3.0);
  const std::string solver = R"({"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": true,
                                 "prediction_type": "flow_prediction", "flow_shift": 2.5, "shift": 7.0})";
  EXPECT_EQ(parse_scheduler_config(solver, "test").shift, 2.5);
}

}  // namespace
}  // namespace prefusion::schedulers
