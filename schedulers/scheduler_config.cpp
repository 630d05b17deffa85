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

// The diffusers classes whose files describe a discrete beta schedule, so that any of our samplers can read them.
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
  config.beta_schedule = reader.get<std::string>("beta_schedule", "linear");
  check_one_of(config.where, "beta_schedule", config.beta_schedule,
               {"linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace", "exp"});
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
  // Flow matching has another noising process; its shift settings mean nothing without it.
  reader.only("use_flow_sigmas", false);
  reader.only("use_dynamic_shifting", false);
  reader.only("shift_terminal", Json(nullptr));
  reader.ignore({"flow_shift", "time_shift_type"});
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
      "EulerDiscreteScheduler");
  read_betas(reader, config);
  read_sample_limits(reader, config);
  read_timesteps(reader, config);
  read_sigmas(reader, config);
  read_solver(reader, config);
  // The array library of releases before tensors were the only choice.
  reader.ignore({"tensor_format"});
  reader.finish();
  return config;
}

SchedulerConfig read_scheduler_config(const std::filesystem::path& model_dir) {
  const std::filesystem::path path = model_dir / "scheduler" / "scheduler_config.json";
  return parse_scheduler_config(read_file(path), path.string());
}

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

void check_prediction_type(const SchedulerConfig& config, SchedulerClass scheduler_class) {
  const bool takes_sample =
      scheduler_class != SchedulerClass::kPndm && scheduler_class != SchedulerClass::kEulerAncestral;
  const PredictionType type = config.prediction_type;
  check_input(type != PredictionType::kFlow && (takes_sample || type != PredictionType::kSample), config.where,
              ": 'prediction_type' = \"", prediction_type_name(type), "\" is not supported by this sampler");
}

}  // namespace

SchedulerConfig resolve_for(SchedulerConfig config, SchedulerClass scheduler_class) {
  using enum SchedulerClass;
  const bool is_heun = scheduler_class == kHeun;
  const bool is_ancestor = scheduler_class == kDdpm || scheduler_class == kDdim || scheduler_class == kPndm;
  if (!config.beta_start) config.beta_start = is_heun ? 0.00085 : 0.0001;
  if (!config.beta_end) config.beta_end = is_heun ? 0.012 : 0.02;
  if (!config.timestep_spacing) config.timestep_spacing = is_ancestor ? "leading" : "linspace";
  if (!config.steps_offset) config.steps_offset = 0;
  if (!config.clip_sample) config.clip_sample = scheduler_class == kDdpm || scheduler_class == kDdim;
  if (!config.set_alpha_to_one) config.set_alpha_to_one = scheduler_class == kDdim;
  if (!config.variance_type) config.variance_type = "fixed_small";
  if (scheduler_class == kPndm || is_heun) config.rescale_betas_zero_snr = false;
  if (!config.trained_betas) {
    const std::string& schedule = config.beta_schedule;
    const bool is_known = schedule == "exp"                                ? is_heun
                          : schedule == "sigmoid" || schedule == "laplace" ? scheduler_class == kDdpm
                                                                           : true;
    check_input(is_known, config.where, ": 'beta_schedule' = \"", schedule, "\" is not supported by this sampler");
  }
  check_prediction_type(config, scheduler_class);
  if (scheduler_class == kDpmSolver || scheduler_class == kUniPc) resolve_solver(config, scheduler_class);
  return config;
}

}  // namespace prefusion::schedulers
