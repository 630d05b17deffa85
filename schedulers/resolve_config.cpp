#include <string>

#include "core/error.h"
#include "schedulers/scheduler_config.h"

namespace prefusion::schedulers {
namespace {

void resolve_solver(SchedulerConfig& config, SchedulerClass scheduler_class) {
  const std::string given = config.solver_type.value_or("");
  if (scheduler_class == SchedulerClass::kUniPc) {
    config.solver_type = given == "bh1" ? "bh1" : "bh2";
    return;
  }
  config.solver_type = given == "heun" ? "heun" : "midpoint";
  if (config.algorithm_type == "deis") config.algorithm_type = "dpmsolver++";
  check_input(config.solver_order <= 3, config.where, ": 'solver_order' = ", config.solver_order,
              " is not supported by DPM-Solver (1, 2 or 3)");
  const bool predicts_noise = config.algorithm_type == "dpmsolver" || config.algorithm_type == "sde-dpmsolver";
  check_input(!predicts_noise || config.final_sigmas_type != "zero", config.where, ": 'algorithm_type' = \"",
              config.algorithm_type, "\" needs 'final_sigmas_type' = \"sigma_min\"");
  check_input(config.algorithm_type != "sde-dpmsolver" || config.solver_order <= 2, config.where,
              ": 'algorithm_type' = \"sde-dpmsolver\" has no third order");
  check_input(config.variance_type.value_or("") != "learned" && config.variance_type.value_or("") != "learned_range",
              config.where, ": 'variance_type' = \"", config.variance_type.value_or(""),
              "\" is not supported by DPM-Solver");
}

// The classes that sample flow models.
bool samples_flow(SchedulerClass scheduler_class) {
  using enum SchedulerClass;
  return scheduler_class == kFlowEuler || scheduler_class == kFlowHeun || scheduler_class == kDpmSolver ||
         scheduler_class == kUniPc;
}

void check_prediction_type(const SchedulerConfig& config, SchedulerClass scheduler_class) {
  using enum SchedulerClass;
  const PredictionType type = config.prediction_type;
  const bool is_flow = type == PredictionType::kFlow;
  const bool is_flow_class = scheduler_class == kFlowEuler || scheduler_class == kFlowHeun;
  const bool takes_sample = scheduler_class != kPndm && scheduler_class != kEulerAncestral;
  check_input(
      !is_flow || samples_flow(scheduler_class), config.where,
      ": 'prediction_type' = \"flow_prediction\" is not supported by this sampler; flow models are sampled with "
      "flow-euler, flow-heun, dpm++ or unipc");
  check_input(is_flow || !is_flow_class, config.where, ": 'prediction_type' = \"", prediction_type_name(type),
              "\" is not supported by this sampler, which is for flow models");
  check_input(takes_sample || type != PredictionType::kSample, config.where,
              ": 'prediction_type' = \"sample\" is not supported by this sampler");
  check_input(!is_flow || config.use_flow_sigmas, config.where,
              ": 'prediction_type' = \"flow_prediction\" needs 'use_flow_sigmas' = true");
  check_input(!config.use_flow_sigmas || samples_flow(scheduler_class), config.where,
              ": 'use_flow_sigmas' = true is not supported by this sampler");
}

void refuse_if(bool is_set, const SchedulerConfig& config, const char* key, const char* sampler) {
  check_input(!is_set, config.where, ": '", key, "' of a flow model is not supported by ", sampler,
              "; use --scheduler flow-euler");
}

// What of a flow's noise levels the class does not have.
void check_flow(const SchedulerConfig& config, SchedulerClass scheduler_class) {
  using enum SchedulerClass;
  if (!config.use_flow_sigmas || scheduler_class == kFlowEuler) return;
  const char* sampler = scheduler_class == kFlowHeun    ? "flow-heun"
                        : scheduler_class == kDpmSolver ? "DPM-Solver"
                                                        : "UniPC";
  refuse_if(config.use_karras_sigmas, config, "use_karras_sigmas", sampler);
  refuse_if(config.use_exponential_sigmas, config, "use_exponential_sigmas", sampler);
  refuse_if(config.use_beta_sigmas, config, "use_beta_sigmas", sampler);
  refuse_if(config.use_lu_lambdas, config, "use_lu_lambdas", sampler);
  refuse_if(config.invert_sigmas, config, "invert_sigmas", sampler);
  refuse_if(config.stochastic_sampling, config, "stochastic_sampling", sampler);
  refuse_if(config.shift_terminal && scheduler_class != kUniPc, config, "shift_terminal", sampler);
  refuse_if(config.use_dynamic_shifting && scheduler_class == kFlowHeun, config, "use_dynamic_shifting", sampler);
  refuse_if(config.use_dynamic_shifting && config.time_shift_type == "linear" && scheduler_class == kDpmSolver, config,
            "time_shift_type", sampler);
  check_input(!config.sigmas_linear || scheduler_class != kFlowHeun, config.where,
              ": this pipeline chooses the noise levels itself, which flow-heun does not take; use --scheduler "
              "flow-euler");
  const bool integrates_noise =
      scheduler_class == kDpmSolver ? !config.algorithm_type.ends_with("++") : !config.predict_x0;
  check_input(scheduler_class == kFlowHeun || !integrates_noise, config.where,
              scheduler_class == kDpmSolver ? ": 'algorithm_type'" : ": 'predict_x0'",
              " of a flow model must be the form that integrates clean latents");
}

// Which schedules of betas the classes of diffusers know.
void resolve_betas(SchedulerConfig& config, SchedulerClass scheduler_class) {
  using enum SchedulerClass;
  const bool is_heun = scheduler_class == kHeun;
  const bool is_lcm = scheduler_class == kLcm;
  if (!config.beta_start) config.beta_start = is_heun || is_lcm ? 0.00085 : 0.0001;
  if (!config.beta_end) config.beta_end = is_heun || is_lcm ? 0.012 : 0.02;
  if (!config.beta_schedule) config.beta_schedule = is_lcm ? "scaled_linear" : "linear";
  if (scheduler_class == kPndm || is_heun) config.rescale_betas_zero_snr = false;
  if (config.trained_betas) return;
  const std::string& schedule = *config.beta_schedule;
  const bool is_known = schedule == "exp"                                ? is_heun
                        : schedule == "sigmoid" || schedule == "laplace" ? scheduler_class == kDdpm
                                                                         : true;
  check_input(is_known, config.where, ": 'beta_schedule' = \"", schedule, "\" is not supported by this sampler");
}

}  // namespace

SchedulerConfig resolve_for(SchedulerConfig config, SchedulerClass scheduler_class) {
  using enum SchedulerClass;
  const bool is_ancestor =
      scheduler_class == kDdpm || scheduler_class == kDdim || scheduler_class == kPndm || scheduler_class == kLcm;
  if (!config.timestep_spacing) config.timestep_spacing = is_ancestor ? "leading" : "linspace";
  if (!config.steps_offset) config.steps_offset = 0;
  if (!config.clip_sample) config.clip_sample = scheduler_class == kDdpm || scheduler_class == kDdim;
  if (!config.set_alpha_to_one) config.set_alpha_to_one = scheduler_class == kDdim || scheduler_class == kLcm;
  if (!config.variance_type) config.variance_type = "fixed_small";
  resolve_betas(config, scheduler_class);
  check_prediction_type(config, scheduler_class);
  if (scheduler_class == kDpmSolver || scheduler_class == kUniPc) resolve_solver(config, scheduler_class);
  check_flow(config, scheduler_class);
  check_input(scheduler_class != kLcm || config.original_inference_steps <= config.num_train_timesteps, config.where,
              ": 'original_inference_steps' = ", config.original_inference_steps,
              " is above 'num_train_timesteps' = ", config.num_train_timesteps);
  return config;
}

}  // namespace prefusion::schedulers
