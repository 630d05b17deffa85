#include "training/reward/train_reward.h"

#include <ATen/ATen.h>

#include <chrono>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/interrupt.h"
#include "core/logging.h"
#include "core/progress.h"
#include "losses/reward_losses.h"
#include "training/checkpoint.h"
#include "training/reward/reward_batches.h"
#include "training/reward/reward_log.h"
#include "training/reward/reward_measurement.h"
#include "training/reward/reward_output.h"
#include "training/reward/reward_selection.h"
#include "training/reward/reward_start.h"
#include "training/reward/reward_trainer.h"
#include "training/run_fingerprint.h"

namespace prefusion::training {
namespace fs = std::filesystem;
namespace {

using Clock = std::chrono::steady_clock;

// One training run: data, network, optimizers, checkpoints and logs.
class RewardRun {
 public:
  RewardRun(const TrainRewardOptions& options, at::Device device, at::ScalarType dtype)
      : options_(options), device_(device), dtype_(dtype), loss_(losses::find_reward_loss(options.loss)) {
    loss_parameters_ = parse_numbers(options.loss_args, loss_.parameters, "--loss-args");
  }

  Json run() {
    check_output();
    prepare();
    if (const auto path = resumed_checkpoint()) restore(*path);
    write_file(options_.output / "run.toml", options_.resolved_config);
    log_ = std::make_unique<RewardLog>(options_, static_cast<int64_t>(data_.train.size()), num_steps_, step_);
    if (step_ == 0) begin();
    train();
    return finish();
  }

 private:
  void check_output() const {
    make_folder(options_.output);
    check_usage(options_.resume || !latest_checkpoint(options_.output), options_.output.string(),
                ": holds checkpoints of an earlier run; go on with --resume or choose another --output");
  }

  std::optional<fs::path> resumed_checkpoint() const {
    return options_.resume ? latest_checkpoint(options_.output) : std::nullopt;
  }

  void prepare() {
    start_ = find_reward_start(options_, device_);
    data_ = open_reward_data(options_, start_.known_users);
    network_ = make_reward_network(options_, start_, data_, device_, dtype_);
    batches_ = std::make_unique<RewardBatches>(data_, *network_, options_);
    check_input(!data_.train.empty() && !data_.validation.empty(), options_.data.front().string(),
                ": the readable groups leave nothing to train on or nothing to validate with");
    trainer_ = std::make_unique<RewardTrainer>(options_, loss_, loss_parameters_, data_, *network_, *batches_);
    measurement_ = std::make_unique<RewardMeasurement>(options_, data_, *network_, *batches_, step_);
    num_steps_ = trainer_->num_steps();
    fingerprint_ = reward_fingerprint(options_, loss_parameters_, data_, *network_, num_steps_, dtype_);
    log_plan();
  }

  void log_plan() const {
    log_info("head ", options_.head, ", loss ", options_.loss, ", training ", options_.train, ": ",
             trainer_->num_parameters(), " parameters, ", num_steps_, " steps of ",
             options_.batch_size * options_.accumulate, " groups, learning rate ", options_.base_lr());
  }

  void begin() {
    evaluate();
    if (!data_.test.empty()) start_quality_ = to_json(measurement_->quality(data_.test, 0));
  }

  void train() {
    Progress progress("train-reward", num_steps_, "step", options_.progress);
    progress.set_start(step_);
    while (step_ < num_steps_ && !is_over()) {
      train_one_step();
      const bool is_last = step_ == num_steps_;
      if (step_ % options_.eval_every == 0 || is_last) evaluate();
      progress.update(step_, log_->note());
      if (pending_interrupt() || is_last || (options_.save_every > 0 && step_ % options_.save_every == 0)) save();
      throw_if_interrupted();
    }
    if (is_over())
      log_info("stopped at step ", step_, ": no better validation for ", selection_.measurements_since(),
               " measurements");
  }

  bool is_over() const { return options_.patience > 0 && selection_.measurements_since() >= options_.patience; }

  void train_one_step() {
    const auto began = Clock::now();
    const RewardStep done = trainer_->step(step_);
    ++step_;
    log_->add(step_, done, std::chrono::duration<double>(Clock::now() - began).count());
  }

  void evaluate() {
    const RewardQuality quality = measurement_->quality(data_.validation, 0);
    Metrics measured = {{"eval/accuracy", quality.accuracy.value},
                        {"eval/accuracy_low", quality.accuracy.low},
                        {"eval/accuracy_high", quality.accuracy.high},
                        {"eval/accuracy_per_prompt", quality.accuracy_per_prompt.value},
                        {"eval/log_loss", quality.log_loss}};
    for (size_t column = 1; column < data_.columns.size(); ++column) {
      const RewardQuality aspect = measurement_->quality(data_.validation, static_cast<int32_t>(column));
      measured["eval/accuracy/" + data_.columns[column]] = aspect.accuracy.value;
    }
    log_info("step ", step_, ": validation accuracy ", quality.accuracy.value, " [", quality.accuracy.low, ", ",
             quality.accuracy.high, "], log-loss ", quality.log_loss);
    log_->add_measurement(step_, measured);
    if (step_ == 0) return;  // what was there before is no result
    if (selection_.consider(step_, quality)) save();
  }

