#include "training/align.h"

#include <ATen/ATen.h>

#include <chrono>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/interrupt.h"
#include "core/logging.h"
#include "core/progress.h"
#include "losses/registry.h"
#include "nn/layers.h"
#include "schedulers/noise_schedule.h"
#include "training/checkpoint.h"
#include "training/dry_run.h"
#include "training/ema.h"
#include "training/encoded_data.h"
#include "training/evaluation.h"
#include "training/guards.h"
#include "training/metrics_log.h"
#include "training/optimizer.h"
#include "training/policy.h"
#include "training/reference_errors.h"
#include "training/reference_policy.h"
#include "training/report.h"
#include "training/sample_pictures.h"
#include "training/tensorboard.h"
#include "training/trace.h"
#include "training/train_step.h"

namespace prefusion::training {
namespace fs = std::filesystem;
namespace {

using Clock = std::chrono::steady_clock;

// A pass without autograd has room for so many training batches at once.
constexpr int64_t kReferenceBatches = 4;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Sums of 0-dim tensors that stay on the device until somebody needs the numbers.
class MetricSums {
 public:
  void add(const std::map<std::string, at::Tensor>& metrics, const at::Tensor& loss) {
    add_one("loss", loss);
    for (const auto& [name, value] : metrics) add_one(name, value);
    ++count_;
  }
  Metrics take() {
    Metrics means;
    for (const auto& [name, sum] : sums_) means[name] = sum.item<double>() / static_cast<double>(count_);
    sums_.clear();
    count_ = 0;
    return means;
  }

 private:
  void add_one(const std::string& name, const at::Tensor& value) {
    const at::Tensor detached = value.detach().to(at::kDouble);
    at::Tensor& sum = sums_[name];
    sum = sum.defined() ? sum + detached : detached;
  }
  std::map<std::string, at::Tensor> sums_;
  int64_t count_ = 0;
};

// One alignment run: owns the parts, knows their order.
class AlignRun {
 public:
  AlignRun(const AlignOptions& options, at::Device device, at::ScalarType dtype)
      : options_(options),
        device_(device),
        dtype_(dtype),
        objective_(losses::find_objective(options.objective)),
        params_(losses::resolve_params(objective_.info, options.objective_args, options.beta, options.kappa)),
        reference_spec_(options.reference_spec(objective_.info.needs_reference)),
        schedule_(schedulers::read_scheduler_config(options.model)),
        guard_(options.spike_factor, options.skip_nonfinite),
        alarm_(options.alarm_drift) {}

  void run() {
    prepare();
    if (options_.dry_run) {
      dry_run(*step_, *optimizer_, *policy_.denoiser, *data_, options_, num_steps_, device_, params_);
      return;
    }
    open_output();
    train();
    finish();
  }

 private:
  int64_t groups_per_step() const { return options_.batch_size * options_.accumulate; }

  void prepare() {
    // The policy first: what is wrong with it shows before the data is encoded.
    policy_ = make_policy(options_, dtype_, device_);
    data_ = open_encoded_data(options_, objective_.info.data, dtype_, device_);
    reference_ = make_reference();
    optimizer_ = std::make_unique<AdamW>(policy_.trainable,
                                         AdamWOptions{.lr = options_.lr, .weight_decay = options_.weight_decay});
    if (options_.ema > 0) ema_ = std::make_unique<Ema>(optimizer_->master_weights(), options_.ema);
    step_ = make_step(reference_.get());
    num_steps_ = resolve_num_steps(options_, data_->num_train_groups());
    log_plan();
  }

  std::unique_ptr<TrainStep> make_step(ReferencePolicy* reference) const {
    const TimestepSampler timesteps =
        TimestepSampler::parse(options_.timestep_sampling, options_.timestep_range, schedule_.num_train_timesteps());
    return std::make_unique<TrainStep>(*policy_.denoiser, reference, schedule_, objective_,
                                       TrainStepOptions{.params = params_,
                                                        .scaling = data_->scaling(),
                                                        .timesteps = timesteps,
                                                        .seed = options_.seed,
                                                        .dtype = dtype_});
  }

