#include "training/align.h"

#include <ATen/ATen.h>

#include <cmath>
#include <utility>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/interrupt.h"
#include "core/logging.h"
#include "core/progress.h"
#include "losses/registry.h"
#include "training/checkpoint.h"
#include "training/ema.h"
#include "training/guards.h"
#include "training/make_optimizer.h"
#include "training/metrics_log.h"
#include "training/online/online_options.h"
#include "training/online/online_steps.h"
#include "training/policy.h"
#include "training/preference_steps.h"
#include "training/report.h"
#include "training/run_fingerprint.h"
#include "training/sample_pictures.h"
#include "training/step_costs.h"
#include "training/tensorboard.h"
#include "training/users.h"

namespace prefusion::training {
namespace fs = std::filesystem;
namespace {

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

// One alignment run: owns policy, optimizer, averages, guards, checkpoints and logs; the steps come from a StepSource.
class AlignRun {
 public:
  AlignRun(const AlignOptions& options, at::Device device, at::ScalarType dtype)
      : options_(options),
        device_(device),
        dtype_(dtype),
        info_(losses::find_objective_info(options.objective)),
        params_(losses::resolve_params(info_, options.objective_args, options.beta, options.kappa)),
        guard_(options.spike_factor, options.skip_nonfinite, device),
        alarm_(options.alarm_drift) {}

  void run() {
    prepare();
    if (options_.dry_run) {
      steps_->dry_run(*optimizer_);
      return;
    }
    open_output();
    train();
    finish();
  }

 private:
  void prepare() {
    // The policy first: what is wrong with it shows before the data is encoded.
    policy_ = make_policy(options_, dtype_, device_);
    steps_ = make_steps();
    if (policy_.users) policy_.trainable = enroll_users(*policy_.users, steps_->users(), options_);
    optimizer_ = make_optimizer(parse_optimizer(options_.optimizer, options_.optimizer_args), policy_.trainable,
                                options_.weight_decay);
    if (options_.cuda_graph) optimizer_->keep_gradients();
    if (options_.ema > 0) ema_ = std::make_unique<Ema>(optimizer_->master_weights(), options_.ema);
    num_steps_ = steps_->num_steps();
    fingerprint_ = run_fingerprint(options_, params_, policy_, dtype_, num_steps_);
    log_plan();
  }

  std::unique_ptr<StepSource> make_steps() const {
    if (const auto* online = online_objective_of(options_)) {
      return make_online_steps(options_, policy_, *online, dtype_, device_);
    }
    return make_preference_steps(options_, policy_, dtype_, device_);
  }

  void log_plan() const {
    int64_t trainable = 0;
    for (const auto& [name, parameter] : policy_.trainable) trainable += parameter.numel();
    log_info("objective ", options_.objective, ": ", losses::describe_params(info_, params_));
    log_info(adapter_title(options_.adapter_kind()), " fine-tuning of ", trainable, " parameters, ", num_steps_,
             " steps of ", steps_->groups_per_step(), " groups (batch ", options_.batch_size, " x accumulate ",
             options_.accumulate, ") ", steps_->description());
  }

  void open_output() {
    make_folder(options_.output);
    const auto checkpoint = find_checkpoint();
    check_usage(checkpoint || options_.resume == "auto" || !latest_checkpoint(options_.output),
                options_.output.string(),
                ": holds checkpoints of an earlier run; go on with --resume auto or choose another --output");
    steps_->prepare_start();
    if (checkpoint) restore(*checkpoint);
    write_file(options_.output / "run.toml", options_.resolved_config);
    log_ = std::make_unique<MetricsLog>(options_.output / "metrics.jsonl", step_number_);
    events_ = std::make_unique<TensorBoardWriter>(options_.output);
    if (options_.sample_every > 0) samples_ = std::make_unique<SamplePictures>(options_, policy_, dtype_, device_);
  }

  std::optional<fs::path> find_checkpoint() const {
    if (options_.resume.empty()) return std::nullopt;
    if (options_.resume == "auto") return latest_checkpoint(options_.output);
    return fs::path(options_.resume);
  }

  // What must be the same for a resumed run to be the same run.
  Json fingerprint() const {
    Json same = fingerprint_;
    same.update(steps_->fingerprint());
    return same;
  }