  void save() {
    if (saved_step_ == step_) return;
    Checkpoint checkpoint{.step = step_, .tensors = trainer_->state(), .state = selection_.state()};
    checkpoint.state["run"] = fingerprint_;
    checkpoint.state["start_quality"] = start_quality_;
    save_checkpoint(options_.output, checkpoint, options_.keep, selection_.best_step());
    saved_step_ = step_;
  }

  void restore(const fs::path& path) {
    const Checkpoint checkpoint = load_checkpoint(path);
    const Json run = checkpoint.state.value("run", Json());
    check_input(run.is_object(), path.string(), ": is no checkpoint of train-reward");
    const std::string changes = changed_keys(run, fingerprint_);
    check_usage(changes.empty(), "--resume ", path.string(), ": ", changes);
    trainer_->load_state(checkpoint.tensors, path.string());
    step_ = checkpoint.step;
    saved_step_ = step_;
    try {
      selection_.load_state(checkpoint.state);
      start_quality_ = checkpoint.state.at("start_quality");
    } catch (const Json::exception& error) {
      fail_input((path / "state.json").string(), ": ", error.what());
    }
    log_info("resuming at step ", step_, " from ", path.string());
  }

  Json measure_columns(double temperature, double threshold) {
    Json result = Json::object();
    for (size_t column = 0; column < data_.columns.size(); ++column) {
      const auto quality = measurement_->quality(data_.test, static_cast<int32_t>(column), temperature, threshold);
      result[data_.columns[column]] = to_json(quality);
    }
    return result;
  }

  // The weights of the step that validation chose.
  void load_best() {
    const int64_t best = selection_.best_step();
    if (best <= 0 || best == step_) return;
    char name[32];
    std::snprintf(name, sizeof name, "step-%06lld", static_cast<long long>(best));
    const fs::path path = options_.output / "checkpoints" / name;
    trainer_->load_state(load_checkpoint(path).tensors, path.string());
    log_info("the best validation was at step ", best, ": its weights are written");
  }

  Json finish() {
    load_best();
    const auto validation = measurement_->outcomes(data_.validation, 0);
    const double temperature = fit_temperature(validation);
    const double threshold = pick_tie_threshold(validation);
    Json report = {{"steps", step_},
                   {"best_step", selection_.best_step()},
                   {"temperature", temperature},
                   {"tie_threshold", threshold},
                   {"order_dependence", measurement_->order_dependence()},
                   {"validation", to_json(measure_quality(validation, temperature, threshold, options_.seed))}};
    if (!data_.test.empty()) {
      report["test_before"] = start_quality_;
      report["test"] = measure_columns(temperature, threshold);
    }
    Json reward = write_reward_weights(options_, start_, *network_);
    reward["format"] = 1;
    reward["loss_args"] = loss_parameters_;
    reward["temperature"] = temperature;
    reward["tie_threshold"] = threshold;
    reward["data"] = data_.facts(options_);
    write_reward_files(options_, reward, report);
    log_info("wrote ", options_.output.string());
    return report;
  }

  const TrainRewardOptions& options_;
  at::Device device_;
  at::ScalarType dtype_;
  const losses::RewardLoss& loss_;
  std::map<std::string, double> loss_parameters_;

  RewardStart start_;
  RewardData data_;
  std::unique_ptr<RewardNetwork> network_;
  std::unique_ptr<RewardBatches> batches_;
  std::unique_ptr<RewardTrainer> trainer_;
  std::unique_ptr<RewardMeasurement> measurement_;
  RewardSelection selection_;
  std::unique_ptr<RewardLog> log_;

  Json fingerprint_;
  Json start_quality_;
  int64_t num_steps_ = 0;
  int64_t step_ = 0;  // optimizer steps done
  int64_t saved_step_ = -1;
};

}  // namespace

Json train_reward(const TrainRewardOptions& options, at::Device device, at::ScalarType dtype) {
  validate(options);
  check_usage(
      dtype != at::kHalf || options.training() == RewardTraining::kHead || options.training() == RewardTraining::kUsers,
      "--dtype fp16 cannot train towers, its range is too small; use bf16 or fp32");
  check_usage(dtype == at::kFloat || options.from_config.empty(), "--from-config makes weights in fp32");
  return RewardRun(options, device, dtype).run();
}

}  // namespace prefusion::training