  std::unique_ptr<ReferencePolicy> make_reference() const {
    switch (reference_spec_.kind) {
      case ReferenceKind::kNone: return nullptr;
      case ReferenceKind::kAdapterOff:
        if (options_.init_lora.empty()) return adapter_off_reference(policy_.denoiser, policy_.adapter);
        return trained_weights_reference(policy_.denoiser, policy_.trainable, {.kind = ReferenceKind::kFrozen});
      case ReferenceKind::kFrozen: return frozen_reference(load_reference_denoiser());
      case ReferenceKind::kCached:
        // The start is at hand until training begins; another model is loaded for the pass and freed.
        if (!options_.reference_model.empty()) return frozen_reference(load_reference_denoiser());
        return trained_weights_reference(policy_.denoiser, policy_.trainable, {.kind = ReferenceKind::kFrozen});
      default: return trained_weights_reference(policy_.denoiser, policy_.trainable, reference_spec_);
    }
  }

  std::shared_ptr<unet::Denoiser> load_reference_denoiser() const {
    const fs::path folder = options_.reference_model.empty() ? options_.model : options_.reference_model;
    return load_start_denoiser(folder, options_, dtype_, device_);
  }

  void log_plan() const {
    int64_t trainable = 0;
    for (const auto& [name, parameter] : policy_.trainable) trainable += parameter.numel();
    log_info("objective ", options_.objective, ": ", losses::describe_params(objective_.info, params_));
    log_info(options_.adapter == "lora" ? "LoRA" : "full", " fine-tuning of ", trainable, " parameters, ", num_steps_,
             " steps of ", groups_per_step(), " groups (batch ", options_.batch_size, " x accumulate ",
             options_.accumulate, ") over ", data_->num_train_groups(), " training groups");
  }

  void open_output() {
    make_folder(options_.output);
    const auto checkpoint = find_checkpoint();
    check_usage(checkpoint || options_.resume == "auto" || !latest_checkpoint(options_.output),
                options_.output.string(),
                ": holds checkpoints of an earlier run; go on with --resume auto or choose another --output");
    prepare_baseline();
    if (checkpoint) restore(*checkpoint);
    write_file(options_.output / "run.toml", options_.resolved_config);
    log_ = std::make_unique<MetricsLog>(options_.output / "metrics.jsonl", step_number_);
    events_ = std::make_unique<TensorBoardWriter>(options_.output);
    source_ = data_->train_source(position_);
    if (!options_.trace.empty()) {
      trace_ = std::make_unique<TraceWriter>(options_.trace, options_.trace_steps, trace_metadata(), options_.seed);
    }
    if (options_.sample_every > 0)
      samples_ = std::make_unique<SamplePictures>(options_, policy_.denoiser, dtype_, device_);
  }

  // Whatever needs the weights of the start: the held-out baseline, and the errors of a cached reference, after which
  // the reference is let go.
  void prepare_baseline() {
    if (auto batches = data_->held_out(); !batches.empty() && options_.eval_every > 0) {
      evaluation_ = std::make_unique<HeldOutEvaluation>(std::move(batches), schedule_.num_train_timesteps());
      evaluation_->set_baseline(*step_, reference_spec_.moves());
    }
    if (reference_spec_.kind != ReferenceKind::kCached) return;
    reference_errors_ = std::make_unique<ReferenceErrors>(data_->cache(), reference_key());
    reference_errors_->prepare(*data_->train_source(0), *step_, num_steps_ * groups_per_step(),
                               kReferenceBatches * options_.batch_size, options_.progress);
    step_ = make_step(nullptr);
    reference_.reset();
  }

