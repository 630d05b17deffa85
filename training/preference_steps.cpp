#include "training/preference_steps.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "core/logging.h"
#include "losses/registry.h"
#include "schedulers/noise_schedule.h"
#include "training/auto_kappa.h"
#include "training/dry_run.h"
#include "training/encoded_data.h"
#include "training/evaluation.h"
#include "training/make_reference.h"
#include "training/reference_errors.h"
#include "training/trace.h"
#include "training/train_step.h"
#include "training/weights_key.h"

namespace prefusion::training {
namespace {

// A pass without autograd has room for several training batches at once. A CPU gains nothing by that, and with batches
// of the training's own size it computes the very numbers of the live reference.
int64_t reference_batch_size(const AlignOptions& options, at::Device device) {
  constexpr int64_t kBatches = 4;
  return (device.is_cpu() ? 1 : kBatches) * options.batch_size;
}

class PreferenceSteps : public StepSource {
 public:
  PreferenceSteps(const AlignOptions& options, const Policy& policy, at::ScalarType dtype, at::Device device)
      : options_(options),
        policy_(policy),
        dtype_(dtype),
        device_(device),
        objective_(losses::find_objective(options.objective)),
        params_(losses::resolve_params(objective_.info, options.objective_args, options.beta, options.kappa)),
        reference_spec_(options.reference_spec(losses::with_needs_of(options.loss, objective_.info))),
        schedule_(schedulers::read_scheduler_config(options.model)),
        data_(open_encoded_data(options, objective_.info.data, dtype, device,
                                {.scores = objective_.info.needs_scores,
                                 .item_prompts = objective_.info.needs_item_prompts,
                                 .masks = objective_.info.needs_mask})),
        reference_(make_reference(reference_spec_, options, policy, dtype, device)),
        step_(make_step(reference_.get())) {
    if (options.auto_kappa) auto_kappa_ = std::make_unique<AutoKappa>(*options.auto_kappa, params_.kappa);
  }

  int64_t num_steps() const override { return resolve_num_steps(options_, data_->num_train_groups()); }
  double groups_per_step() const override { return static_cast<double>(groups_a_step()); }
  double epochs() const override {
    return static_cast<double>(position_) / static_cast<double>(data_->num_train_groups());
  }
  std::string description() const override {
    return concat("over ", data_->num_train_groups(), " training groups of ", data_->items_per_group());
  }

  void prepare_start() override {
    if (auto batches = data_->held_out(); !batches.empty() && options_.eval_every > 0) {
      evaluation_ = std::make_unique<HeldOutEvaluation>(std::move(batches), schedule_.num_train_timesteps());
      evaluation_->set_baseline(*step_, reference_spec_.moves());
    }
    if (reference_spec_.kind == ReferenceKind::kCached) cache_reference();
    if (!options_.trace.empty()) {
      trace_ = std::make_unique<TraceWriter>(options_.trace, options_.trace_steps, trace_metadata(), options_.seed);
    }
  }

  MicroStep next(int64_t step) override {
    if (!source_) source_ = data_->train_source(position_);
    const EncodedBatch batch = source_->next(options_.batch_size);
    position_ = batch.next_position;
    const StepTensors tensors = step_->forward(batch, step_->draw_timesteps(batch),
                                               reference_errors_ ? reference_errors_->find(batch) : at::Tensor());
    if (trace_ && trace_->wants(step)) trace_->add(tensors, batch);
    MicroStep micro{.loss = tensors.loss.loss, .metrics = tensors.loss.metrics, .ids = {}};
    if (auto_kappa_) {
      micro.metrics["kappa"] = at::scalar_tensor(tensors.kappa, at::kDouble);
      step_->set_kappa(auto_kappa_->observe(tensors.errors));
    }
    for (const auto& id : batch.ids) micro.ids += (micro.ids.empty() ? "" : ", ") + id;
    return micro;
  }

  void on_gradients(int64_t step, const at::Tensor& loss, const at::Tensor& grad_norm) override {
    if (trace_ && trace_->wants(step)) trace_->write(step, loss, grad_norm);
  }

  void follow(int64_t step, const std::vector<NamedTensor>& master_weights) override {
    if (reference_) reference_->follow(step, master_weights);
  }

  bool has_held_out() const override { return evaluation_ != nullptr; }
  Metrics measure() override { return evaluation_ ? evaluation_->measure(*step_) : Metrics{}; }

  Json fingerprint() const override {
    return {
        {"objective", options_.objective},
        {"reference", options_.reference},
        {"curriculum", options_.curriculum.empty() ? "" : concat(options_.curriculum, " in ", num_steps(), " steps")},
        {"timestep_sampling", concat(options_.timestep_sampling, " ", options_.timestep_range)},
        {"train_groups", data_->num_train_groups()}};
  }