  void check_is_same_run(const Checkpoint& checkpoint, const std::string& where) const {
    const Json run = checkpoint.state.value("run", Json());
    check_input(run.is_object() && checkpoint.tensors.contains("optimizer"), where, ": is no checkpoint of align");
    const std::string changes = changed_keys(run, fingerprint());
    check_usage(changes.empty(), "--resume ", where, ": ", changes);
    check_usage(!ema_ || checkpoint.tensors.contains("ema"), "--resume ", where, ": was saved without --ema");
  }

  void restore(const fs::path& path) {
    const Checkpoint checkpoint = load_checkpoint(path);
    check_is_same_run(checkpoint, path.string());
    optimizer_->load_state(checkpoint.tensors.at("optimizer"), path.string());
    if (ema_) ema_->load_state(checkpoint.tensors.at("ema"), path.string());
    step_number_ = checkpoint.step;
    try {
      const auto tensors = checkpoint.tensors.find("steps");
      steps_->restore(checkpoint.state.at("steps"), tensors == checkpoint.tensors.end() ? TensorMap{} : tensors->second,
                      path.string());
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
    guard_.settle();
    Checkpoint checkpoint{.step = step_number_, .tensors = {{"optimizer", optimizer_->state()}}};
    if (ema_) checkpoint.tensors["ema"] = ema_->state();
    if (TensorMap tensors = steps_->tensors(); !tensors.empty()) checkpoint.tensors["steps"] = std::move(tensors);
    checkpoint.state = {{"run", fingerprint()},    {"steps", steps_->state()},        {"guard", guard_.state()},
                        {"alarm", alarm_.state()}, {"best_accuracy", best_accuracy_}, {"best_step", best_step_}};
    save_checkpoint(options_.output, checkpoint, options_.keep, best_step_);
    saved_step_ = step_number_;
  }

  void train() {
    Progress progress("align", num_steps_, "step", options_.progress);
    progress.set_start(step_number_);
    if (step_number_ == 0) evaluate();
    StepCosts costs(device_, dtype_);
    while (step_number_ < num_steps_) {
      train_one_step(costs);
      progress.update(step_number_, note_);
      const bool is_last = step_number_ == num_steps_;
      if (options_.eval_every > 0 && (step_number_ % options_.eval_every == 0 || is_last)) evaluate();
      if (samples_ && (step_number_ % options_.sample_every == 0 || is_last)) sample();
      if (pending_interrupt() || is_last || (options_.save_every > 0 && step_number_ % options_.save_every == 0))
        save();
      throw_if_interrupted();
    }
  }

  bool logs_step(int64_t step) const { return step % options_.log_every == 0 || step == num_steps_ || step == 1; }

  void train_one_step(StepCosts& costs) {
    costs.begin(/*counts=*/logs_step(step_number_ + 1));
    const double lr =
        options_.lr * lr_factor(parse_lr_schedule(options_.lr_schedule), step_number_, options_.warmup, num_steps_);
    std::string ids;
    at::Tensor loss_sum;
    for (int64_t micro = 0; micro < options_.accumulate; ++micro) {
      const MicroStep part = steps_->next(step_number_ + 1, 1.0 / static_cast<double>(options_.accumulate));
      loss_sum = loss_sum.defined() ? loss_sum + part.loss : part.loss;
      sums_.add(part.metrics, part.loss);
      ids += (ids.empty() ? "" : ", ") + part.ids;
    }
    const at::Tensor loss = loss_sum / static_cast<double>(options_.accumulate);
    const at::Tensor norm = update_weights(loss, lr, std::move(ids));
    ++step_number_;
    steps_->follow(step_number_, optimizer_->master_weights());
    if (waits_after(step_number_)) guard_.settle();
    costs.end();
    if (logs_step(step_number_)) log_step(costs, lr, norm.item<double>());
  }

  // Whether what the device knows of a step is looked at right after it. The CPU has done it by then.
  bool waits_after(int64_t step) const {
    const auto is_due = [step](int64_t every) { return every > 0 && step % every == 0; };
    return device_.is_cpu() || logs_step(step) || is_due(options_.eval_every) || is_due(options_.save_every) ||
           is_due(options_.sample_every) || pending_interrupt();
  }

  // By the gradients that are there; their norm. The host waits for nothing: whether the step is taken is decided on
  // the device.
  at::Tensor update_weights(const at::Tensor& loss, double lr, std::string ids) {
    const TimedPart optimizer(StepPart::kOptimizer);
    const at::Tensor norm = optimizer_->grad_norm();
    steps_->on_gradients(step_number_ + 1, loss, norm);
    const at::Tensor takes = guard_.judge(loss, norm, step_number_ + 1, std::move(ids));
    optimizer_->step(lr, {.takes = takes, .gradient_factor = clip_factor(norm, options_.max_grad_norm)});
    if (ema_) ema_->update(optimizer_->master_weights(), takes);
    optimizer_->zero_grad();
    return norm;
  }

  void log_step(StepCosts& costs, double lr, double grad_norm) {
    Metrics metrics = sums_.take();
    metrics["lr"] = optimizer_->rate(lr);
    metrics["grad_norm"] = grad_norm;
    metrics["epoch"] = steps_->epochs();
    const std::string parts = costs.add_to(metrics);
    metrics["samples_per_second"] = steps_->groups_per_step() / metrics["seconds_per_step"];
    metrics["skipped_steps"] = static_cast<double>(guard_.num_skipped());
    note_ = concat("loss ", metrics["loss"]);
    const auto accuracy = metrics.find("accuracy");
    if (accuracy != metrics.end() && std::isfinite(accuracy->second)) note_ += concat(", accuracy ", accuracy->second);
    note_ += "; " + parts;
    pending_metrics_.merge(metrics);
    const bool evaluates =
        steps_->has_held_out() && (step_number_ % options_.eval_every == 0 || step_number_ == num_steps_);
    if (!evaluates) flush_metrics();
  }

  // A step has one row: training metrics wait for the evaluation of the same step.
  void flush_metrics() {
    log_->write(step_number_, pending_metrics_);
    events_->write(step_number_, pending_metrics_);
    pending_metrics_.clear();
  }

  void evaluate() {
    if (!steps_->has_held_out()) return;
    std::unique_ptr<SwappedWeights> averaged;
    if (ema_) averaged = std::make_unique<SwappedWeights>(policy_.trainable, ema_->averages());
    Metrics metrics = steps_->measure();
    averaged.reset();
    bool is_best = false;
    const auto value = [&](const char* name) { return metrics.contains(name) ? metrics.at(name) : 0.0; };
    if (metrics.contains("eval/accuracy")) {
      const std::string warning = alarm_.check(step_number_, value("eval/accuracy"), value("eval/margin"),
                                               value("eval/error_chosen"), value("eval/error_chosen_ref"));
      if (!warning.empty()) log_warn(warning);
      metrics["eval/alarm"] = warning.empty() ? 0.0 : 1.0;
      const std::string displacement = displacement_warning(step_number_, value("eval/displaced"),
                                                            value("eval/displaced_low"), value("eval/margin"));
      // It rarely passes once it is there: metrics.jsonl has every measurement, the log the first.
      if (!displacement.empty() && !std::exchange(has_warned_of_displacement_, true)) log_warn(displacement);
      metrics["eval/alarm_displacement"] = displacement.empty() ? 0.0 : 1.0;
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
    write_report(options_, info_, params_, num_steps_);
    log_info("wrote ", options_.output.string());
  }

  const AlignOptions& options_;
  at::Device device_;
  at::ScalarType dtype_;
  const losses::ObjectiveInfo& info_;
  losses::ObjectiveParams params_;
  GradientGuard guard_;
  OverOptimisationAlarm alarm_;

  Policy policy_;
  std::unique_ptr<StepSource> steps_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<Ema> ema_;
  bool has_warned_of_displacement_ = false;
  std::unique_ptr<MetricsLog> log_;
  std::unique_ptr<TensorBoardWriter> events_;
  std::unique_ptr<SamplePictures> samples_;

  Json fingerprint_;  // of the run, but for its steps
  int64_t num_steps_ = 0;
  int64_t step_number_ = 0;  // optimizer steps done
  int64_t saved_step_ = -1;
  int64_t best_step_ = -1;
  double best_accuracy_ = -1;
  MetricSums sums_;
  Metrics pending_metrics_;
  std::string note_;
};

}  // namespace

void align(const AlignOptions& options, at::Device device, at::ScalarType dtype) {
  AlignRun(options, device, dtype).run();
}

}  // namespace prefusion::training