  // What the reference's errors depend on besides the groups.
  std::string reference_key() const {
    std::string weights = weights_key("start", nn::tensor_map(*policy_.denoiser));
    if (!options_.reference_model.empty()) {
      weights = weights_key("start", nn::tensor_map(*load_reference_denoiser()));
    } else if (!options_.init_lora.empty() && policy_.adapter) {
      TensorMap adapter;
      for (const auto& [name, tensor] : policy_.trainable) adapter[name] = tensor.detach();
      weights += weights_key("adapter", adapter);
    }
    return concat(weights, " ", weights_key("schedule", {{"alphas_cumprod", schedule_.alphas_cumprod()}}), " ",
                  prediction_type_name(schedule_.prediction_type()), " ", c10::toString(dtype_), " ",
                  data_->scaling().scale, " ", data_->scaling().shift, " ", options_.seed);
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

  std::optional<fs::path> find_checkpoint() const {
    if (options_.resume.empty()) return std::nullopt;
    if (options_.resume == "auto") return latest_checkpoint(options_.output);
    return fs::path(options_.resume);
  }

  // What must be the same for a resumed run to be the same run.
  Json fingerprint() const {
    return {{"objective", options_.objective},
            {"adapter", options_.adapter},
            {"seed", options_.seed},
            {"batch_size", options_.batch_size},
            {"accumulate", options_.accumulate},
            {"reference", options_.reference},
            {"timestep_sampling", concat(options_.timestep_sampling, " ", options_.timestep_range)},
            {"train_groups", data_->num_train_groups()}};
  }

  void check_is_same_run(const Checkpoint& checkpoint, const std::string& where) const {
    const Json run = checkpoint.state.value("run", Json());
    check_input(run.is_object() && checkpoint.tensors.contains("optimizer"), where, ": is no checkpoint of align");
    const Json expected = fingerprint();
    for (const auto& [key, value] : expected.items()) {
      check_usage(run.value(key, Json()) == value, "--resume ", where, ": its ", key, " was ",
                  run.value(key, Json()).dump(), ", this run's is ", value.dump());
    }
    check_usage(!ema_ || checkpoint.tensors.contains("ema"), "--resume ", where, ": was saved without --ema");
    check_input(!reference_spec_.moves() || checkpoint.tensors.contains("reference"), where,
                ": holds no weights of the moving reference");
  }

  void restore(const fs::path& path) {
    const Checkpoint checkpoint = load_checkpoint(path);
    check_is_same_run(checkpoint, path.string());
    optimizer_->load_state(checkpoint.tensors.at("optimizer"), path.string());
    if (ema_) ema_->load_state(checkpoint.tensors.at("ema"), path.string());
    if (reference_spec_.moves()) reference_->load_state(checkpoint.tensors.at("reference"), path.string());
    step_number_ = checkpoint.step;
    try {
      position_ = checkpoint.state.at("position").get<int64_t>();
      guard_.load_state(checkpoint.state.at("guard"));
      alarm_.load_state(checkpoint.state.at("alarm"));
      best_accuracy_ = checkpoint.state.value("best_accuracy", -1.0);
      best_step_ = checkpoint.state.value("best_step", int64_t{-1});
    } catch (const Json::exception& error) {
      fail_input((path / "state.json").string(), ": ", error.what());
    }
    log_info("resuming at step ", step_number_, " from ", path.string());
  }

  void save() {
    if (saved_step_ == step_number_) return;
    Checkpoint checkpoint{.step = step_number_, .tensors = {{"optimizer", optimizer_->state()}}};
    if (ema_) checkpoint.tensors["ema"] = ema_->state();
    if (reference_spec_.moves()) checkpoint.tensors["reference"] = reference_->state();
    checkpoint.state = {{"run", fingerprint()},    {"position", position_},           {"guard", guard_.state()},
                        {"alarm", alarm_.state()}, {"best_accuracy", best_accuracy_}, {"best_step", best_step_}};
    save_checkpoint(options_.output, checkpoint, options_.keep, best_step_);
    saved_step_ = step_number_;
  }

  void train() {
    Progress progress("align", num_steps_, "step", options_.progress);
    progress.set_start(step_number_);
    if (step_number_ == 0) evaluate();
    while (step_number_ < num_steps_) {
      train_one_step();
      progress.update(step_number_, note_);
      const bool is_last = step_number_ == num_steps_;
      if (options_.eval_every > 0 && (step_number_ % options_.eval_every == 0 || is_last)) evaluate();
      if (samples_ && (step_number_ % options_.sample_every == 0 || is_last)) sample();
      if (pending_interrupt() || is_last || (options_.save_every > 0 && step_number_ % options_.save_every == 0))
        save();
      throw_if_interrupted();
    }
  }

  void train_one_step() {
    const auto began = Clock::now();
    const double lr =
        options_.lr * lr_factor(parse_lr_schedule(options_.lr_schedule), step_number_, options_.warmup, num_steps_);
    std::string ids;
    at::Tensor loss_sum;
    for (int64_t micro = 0; micro < options_.accumulate; ++micro) {
      const EncodedBatch batch = source_->next(options_.batch_size);
      position_ = batch.next_position;
      const StepTensors tensors = step_->forward(batch, step_->draw_timesteps(batch),
                                                 reference_errors_ ? reference_errors_->find(batch) : at::Tensor());
      (tensors.loss.loss / static_cast<double>(options_.accumulate)).backward();
      const at::Tensor loss = tensors.loss.loss.detach();
      loss_sum = loss_sum.defined() ? loss_sum + loss : loss;
      sums_.add(tensors.loss.metrics, loss);
      for (const auto& id : batch.ids) ids += (ids.empty() ? "" : ", ") + id;
      if (trace_ && trace_->wants(step_number_ + 1)) trace_->add(tensors, batch);
    }
    const at::Tensor loss = loss_sum / static_cast<double>(options_.accumulate);
    const at::Tensor norm = optimizer_->grad_norm();
    if (trace_ && trace_->wants(step_number_ + 1)) trace_->write(step_number_ + 1, loss, norm);
    const double norm_value = norm.item<double>();
    if (guard_.judge(loss.item<double>(), norm_value, step_number_ + 1, ids) == StepVerdict::kTake) {
      if (options_.max_grad_norm > 0) optimizer_->clip_gradients(norm, options_.max_grad_norm);
      optimizer_->step(lr);
      if (ema_) ema_->update(optimizer_->master_weights());
    }
    optimizer_->zero_grad();
    ++step_number_;
    if (reference_) reference_->follow(step_number_, optimizer_->master_weights());
    step_seconds_ += seconds_since(began);
    ++timed_steps_;
    if (step_number_ % options_.log_every == 0 || step_number_ == num_steps_ || step_number_ == 1)
      log_step(lr, norm_value);
  }

  void log_step(double lr, double grad_norm) {
    Metrics metrics = sums_.take();
    metrics["lr"] = lr;
    metrics["grad_norm"] = grad_norm;
    metrics["epoch"] = static_cast<double>(position_) / static_cast<double>(data_->num_train_groups());
    metrics["seconds_per_step"] = step_seconds_ / static_cast<double>(timed_steps_);
    metrics["samples_per_second"] = static_cast<double>(timed_steps_ * groups_per_step()) / step_seconds_;
    metrics["skipped_steps"] = static_cast<double>(guard_.num_skipped());
    step_seconds_ = 0;
    timed_steps_ = 0;
    note_ = concat("loss ", metrics["loss"]);
    if (metrics.contains("accuracy")) note_ += concat(", accuracy ", metrics["accuracy"]);
    pending_metrics_.merge(metrics);
    const bool evaluates = evaluation_ && (step_number_ % options_.eval_every == 0 || step_number_ == num_steps_);
    if (!evaluates) flush_metrics();
  }

  // A step has one row: training metrics wait for the evaluation of the same step.
  void flush_metrics() {
    log_->write(step_number_, pending_metrics_);
    events_->write(step_number_, pending_metrics_);
    pending_metrics_.clear();
  }

  void evaluate() {
    if (!evaluation_) return;
    std::unique_ptr<SwappedWeights> averaged;
    if (ema_) averaged = std::make_unique<SwappedWeights>(policy_.trainable, ema_->averages());
    Metrics metrics = evaluation_->measure(*step_);
    averaged.reset();
    bool is_best = false;
    const auto value = [&](const char* name) { return metrics.contains(name) ? metrics.at(name) : 0.0; };
    if (metrics.contains("eval/accuracy")) {
      const std::string warning = alarm_.check(step_number_, value("eval/accuracy"), value("eval/margin"),
                                               value("eval/error_chosen"), value("eval/error_chosen_ref"));
      if (!warning.empty()) log_warn(warning);
      metrics["eval/alarm"] = warning.empty() ? 0.0 : 1.0;
      if (step_number_ > 0 && value("eval/accuracy") > best_accuracy_) {
        best_accuracy_ = value("eval/accuracy");
        best_step_ = step_number_;
        is_best = true;
      }
      log_info("step ", step_number_, ": held-out accuracy ", value("eval/accuracy"), " [", value("eval/accuracy_low"),
               ", ", value("eval/accuracy_high"), "], chosen error ", value("eval/error_chosen"), " (reference ",
               value("eval/error_chosen_ref"), ")");
    }
    pending_metrics_.merge(metrics);
    flush_metrics();
    if (is_best) save();  // after its row, which a run resumed from here does not write again
  }

  void sample() {
    std::unique_ptr<SwappedWeights> averaged;
    if (ema_) averaged = std::make_unique<SwappedWeights>(policy_.trainable, ema_->averages());
    samples_->write(step_number_);
  }

  void finish() {
    write_weights(options_, policy_, ema_ ? ema_->averages() : optimizer_->master_weights());
    write_report(options_, objective_.info, params_, num_steps_);
    log_info("wrote ", options_.output.string());
  }

  const AlignOptions& options_;
  at::Device device_;
  at::ScalarType dtype_;
  const losses::Objective& objective_;
  losses::ObjectiveParams params_;
  ReferenceSpec reference_spec_;
  schedulers::NoiseSchedule schedule_;
  GradientGuard guard_;
  OverOptimisationAlarm alarm_;

  std::unique_ptr<EncodedData> data_;
  Policy policy_;
  std::unique_ptr<ReferencePolicy> reference_;
  std::unique_ptr<ReferenceErrors> reference_errors_;
  std::unique_ptr<AdamW> optimizer_;
  std::unique_ptr<Ema> ema_;
  std::unique_ptr<TrainStep> step_;
  std::unique_ptr<BatchSource> source_;
  std::unique_ptr<HeldOutEvaluation> evaluation_;
  std::unique_ptr<MetricsLog> log_;
  std::unique_ptr<TensorBoardWriter> events_;
  std::unique_ptr<TraceWriter> trace_;
  std::unique_ptr<SamplePictures> samples_;

  int64_t num_steps_ = 0;
  int64_t step_number_ = 0;  // optimizer steps done
  int64_t position_ = 0;     // groups consumed
  int64_t saved_step_ = -1;
  int64_t best_step_ = -1;
  double best_accuracy_ = -1;
  MetricSums sums_;
  Metrics pending_metrics_;
  double step_seconds_ = 0;
  int64_t timed_steps_ = 0;
  std::string note_;
};

}  // namespace

void align(const AlignOptions& options, at::Device device, at::ScalarType dtype) {
  AlignRun(options, device, dtype).run();
}

}  // namespace prefusion::training