  Json state() const override {
    Json state{{"position", position_}};
    if (auto_kappa_) state["auto_kappa"] = auto_kappa_->state();
    return state;
  }

  TensorMap tensors() const override { return reference_spec_.moves() ? reference_->state() : TensorMap{}; }

  void restore(const Json& state, const TensorMap& tensors, const std::string& where) override {
    position_ = state.at("position").get<int64_t>();
    if (auto_kappa_) step_->set_kappa(auto_kappa_->load_state(state.at("auto_kappa")));
    if (reference_spec_.moves()) reference_->load_state(tensors, where);
  }

  void dry_run(AdamW& optimizer) override {
    training::dry_run(*step_, optimizer, *policy_.denoiser, *data_, options_, num_steps(), device_, params_);
  }

 private:
  int64_t groups_a_step() const { return options_.batch_size * options_.accumulate; }

  std::unique_ptr<TrainStep> make_step(ReferencePolicy* reference) const {
    TrainStepOptions options;
    options.params = params_;
    options.loss = options_.loss;
    options.logit_weighting = TimestepWeighting::parse(options_.logit_weighting, "--logit-weighting");
    options.loss_weighting = TimestepWeighting::parse(options_.loss_weighting, "--loss-weighting");
    options.scaling = data_->scaling();
    options.latent_source = latent_source();
    options.timesteps =
        TimestepSampler::parse(options_.timestep_sampling, options_.timestep_range, schedule_.num_train_timesteps());
    options.seed = options_.seed;
    options.dtype = dtype_;
    return std::make_unique<TrainStep>(*policy_.denoiser, reference, schedule_, objective_, std::move(options));
  }

  LatentSourceOptions latent_source() const {
    LatentSourceOptions source{.source = objective_.info.latent_source, .inversion = {}};
    if (source.source == losses::LatentSource::kForwardNoise) return source;
    const bool has_eta = params_.values.contains("inversion_eta");
    source.inversion = {.num_steps = static_cast<int64_t>(params_.get("inversion_steps")),
                        .eta = has_eta ? params_.get("inversion_eta") : 0.0,
                        .renoise = source.source == losses::LatentSource::kRenoiseInversion};
    return source;
  }

  // The reference's errors of the whole run, after which it is let go.
  void cache_reference() {
    const std::string key = concat(reference_weights_key(options_, policy_, dtype_, device_), " ",
                                   weights_key("schedule", {{"alphas_cumprod", schedule_.alphas_cumprod()}}), " ",
                                   prediction_type_name(schedule_.prediction_type()), " ", c10::toString(dtype_), " ",
                                   data_->scaling().scale, " ", data_->scaling().shift, " ", options_.seed);
    reference_errors_ = std::make_unique<ReferenceErrors>(data_->cache(), key);
    reference_errors_->prepare(*data_->train_source(0), *step_, num_steps() * groups_a_step(),
                               reference_batch_size(options_, device_), options_.progress);
    step_ = make_step(nullptr);
    reference_.reset();
  }

  Metadata trace_metadata() const {
    Metadata metadata = losses::params_metadata(params_);
    metadata["objective"] = options_.objective;
    metadata["prediction_type"] = prediction_type_name(schedule_.prediction_type());
    metadata["learning_rate"] = concat(options_.lr);
    metadata["max_grad_norm"] = concat(options_.max_grad_norm);
    metadata["weight_decay"] = concat(options_.weight_decay);
    metadata["seed"] = concat(options_.seed);
    return metadata;
  }

  const AlignOptions& options_;
  const Policy& policy_;
  at::ScalarType dtype_;
  at::Device device_;
  const losses::Objective& objective_;
  losses::ObjectiveParams params_;
  ReferenceSpec reference_spec_;
  schedulers::NoiseSchedule schedule_;
  std::unique_ptr<EncodedData> data_;
  std::unique_ptr<ReferencePolicy> reference_;
  std::unique_ptr<TrainStep> step_;
  std::unique_ptr<ReferenceErrors> reference_errors_;
  std::unique_ptr<HeldOutEvaluation> evaluation_;
  std::unique_ptr<BatchSource> source_;
  std::unique_ptr<TraceWriter> trace_;
  std::unique_ptr<AutoKappa> auto_kappa_;
  int64_t position_ = 0;  // groups consumed
};

}  // namespace

std::unique_ptr<StepSource> make_preference_steps(const AlignOptions& options, const Policy& policy,
                                                  at::ScalarType dtype, at::Device device) {
  return std::make_unique<PreferenceSteps>(options, policy, dtype, device);
}

}  // namespace prefusion::training
