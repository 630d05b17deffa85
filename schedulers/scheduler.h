#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/guided_step/guided_step.h"
#include "schedulers/scheduler_config.h"

namespace prefusion::schedulers {

// Draws standard normal noise of the shape, dtype and device of `like`; stochastic samplers ask it once a step.
using NoiseSource = std::function<at::Tensor(const at::Tensor& like)>;

// input = signal * clean latents + noise * standard normal noise.
struct InputScales {
  double signal;
  double noise;
};

// A sampler: turns denoiser predictions into the next, less noisy latents. Stateful (multistep solvers remember earlier
// predictions); set_timesteps starts over. Usage:
//   scheduler->set_timesteps(S);
//   sample = noise * scheduler->init_noise_sigma();
//   for (size_t i = 0; i < scheduler->timesteps().size(); ++i)
//     sample = scheduler->step(denoiser(scheduler->scale_model_input(sample, i), timesteps()[i]), i, sample, noise);
class Scheduler {
 public:
  virtual ~Scheduler() = default;

  // How many tokens the denoiser makes of a picture's latents: schedules with dynamic shifting depend on it and ask for
  // it in set_timesteps.
  void set_image_tokens(int64_t count) { image_tokens_ = count; }

  // Usage error unless 1 <= num_inference_steps <= num_train_timesteps and the spacing gives timesteps the model has.
  virtual void set_timesteps(int64_t num_inference_steps) = 0;

  // What the denoiser is given, one entry per call of it: methods of higher order (Heun, Runge-Kutta starts of PNDM)
  // call it more often than num_inference_steps. Whole numbers unless has_continuous_timesteps().
  const std::vector<double>& timesteps() const { return timesteps_; }
  virtual bool has_continuous_timesteps() const { return false; }

  // Leaves out the calls before number `first`, after set_timesteps: sampling starts from a picture brought to the
  // noise level of that call (add_noise). What is remembered of earlier calls is empty then.
  void begin_at(size_t first) { begin_ = first; }

  // Denoiser calls that one step of set_timesteps is counted as, where a schedule is cut: 2 of Heun's method.
  virtual size_t calls_per_step() const { return 1; }

  // Clean latents brought to the noise level of call number `index`: the sample that step() expects there.
  virtual at::Tensor add_noise(const at::Tensor& clean, const at::Tensor& noise, size_t index) const;

  // Standard deviation of the initial latents.
  virtual double init_noise_sigma() const { return 1.0; }

  // The denoiser's input for call number `index`.
  virtual at::Tensor scale_model_input(const at::Tensor& sample, size_t index) const;

  // What the denoiser's input of call number `index` consists of, for reading its prediction.
  virtual InputScales input_scales(size_t index) const;
  PredictionType prediction_type() const { return config_.prediction_type; }

  // The next sample after the denoiser's `prediction` [B, C, H, W] for call number `index`. Calls come in order.
  virtual at::Tensor step(const at::Tensor& prediction, size_t index, const at::Tensor& sample,
                          const NoiseSource& noise) = 0;

  // What step() does at call number `index`, where that is a LinearStep whatever the numbers are.
  std::optional<kernels::LinearStep> linear_step(size_t index);

  // From the next call on the batch holds these of its items alone (int64 [M], on the device of the samples): what is
  // remembered of earlier calls shrinks along.
  virtual void keep_items(const at::Tensor& /*items*/) {}

 protected:
  explicit Scheduler(SchedulerConfig resolved) : config_(std::move(resolved)) {}

  // Whether every step is a LinearStep: it remembers nothing, draws nothing and limits nothing.
  virtual bool has_linear_steps() const { return false; }

  SchedulerConfig config_;
  std::optional<int64_t> image_tokens_;
  std::vector<double> timesteps_;
  size_t begin_ = 0;  // the first call that is made
};

// One line of the registry.
struct SchedulerEntry {
  const char* name;  // on the command line
  SchedulerClass scheduler_class;
  const char* diffusers_name;  // of the class it follows
  const char* description;
};

const std::vector<SchedulerEntry>& scheduler_entries();

// A sampler by command line name (see scheduler_entries), or by its diffusers class name, or "auto": the class that
// wrote the config, with all its settings. Usage error for a name that is none; input error when the config has a value
// the sampler does not support.
std::unique_ptr<Scheduler> make_scheduler(const std::string& name, const SchedulerConfig& config);

// The registry name that `name` means for this config: "auto" and class names are looked up.
std::string scheduler_name(const std::string& name, const SchedulerConfig& config);

}  // namespace prefusion::schedulers
