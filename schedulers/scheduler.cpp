#include "schedulers/scheduler.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cctype>
#include <cmath>

#include "core/error.h"
#include "schedulers/beta_schedule.h"
#include "schedulers/ddim.h"
#include "schedulers/ddpm.h"
#include "schedulers/dpm_solver.h"
#include "schedulers/flow_schedulers.h"
#include "schedulers/lcm.h"
#include "schedulers/pndm.h"
#include "schedulers/sigma_schedule.h"
#include "schedulers/sigma_schedulers.h"
#include "schedulers/unipc.h"

namespace prefusion::schedulers {
namespace {

using Maker = std::unique_ptr<Scheduler> (*)(const SchedulerConfig&);
using Adjust = void (*)(SchedulerConfig&);

template <typename T>
std::unique_ptr<Scheduler> make(const SchedulerConfig& config) {
  return std::make_unique<T>(config);
}

void use_karras(SchedulerConfig& config) {
  config.use_karras_sigmas = true;
  config.use_exponential_sigmas = false;
  config.use_beta_sigmas = false;
}

struct Row {
  SchedulerEntry entry;
  Maker maker;
  Adjust adjust;                     // what the name fixes in the config
  std::vector<std::string> aliases;  // other spellings in use
};

void keep(SchedulerConfig&) {}
void ode(SchedulerConfig& config) {
  config.algorithm_type = "dpmsolver++";
}
void sde(SchedulerConfig& config) {
  config.algorithm_type = "sde-dpmsolver++";
}
void ode_karras(SchedulerConfig& config) {
  ode(config);
  use_karras(config);
}
void sde_karras(SchedulerConfig& config) {
  sde(config);
  use_karras(config);
}

// The registry: the first row of a diffusers class is what "auto" and the class name mean.
const std::vector<Row>& rows() {
  using enum SchedulerClass;
  static const std::vector<Row> kRows = {
      {{"ddpm", kDdpm, "DDPMScheduler", "ancestral sampling, stochastic"}, make<DdpmScheduler>, keep, {}},
      {{"ddim", kDdim, "DDIMScheduler", "deterministic unless eta > 0"}, make<DdimScheduler>, keep, {}},
      {{"pndm", kPndm, "PNDMScheduler", "fourth-order multistep"}, make<PndmScheduler>, keep, {"plms"}},
      {{"euler", kEuler, "EulerDiscreteScheduler", "Euler's method"}, make<EulerScheduler>, keep, {}},
      {{"euler-ancestral", kEulerAncestral, "EulerAncestralDiscreteScheduler", "Euler's method, stochastic"},
       make<EulerAncestralScheduler>,
       keep,
       {"euler-a"}},
      {{"heun", kHeun, "HeunDiscreteScheduler", "Heun's method, two denoiser calls a step"},
       make<HeunScheduler>,
       keep,
       {}},
      {{"dpm++", kDpmSolver, "DPMSolverMultistepScheduler", "DPM-Solver++ 2M"},
       make<DpmSolverScheduler>,
       ode,
       {"dpm++-2m", "dpmpp-2m", "dpmsolver++", "dpm-solver++"}},
      {{"dpm++-karras", kDpmSolver, "", "DPM-Solver++ 2M, Karras sigmas"},
       make<DpmSolverScheduler>,
       ode_karras,
       {"dpm++-2m-karras", "dpmpp-2m-karras", "dpmsolver++-karras"}},
      {{"dpm++-sde", kDpmSolver, "", "DPM-Solver++ 2M SDE, stochastic"},
       make<DpmSolverScheduler>,
       sde,
       {"dpm++-2m-sde", "dpmpp-2m-sde", "sde-dpmsolver++"}},
      {{"dpm++-sde-karras", kDpmSolver, "", "DPM-Solver++ 2M SDE, Karras sigmas, stochastic"},
       make<DpmSolverScheduler>,
       sde_karras,
       {"dpm++-2m-sde-karras", "dpmpp-2m-sde-karras", "sde-dpmsolver++-karras"}},
      {{"unipc", kUniPc, "UniPCMultistepScheduler", "predictor-corrector"}, make<UniPcScheduler>, keep, {}},
      {{"lcm", kLcm, "LCMScheduler", "consistency models (LCM), few steps, stochastic"}, make<LcmScheduler>, keep, {}},
      {{"flow-euler", kFlowEuler, "FlowMatchEulerDiscreteScheduler", "flow models, Euler's method"},
       make<FlowEulerScheduler>,
       keep,
       {"flow-match-euler"}},
      {{"flow-heun", kFlowHeun, "FlowMatchHeunDiscreteScheduler", "flow models, Heun's method"},
       make<FlowHeunScheduler>,
       keep,
       {"flow-match-heun"}},
  };
  return kRows;
}

std::string normalised(const std::string& name) {
  std::string out;
  for (const char c : name) out += c == '_' ? '-' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

const Row* find_class(const std::string& class_name) {
  if (class_name.empty()) return nullptr;
  const auto row =
      std::find_if(rows().begin(), rows().end(), [&](const Row& r) { return class_name == r.entry.diffusers_name; });
  return row == rows().end() ? nullptr : &*row;
}

std::string known_names() {
  std::string names = "auto";
  for (const Row& row : rows()) names += std::string(", ") + row.entry.name;
  return names;
}

struct Choice {
  const Row* row;
  bool is_as_configured;  // the config's own algorithm, whatever the row's name would fix
};

Choice choose(const std::string& name, const SchedulerConfig& config) {
  if (name == "auto") {
    const Row* row = find_class(config.class_name);
    check_input(row != nullptr, config.where, ": '_class_name' = \"", config.class_name,
                "\" is a sampler prefusion does not have; choose one with --scheduler (", known_names(), ")");
    return {row, true};
  }
  if (const Row* row = find_class(name)) return {row, true};
  const std::string wanted = normalised(name);
  for (const Row& row : rows()) {
    const bool matches =
        wanted == row.entry.name || std::find(row.aliases.begin(), row.aliases.end(), wanted) != row.aliases.end();
    if (matches) return {&row, false};
  }
  fail_usage("--scheduler '", name, "' is not known; choose one of ", known_names());
}

}  // namespace

at::Tensor Scheduler::scale_model_input(const at::Tensor& sample, size_t) const {
  return sample;
}

// signal^2 + noise^2 = 1 whatever a sampler makes of its own samples, so the noise level of the call's timestep is all
// there is to know.
InputScales Scheduler::input_scales(size_t index) const {
  // A schedule rescaled to zero signal ends in abar = 0, of which noise predictions say nothing.
  const SigmaTable table(make_alphas_cumprod(config_).clamp_min(1e-8));
  const double sigma = table.at(timesteps_.at(index));
  const double signal = 1 / std::sqrt(1 + sigma * sigma);
  return {.signal = signal, .noise = signal * sigma};
}

at::Tensor Scheduler::add_noise(const at::Tensor& clean, const at::Tensor& noise, size_t index) const {
  const at::Tensor alpha = make_alphas_cumprod(config_)[static_cast<int64_t>(timesteps_.at(index))];
  return alpha.sqrt() * clean + (1 - alpha).sqrt() * noise;
}

const std::vector<SchedulerEntry>& scheduler_entries() {
  static const std::vector<SchedulerEntry> kEntries = [] {
    std::vector<SchedulerEntry> entries;
    for (const Row& row : rows()) entries.push_back(row.entry);
    return entries;
  }();
  return kEntries;
}

std::string scheduler_name(const std::string& name, const SchedulerConfig& config) {
  return choose(name, config).row->entry.name;
}

std::optional<kernels::LinearStep> Scheduler::linear_step(size_t index) {
  if (!has_linear_steps()) return std::nullopt;
  // The step itself says what it makes of a sample alone, and of a prediction alone.
  const at::Tensor none = at::zeros({1, 1, 1, 1}), one = at::ones({1, 1, 1, 1});
  const NoiseSource silence = [](const at::Tensor& like) { return at::zeros_like(like); };
  return kernels::LinearStep{.keep = step(none, index, one, silence).item<double>(),
                             .move = step(one, index, none, silence).item<double>()};
}

std::unique_ptr<Scheduler> make_scheduler(const std::string& name, const SchedulerConfig& config) {
  const Choice choice = choose(name, config);
  SchedulerConfig adjusted = config;
  if (!choice.is_as_configured) choice.row->adjust(adjusted);
  return choice.row->maker(adjusted);
}

}  // namespace prefusion::schedulers
