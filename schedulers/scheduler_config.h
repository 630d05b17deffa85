#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/prediction_type.h"

namespace prefusion::schedulers {

// The samplers there are, by the diffusers class they follow.
enum class SchedulerClass {
  kDdpm,
  kDdim,
  kPndm,
  kEuler,
  kEulerAncestral,
  kHeun,
  kDpmSolver,
  kUniPc,
  kLcm,
  kFlowEuler,
  kFlowHeun
};

// Everything a scheduler_config.json can hold, for all samplers together. Samplers are switched by reading the same
// file as another class: fields the class does not know are ignored, absent ones take its own defaults. The fields
// whose default depends on the class are therefore optional here; resolve_for fills them.
struct SchedulerConfig {
  std::string class_name = "DDPMScheduler";  // that wrote the file
  std::string where = "scheduler config";    // for messages

  int64_t num_train_timesteps = 1000;
  std::optional<double> beta_start;
  std::optional<double> beta_end;
  std::optional<std::string> beta_schedule;
  std::optional<std::vector<double>> trained_betas;
  bool rescale_betas_zero_snr = false;
  PredictionType prediction_type = PredictionType::kEpsilon;

  std::optional<std::string> timestep_spacing;  // leading, linspace, trailing
  std::optional<int64_t> steps_offset;

  std::optional<bool> clip_sample;
  double clip_sample_range = 1.0;
  bool thresholding = false;
  double dynamic_thresholding_ratio = 0.995;
  double sample_max_value = 1.0;
  std::optional<std::string> variance_type;  // DDPM
  std::optional<bool> set_alpha_to_one;      // DDIM, PNDM
  bool skip_prk_steps = false;               // PNDM
  double eta = 0.0;                          // DDIM; no field of the file, a choice at sampling time

  bool use_karras_sigmas = false;
  bool use_exponential_sigmas = false;
  bool use_beta_sigmas = false;
  bool use_lu_lambdas = false;  // DPM-Solver
  std::optional<double> sigma_min;
  std::optional<double> sigma_max;
  std::string interpolation_type = "linear";  // Euler: linear, log_linear
  std::string timestep_type = "discrete";     // Euler: discrete, continuous
  std::string final_sigmas_type = "zero";     // zero, sigma_min

  int64_t solver_order = 2;
  std::string algorithm_type = "dpmsolver++";
  std::optional<std::string> solver_type;  // midpoint, heun; bh1, bh2
  bool lower_order_final = true;
  bool euler_at_final = false;
  std::optional<double> lambda_min_clipped;  // absent: minus infinity
  bool predict_x0 = true;                    // UniPC
  std::vector<int64_t> disable_corrector;    // UniPC

  int64_t original_inference_steps = 50;  // LCM: of the schedule it was distilled on
  double timestep_scaling = 10.0;         // LCM

  // Flow matching: noisy_latents = (1 - sigma) * latents + sigma * noise. True in the files of its classes.
  bool use_flow_sigmas = false;
  double shift = 1.0;  // 'shift', or 'flow_shift' in the files of classes that also know other processes
  bool use_dynamic_shifting = false;
  double base_shift = 0.5;
  double max_shift = 1.15;
  int64_t base_image_seq_len = 256;
  int64_t max_image_seq_len = 4096;
  std::string time_shift_type = "exponential";  // exponential, linear
  std::optional<double> shift_terminal;
  bool invert_sigmas = false;
  bool stochastic_sampling = false;
  bool sigmas_linear = false;  // no field of the file: sigmas run from 1 to 1 / S before they are shifted, as the FLUX
                               // pipelines of diffusers ask for; else to the schedule's smallest
};

// Reads MODEL_DIR/scheduler/scheduler_config.json. Input error when it is missing, malformed, of a class with neither a
// beta schedule nor flow matching, or has an unknown key or an unsupported value.
SchedulerConfig read_scheduler_config(const std::filesystem::path& model_dir);

// The same from the text of the file; `where` names it in messages.
SchedulerConfig parse_scheduler_config(std::string_view json, const std::string& where);

// The config as a scheduler of that class reads it: absent fields get the defaults of diffusers 0.42, beta schedules
// and rescaling the class does not have are refused or dropped as there. A flow model's shift counts in every class
// that samples flow models, whichever wrote the file. Input error for values the class refuses, and for flow models in
// classes that sample none or the other way round.
SchedulerConfig resolve_for(SchedulerConfig config, SchedulerClass scheduler_class);

}  // namespace prefusion::schedulers
