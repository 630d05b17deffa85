#include "training/preference_steps.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "core/host_memory.h"
#include "core/logging.h"
#include "core/step_clock.h"
#include "losses/registry.h"
#include "schedulers/noise_schedule.h"
#include "training/auto_kappa.h"
#include "training/curriculum.h"
#include "training/dry_run.h"
#include "training/encoded_data.h"
#include "training/evaluation.h"
#include "training/graphed_step.h"
#include "training/group_table.h"
#include "training/hardness.h"
#include "training/make_reference.h"
#include "training/own_samples.h"
#include "training/reference_errors.h"
#include "training/run_fingerprint.h"
#include "training/trace.h"
#include "training/train_step.h"
#include "training/train_step_options.h"
#include "training/users.h"

namespace prefusion::training {
namespace {

// Of the tensors in a checkpoint: the chunk of each training group.
constexpr const char* kChunks = "curriculum.chunks";

// A pass without autograd has room for several training batches at once. A CPU gains nothing by that, and with batches
// of the training's own size it computes the very numbers of the live reference.
int64_t reference_batch_size(const AlignOptions& options, at::Device device) {
  constexpr int64_t kBatches = 4;
  return (device.is_cpu() ? 1 : kBatches) * options.batch_size;
}

// The model's schedule. Input error when the objective, or the network, cannot be trained on it.
schedulers::NoiseSchedule schedule_for(const losses::ObjectiveInfo& objective, const Policy& policy,
                                       const std::filesystem::path& model) {
  schedulers::NoiseSchedule schedule(schedulers::read_scheduler_config(model));
  const std::string& where = schedule.config().where;
  check_input(!schedule.is_flow() || objective.latent_source == losses::LatentSource::kForwardNoise, where,
              ": objective ", objective.name, " inverts latents with DDIM, which flow models do not have; use another");
  const unet::DenoiserInfo& network = policy.denoiser->info();
  check_input(schedule.is_flow() || !network.is_flow, where, ": ", network.class_name,
              " is a flow model, expected a scheduler of flow matching, found ", schedule.config().class_name);
  return schedule;
}

std::string bucket_text(const AlignOptions& options) {
  if (!options.buckets) return "";
  return concat("steps ", options.bucket_reso_steps, ", sides ", options.min_bucket_reso, " to ",
                options.max_bucket_reso);
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
        schedule_(schedule_for(objective_.info, policy, options.model)),
        step_options_(known_step_options()),
        data_(open_encoded_data(options, data_kind(), dtype, device, data_needs(objective_.info),
                                policy.denoiser->info().size_multiple)),
        reference_(make_reference(reference_spec_, options, policy, dtype, device)),
        step_(make_step(reference_.get())),
        train_records_(records_key(*data_->split().train)) {
    if (samples_rejected(objective_.info)) prepare_self_play();
    if (options.auto_kappa) auto_kappa_ = std::make_unique<AutoKappa>(*options.auto_kappa, params_.kappa);
  }

  int64_t num_steps() const override { return resolve_num_steps(options_, data_->num_train_groups()); }
  double groups_per_step() const override { return static_cast<double>(groups_a_step()); }
  double epochs() const override {
    return static_cast<double>(position_) / static_cast<double>(data_->num_train_groups());
  }
  std::string description() const override {
    return concat("over ", data_->num_train_groups(), " training groups of ", data_->items_per_group(),
                  own_ ? ", each against the reference's own picture" : "");
  }

  std::vector<std::string> users() const override {
    return policy_.users ? distinct_users(*data_->split().train) : std::vector<std::string>{};
  }

  void prepare_start() override {
    if (by_hardness()) order_by_hardness();
    if (auto batches = data_->held_out(); !batches.empty() && options_.eval_every > 0) {
      // The start's samples: later measurements differ by the policy alone.
      for (EncodedBatch& batch : batches) batch = completed(batch);
      evaluation_ = std::make_unique<HeldOutEvaluation>(std::move(batches), schedule_.num_train_timesteps());
      evaluation_->set_baseline(*step_, reference_spec_.moves());
    }
    check_usage(evaluation_ || options_.dump_groups.empty(), "--dump-groups ", options_.dump_groups.string(),
                ": nothing is held out; give --eval-data, or data of two prompts or more");
    if (reference_spec_.kind == ReferenceKind::kCached) cache_reference();
    if (!options_.trace.empty()) {
      trace_ = std::make_unique<TraceWriter>(options_.trace, options_.trace_steps, trace_metadata(), options_.seed);
    }
  }

  MicroStep next(int64_t step, double share) override {
    if (!source_) source_ = data_->train_source(position_);
    const EncodedBatch batch = completed(next_batch());
    position_ = batch.next_position;
    const StepInputs inputs = step_->prepare(batch, step_->draw_timesteps(batch),
                                             reference_errors_ ? reference_errors_->find(batch) : at::Tensor());
    const bool is_traced = trace_ && trace_->wants(step);
    MicroStep micro =
        options_.cuda_graph && !is_traced ? replay(inputs, share) : compute(inputs, batch, is_traced, share);
    for (const auto& id : batch.ids) micro.ids += (micro.ids.empty() ? "" : ", ") + id;
    return micro;
  }

  MicroStep compute(const StepInputs& inputs, const EncodedBatch& batch, bool is_traced, double share) {
    const StepTensors tensors = step_->compute(inputs);
    if (is_traced) {
      trace_->add(tensors, batch);
      if (own_) trace_->keep("sample_noise", own_->noise_of(batch));
    }
    MicroStep micro{.loss = tensors.loss.loss.detach(), .metrics = tensors.loss.metrics, .ids = {}};
    if (auto_kappa_) {
      micro.metrics["kappa"] = at::scalar_tensor(tensors.kappa, at::kDouble);
      step_->set_kappa(auto_kappa_->observe(tensors.errors));
    }
    differentiate(tensors.loss.loss, share);
    return micro;
  }

  MicroStep replay(const StepInputs& inputs, double share) {
    if (!graphed_step_) graphed_step_ = std::make_unique<GraphedStep>(*step_, policy_.trainable, share);
    const losses::LossOutput output = graphed_step_->run(inputs);
    return {.loss = output.loss, .metrics = output.metrics, .ids = {}};
  }

  EncodedBatch next_batch() {
    const TimedPart data(StepPart::kData);
    return source_->next(options_.batch_size);
  }

  void on_gradients(int64_t step, const at::Tensor& loss, const at::Tensor& grad_norm) override {
    if (trace_ && trace_->wants(step)) trace_->write(step, loss, grad_norm);
  }

  void follow(int64_t step, const std::vector<NamedTensor>& master_weights) override {
    if (reference_) reference_->follow(step, master_weights);
  }

  bool has_held_out() const override { return evaluation_ != nullptr; }
  Metrics measure() override {
    Metrics metrics = evaluation_->measure(*step_);
    if (!options_.dump_groups.empty()) {
      write_group_table(options_.dump_groups, evaluation_->errors(), *data_->split().held_out, objective_.info,
                        step_->kappa());
    }
    return metrics;
  }

  Json fingerprint() const override {
    return {
        {"own_samples",
         own_ ? concat(options_.online.sampling_steps, " steps, guidance ", options_.online.guidance) : ""},
        {"objective", options_.objective},
        {"reference", options_.reference},
        {"curriculum", options_.curriculum.empty() ? "" : concat(options_.curriculum, " in ", num_steps(), " steps")},
        {"timestep_sampling", concat(options_.timestep_sampling, " ", options_.timestep_range)},
        {"reference_model", options_.reference_model.filename().string()},
        {"reference_draws", options_.reference_draws},
        {"auto_kappa", options_.auto_kappa ? Json(*options_.auto_kappa) : Json("")},
        {"resolution", options_.resolution},
        {"buckets", bucket_text(options_)},
        {"random_crop", options_.random_crop},
        {"no_hflip", options_.no_hflip},
        {"empty_prompt_rate", options_.empty_prompt_rate},
        {"score_name", options_.score_name},
        {"train_groups", data_->num_train_groups()},
        {"train_records", train_records_}};
  }

  Json state() const override {
    Json state{{"position", position_}};
    if (auto_kappa_) state["auto_kappa"] = auto_kappa_->state();
    return state;
  }

  TensorMap tensors() const override {
    TensorMap tensors = reference_spec_.moves() ? reference_->state() : TensorMap{};
    if (by_hardness()) tensors[kChunks] = at::tensor(data_->split().chunks, at::kLong);
    return tensors;
  }

  void restore(const Json& state, const TensorMap& tensors, const std::string& where) override {
    position_ = state.at("position").get<int64_t>();
    if (auto_kappa_) step_->set_kappa(auto_kappa_->load_state(state.at("auto_kappa")));
    TensorMap of_reference = tensors;
    if (by_hardness()) restore_chunks(of_reference, where);
    if (reference_spec_.moves()) reference_->load_state(of_reference, where);
  }

  void dry_run(Optimizer& optimizer) override {
    training::dry_run(*step_, optimizer, policy_, *data_, options_, num_steps(), device_, params_,
                      [this](const EncodedBatch& batch) { return completed(batch); });
  }

 private:
  losses::DataKind data_kind() const {
    const bool is_own = samples_rejected(objective_.info) && params_.choice("rejected") == "own";
    return is_own ? losses::DataKind::kSingle : objective_.info.data;
  }

  void prepare_self_play() {
    const bool has_pairs = data_->items_per_group() > 1;
    check_usage(!has_pairs || options_.online == OnlineOptions{}, "--objective ", options_.objective,
                ": the data has pairs, so nothing is sampled: leave --online-steps and --online-guidance out, or give "
                "--objective-args rejected=own");
    if (has_pairs) return;
    check_usage(reference_spec_.kind != ReferenceKind::kCached, "--reference cached: --objective ", options_.objective,
                " on single pictures samples with the reference as it goes; use another reference");
    check_usage(!options_.buckets, "--buckets: objective ", options_.objective,
                " on single pictures samples squares: leave it out");
    check_usage(!by_hardness(), "--curriculum ", options_.curriculum, ": objective ", options_.objective,
                " samples the rejected pictures as it goes, so groups have no hardness beforehand");
    check_usage(!options_.train_text_encoder, "--train-text-encoder: --objective ", options_.objective,
                " samples with text states that stay; give it pairs, or leave the text encoder as it is");
    own_ = std::make_unique<OwnSamples>(options_, policy_, *data_, dtype_, device_);
  }

  // A batch of the data as pairs, where the rejected picture is the reference's own.
  EncodedBatch completed(const EncodedBatch& batch) const {
    return own_ ? own_->with_rejected(batch, *reference_) : batch;
  }

  int64_t groups_a_step() const { return options_.batch_size * options_.accumulate; }

  // Known, and its mistakes found, before any data is encoded.
  TrainStepOptions known_step_options() const {
    const bool is_told = policy_.denoiser->info().uses_guidance;
    check_usage(is_told || options_.distilled_guidance == AlignOptions{}.distilled_guidance, "--distilled-guidance ",
                options_.distilled_guidance, ": this model is not distilled under guidance and is told no scale");
    return train_step_options(options_, objective_, params_, policy_, schedule_, dtype_);
  }

  std::unique_ptr<TrainStep> make_step(ReferencePolicy* reference) const {
    TrainStepOptions options = step_options_;
    options.scaling = data_->scaling();
    return std::make_unique<TrainStep>(*policy_.denoiser, reference, schedule_, objective_, std::move(options));
  }

  bool by_hardness() const { return Curriculum::parse(options_.curriculum).is_by_hardness(); }

  std::string start_key() const {
    return reference_run_key(options_, policy_, schedule_, data_->scaling(), dtype_, device_);
  }

  void order_by_hardness() {
    const Curriculum curriculum = Curriculum::parse(options_.curriculum);
    std::vector<double> ease = measure_hardness(
        *data_, start_key(), questions_to_start(*step_, reference_batch_size(options_, device_), options_.progress),
        schedule_.num_train_timesteps(), curriculum.num_timesteps);
    for (double& value : ease) value = -value;
    data_->split().chunks = chunks_by_ease(ease, curriculum.num_chunks, "hardness");
  }

  // The order the run began with, also where the model's errors come out otherwise on another device.
  void restore_chunks(TensorMap& tensors, const std::string& where) {
    const auto found = tensors.find(kChunks);
    const auto is_whole = [this](const at::Tensor& chunks) {
      const int64_t num_chunks = Curriculum::parse(options_.curriculum).num_chunks;
      return chunks.scalar_type() == at::kLong && chunks.sizes() == at::IntArrayRef{data_->num_train_groups()} &&
             chunks.min().item<int64_t>() == 0 && chunks.max().item<int64_t>() < num_chunks;
    };
    check_input(found != tensors.end() && is_whole(found->second), where,
                ": the checkpoint lacks the chunks of --curriculum hardness");
    const at::Tensor chunks = found->second.contiguous();
    data_->split().chunks.assign(chunks.const_data_ptr<int64_t>(), chunks.const_data_ptr<int64_t>() + chunks.numel());
    tensors.erase(found);
  }

  // The draws that training will use, each once.
  std::vector<data::LoadRequest> requests_of_run() const {
    return distinct(data_->first_draws(num_steps() * groups_a_step()));
  }

  // The reference's errors of the whole run, after which it is let go.
  void cache_reference() {
    reference_errors_ = std::make_unique<ReferenceErrors>(data_->cache(), start_key());
    reference_errors_->prepare(
        *data_, questions_of_training(*step_, requests_of_run(), options_, reference_batch_size(options_, device_)));
    step_ = make_step(nullptr);
    reference_.reset();
    release_freed_memory();
  }

  Metadata trace_metadata() const {
    Metadata metadata = objective_metadata(options_, params_);
    metadata["objective"] = options_.objective;
    metadata["prediction_type"] = prediction_type_name(schedule_.prediction_type());
    metadata["optimizer"] = options_.optimizer;
    metadata["learning_rate"] = concat(options_.lr);
    metadata["max_grad_norm"] = concat(options_.max_grad_norm);
    metadata["weight_decay"] = concat(options_.weight_decay);
    metadata["seed"] = concat(options_.seed);
    if (policy_.denoiser->info().uses_guidance) {
      metadata["distilled_guidance"] = concat(options_.distilled_guidance);
    }
    if (own_) {
      metadata["sampling_steps"] = concat(options_.online.sampling_steps);
      metadata["sampling_guidance"] = concat(options_.online.guidance);
    }
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
  TrainStepOptions step_options_;  // without the scaling of latents
  std::unique_ptr<EncodedData> data_;
  std::unique_ptr<OwnSamples> own_;  // of runs that sample the rejected pictures
  std::unique_ptr<ReferencePolicy> reference_;
  std::unique_ptr<TrainStep> step_;
  std::unique_ptr<GraphedStep> graphed_step_;  // with --cuda-graph
  std::string train_records_;                  // records_key
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
