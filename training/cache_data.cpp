#include "training/cache_data.h"

#include "losses/registry.h"
#include "schedulers/noise_schedule.h"
#include "training/curriculum.h"
#include "training/encoded_data.h"
#include "training/hardness.h"
#include "training/make_reference.h"
#include "training/policy.h"
#include "training/reference_errors.h"
#include "training/train_step.h"

namespace prefusion::training {
namespace {

// The network of the start, asked about groups of the data.
class StartNetwork {
 public:
  StartNetwork(const AlignOptions& options, EncodedData& data, at::ScalarType dtype, at::Device device)
      : options_(options),
        data_(data),
        objective_(losses::find_objective(options.objective)),
        schedule_(schedulers::read_scheduler_config(options.model)),
        policy_(make_policy(options, dtype, device)),
        reference_(make_reference({.kind = ReferenceKind::kCached}, options, policy_, dtype, device)),
        step_(*policy_.denoiser, reference_.get(), schedule_, objective_, step_options(dtype)),
        run_key_(reference_run_key(options, policy_, schedule_, data.scaling(), dtype, device)) {}

  void cache_errors(int64_t num_draws) {
    ReferenceErrors errors(data_.cache(), run_key_);
    errors.prepare(data_, questions_of_training(step_, all_draws(data_.num_train_groups(), num_draws), options_,
                                                options_.batch_size));
  }

  void cache_hardness(int64_t num_timesteps) {
    measure_hardness(data_, run_key_, questions_to_start(step_, options_.batch_size, options_.progress),
                     schedule_.num_train_timesteps(), num_timesteps);
  }

 private:
  TrainStepOptions step_options(at::ScalarType dtype) const {
    TrainStepOptions step;
    step.params = losses::resolve_params(objective_.info, options_.objective_args, options_.beta, options_.kappa);
    step.scaling = data_.scaling();
    step.timesteps = TimestepSampler::parse(options_.timestep_sampling, options_.timestep_range, schedule_);
    step.distilled_guidance = options_.distilled_guidance;
    step.seed = options_.seed;
    step.dtype = dtype;
    return step;
  }

  const AlignOptions& options_;
  EncodedData& data_;
  const losses::Objective& objective_;
  schedulers::NoiseSchedule schedule_;
  Policy policy_;
  std::unique_ptr<ReferencePolicy> reference_;
  TrainStep step_;
  std::string run_key_;
};

}  // namespace

void cache_data(const AlignOptions& options, int64_t num_draws, at::Device device, at::ScalarType dtype) {
  const Curriculum curriculum = Curriculum::parse(options.curriculum);
  const losses::ObjectiveInfo& objective = losses::find_objective(options.objective).info;
  // A run long enough that its last stage, which draws from all groups, passes over them once.
  AlignOptions run = options;
  run.steps = 0;
  run.epochs = static_cast<double>(curriculum.num_chunks);
  const auto data = open_encoded_data(run, objective.data, dtype, device, data_needs(objective));
  if (num_draws == 0 && !curriculum.is_by_hardness()) return;
  StartNetwork start(run, *data, dtype, device);
  if (num_draws > 0) start.cache_errors(num_draws);
  if (curriculum.is_by_hardness()) start.cache_hardness(curriculum.num_timesteps);
}

}  // namespace prefusion::training
