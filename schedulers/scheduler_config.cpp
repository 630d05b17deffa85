#include "schedulers/scheduler_config.h"

#include <algorithm>
#include <array>
#include <initializer_list>
#include <limits>
#include <utility>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/json_config.h"

namespace prefusion::schedulers {
namespace {

// The diffusers classes whose files any of our samplers can read: of a discrete beta schedule, or of flow matching.
constexpr std::array kCompatibleClasses = {
    "DDIMScheduler",
    "DDPMScheduler",
    "PNDMScheduler",
    "LMSDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "LCMScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
};

// Python's json writes infinities and NaN as bare words, which JSON does not have (DPM-Solver's lambda_min_clipped is
// minus infinity by default): turns them into strings.
std::string quote_bare_words(std::string_view json) {
  std::string out;
  bool in_string = false;
  for (size_t i = 0; i < json.size();) {
    const std::string_view rest = json.substr(i);
    std::string_view word;
    for (const std::string_view candidate : {"-Infinity", "Infinity", "NaN"}) {
      if (!in_string && word.empty() && rest.starts_with(candidate)) word = candidate;
    }
    if (!word.empty()) {
      out.append("\"").append(word).append("\"");
      i += word.size();
      continue;
    }
    if (in_string && json[i] == '\\' && i + 1 < json.size()) {
      out.append(json.substr(i, 2));
      i += 2;
      continue;
    }
    if (json[i] == '"') in_string = !in_string;
    out += json[i++];
  }
  return out;
}

void check_one_of(const std::string& where, const char* key, const std::string& value,
                  std::initializer_list<std::string_view> supported) {
  if (std::find(supported.begin(), supported.end(), value) != supported.end()) return;
  std::string list;
  for (const std::string_view name : supported) list += (list.empty() ? "" : ", ") + std::string(name);
  fail_input(where, ": '", key, "' = \"", value, "\" is not supported (supported: ", list, ")");
}

void read_betas(ConfigReader& reader, SchedulerConfig& config) {
  config.num_train_timesteps = reader.get<int64_t>("num_train_timesteps", 1000);
  check_input(config.num_train_timesteps >= 1 && config.num_train_timesteps <= 1'000'000, config.where,
              ": 'num_train_timesteps' must be between 1 and 1000000, found ", config.num_train_timesteps);
  config.beta_start = reader.optional<double>("beta_start");
  config.beta_end = reader.optional<double>("beta_end");
  config.beta_schedule = reader.optional<std::string>("beta_schedule");
  if (config.beta_schedule) {
    check_one_of(config.where, "beta_schedule", *config.beta_schedule,
                 {"linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace", "exp"});
  }
  config.trained_betas = reader.optional<std::vector<double>>("trained_betas");
  if (config.trained_betas) {
    check_input(static_cast<int64_t>(config.trained_betas->size()) == config.num_train_timesteps, config.where,
                ": 'trained_betas' has ", config.trained_betas->size(),
                " entries, expected num_train_timesteps = ", config.num_train_timesteps);
  }
  config.rescale_betas_zero_snr = reader.get<bool>("rescale_betas_zero_snr", false);
  config.prediction_type = parse_prediction_type(reader.get<std::string>("prediction_type", "epsilon"), config.where);
  // A name of the past for what prediction_type = "sample" says today.
  reader.only("predict_epsilon", true);
}

void read_sample_limits(ConfigReader& reader, SchedulerConfig& config) {
  config.clip_sample = reader.optional<bool>("clip_sample");
  config.clip_sample_range = reader.get<double>("clip_sample_range", 1.0);
  config.thresholding = reader.get<bool>("thresholding", false);
  config.dynamic_thresholding_ratio = reader.get<double>("dynamic_thresholding_ratio", 0.995);
  check_input(config.dynamic_thresholding_ratio >= 0 && config.dynamic_thresholding_ratio <= 1, config.where,
              ": 'dynamic_thresholding_ratio' must be between 0 and 1, found ", config.dynamic_thresholding_ratio);
  config.sample_max_value = reader.get<double>("sample_max_value", 1.0);
  config.variance_type = reader.optional<std::string>("variance_type");
  if (config.variance_type) {
    check_one_of(config.where, "variance_type", *config.variance_type,
                 {"fixed_small", "fixed_small_log", "fixed_large", "learned", "learned_range"});
  }
}

void read_timesteps(ConfigReader& reader, SchedulerConfig& config) {
  config.timestep_spacing = reader.optional<std::string>("timestep_spacing");
  if (config.timestep_spacing) {
    check_one_of(config.where, "timestep_spacing", *config.timestep_spacing, {"leading", "linspace", "trailing"});
  }
  config.steps_offset = reader.optional<int64_t>("steps_offset");
  config.set_alpha_to_one = reader.optional<bool>("set_alpha_to_one");
  config.skip_prk_steps = reader.get<bool>("skip_prk_steps", false);
  config.interpolation_type = reader.get<std::string>("interpolation_type", "linear");
  check_one_of(config.where, "interpolation_type", config.interpolation_type, {"linear", "log_linear"});
  config.timestep_type = reader.get<std::string>("timestep_type", "discrete");
  check_one_of(config.where, "timestep_type", config.timestep_type, {"discrete", "continuous"});
}

void read_sigmas(ConfigReader& reader, SchedulerConfig& config) {
  config.use_karras_sigmas = reader.get<bool>("use_karras_sigmas", false);
  config.use_exponential_sigmas = reader.get<bool>("use_exponential_sigmas", false);
  config.use_beta_sigmas = reader.get<bool>("use_beta_sigmas", false);
  config.use_lu_lambdas = reader.get<bool>("use_lu_lambdas", false);
  check_input(config.use_karras_sigmas + config.use_exponential_sigmas + config.use_beta_sigmas <= 1, config.where,
              ": only one of 'use_karras_sigmas', 'use_exponential_sigmas' and 'use_beta_sigmas' can be true");
  config.sigma_min = reader.optional<double>("sigma_min");
  config.sigma_max = reader.optional<double>("sigma_max");
  config.final_sigmas_type = reader.get<std::string>("final_sigmas_type", "zero");
  check_one_of(config.where, "final_sigmas_type", config.final_sigmas_type, {"zero", "sigma_min"});
}

void check_dynamic_shifting(const SchedulerConfig& config) {
  if (!config.use_dynamic_shifting) return;
  check_input(config.base_image_seq_len != config.max_image_seq_len, config.where,
              ": 'use_dynamic_shifting' needs two lengths, found 'base_image_seq_len' = 'max_image_seq_len' = ",
              config.max_image_seq_len);
}

// Only the files of flow matching's own classes name its process by their class; 'shift' is theirs alone.
void read_flow(ConfigReader& reader, SchedulerConfig& config) {
  const bool is_own_class = config.class_name.starts_with("FlowMatch");
  if (is_own_class) {
    reader.only("prediction_type", "flow_prediction");
    config.prediction_type = PredictionType::kFlow;
    reader.only("use_flow_sigmas", true);
    reader.ignore({"flow_shift"});
  } else {
    reader.only("invert_sigmas", false);
    reader.only("stochastic_sampling", false);
    reader.ignore({"shift"});
  }
  config.use_flow_sigmas = is_own_class || reader.get<bool>("use_flow_sigmas", false);
  if (!config.use_flow_sigmas) {
    reader.only("use_dynamic_shifting", false);
    reader.only("shift_terminal", Json(nullptr));
  }
  config.shift = reader.get<double>(is_own_class ? "shift" : "flow_shift", 1.0);
  check_input(config.shift > 0, config.where, ": the shift of the noise levels must be above 0, found ", config.shift);
  config.use_dynamic_shifting = reader.get<bool>("use_dynamic_shifting", false);
  config.base_shift = reader.get<double>("base_shift", 0.5);
  config.max_shift = reader.get<double>("max_shift", 1.15);
  config.base_image_seq_len = reader.get<int64_t>("base_image_seq_len", 256);
  config.max_image_seq_len = reader.get<int64_t>("max_image_seq_len", 4096);
  check_dynamic_shifting(config);
  config.time_shift_type = reader.get<std::string>("time_shift_type", "exponential");
  check_one_of(config.where, "time_shift_type", config.time_shift_type, {"exponential", "linear"});
  config.shift_terminal = reader.optional<double>("shift_terminal");
  if (config.shift_terminal == 0.0) config.shift_terminal.reset();
  check_input(!config.shift_terminal || (*config.shift_terminal > 0 && *config.shift_terminal < 1), config.where,
              ": 'shift_terminal' must be between 0 and 1, found ", config.shift_terminal.value_or(0));
  config.invert_sigmas = reader.get<bool>("invert_sigmas", false);
  config.stochastic_sampling = reader.get<bool>("stochastic_sampling", false);
}

void read_consistency(ConfigReader& reader, SchedulerConfig& config) {
  config.original_inference_steps = reader.get<int64_t>("original_inference_steps", 50);
  check_input(config.original_inference_steps >= 1, config.where,
              ": 'original_inference_steps' must be at least 1, found ", config.original_inference_steps);
  config.timestep_scaling = reader.get<double>("timestep_scaling", 10.0);
}

void read_solver(ConfigReader& reader, SchedulerConfig& config) {
  config.solver_order = reader.get<int64_t>("solver_order", 2);
  check_input(config.solver_order >= 1 && config.solver_order <= 10, config.where,
              ": 'solver_order' = ", config.solver_order, " is not supported");
  config.algorithm_type = reader.get<std::string>("algorithm_type", "dpmsolver++");
  check_one_of(config.where, "algorithm_type", config.algorithm_type,
               {"dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++", "deis"});
  config.solver_type = reader.optional<std::string>("solver_type");
  if (config.solver_type) {
    check_one_of(config.where, "solver_type", *config.solver_type, {"midpoint", "heun", "bh1", "bh2", "logrho"});
  }
  config.lower_order_final = reader.get<bool>("lower_order_final", true);
  config.euler_at_final = reader.get<bool>("euler_at_final", false);
  const Json& clipped = reader.raw("lambda_min_clipped");
  if (clipped.is_number()) {
    config.lambda_min_clipped = clipped.get<double>();
  } else if (!clipped.is_null() && clipped != Json("-Infinity")) {
    reader.refuse("lambda_min_clipped", clipped);
  }
  config.predict_x0 = reader.get<bool>("predict_x0", true);
  config.disable_corrector = reader.get<std::vector<int64_t>>("disable_corrector", {});
  reader.only("solver_p", Json(nullptr));
}

}  // namespace

SchedulerConfig parse_scheduler_config(std::string_view json, const std::string& where) {
  const Json object = parse_json(quote_bare_words(json), where);
  check_input(object.is_object(), where, ": expected a JSON object");
  ConfigReader reader(object, where);
  SchedulerConfig config;
  config.where = where;
  config.class_name = reader.get<std::string>("_class_name", "DDPMScheduler");
  check_input(
      std::find(kCompatibleClasses.begin(), kCompatibleClasses.end(), config.class_name) != kCompatibleClasses.end(),
      where, ": '_class_name' = \"", config.class_name,
      "\" is not supported: expected a scheduler with a discrete beta schedule, such as PNDMScheduler or "
      "EulerDiscreteScheduler, or one of flow matching, such as FlowMatchEulerDiscreteScheduler");
  read_betas(reader, config);
  read_sample_limits(reader, config);
  read_timesteps(reader, config);
  read_sigmas(reader, config);
  read_solver(reader, config);
  read_flow(reader, config);
  read_consistency(reader, config);
  // The array library of releases before tensors were the only choice.
  reader.ignore({"tensor_format"});
  reader.finish();
  return config;
}

SchedulerConfig read_scheduler_config(const std::filesystem::path& model_dir) {
  const std::filesystem::path path = model_dir / "scheduler" / "scheduler_config.json";
  return parse_scheduler_config(read_file(path), path.string());
}

}  // namespace prefusion::schedulers
