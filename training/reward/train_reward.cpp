#include "training/reward/train_reward.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <map>
#include <optional>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/interrupt.h"
#include "core/logging.h"
#include "core/progress.h"
#include "core/rng.h"
#include "losses/reward_losses.h"
#include "nn/layers.h"
#include "reward_models/reward_folder.h"
#include "training/checkpoint.h"
#include "training/lr_schedule.h"
#include "training/metrics_log.h"
#include "training/optimizer.h"
#include "training/reward/reward_batches.h"
#include "training/reward/reward_metrics.h"
#include "training/reward/reward_order.h"
#include "training/reward/reward_output.h"
#include "training/run_fingerprint.h"
#include "training/tensorboard.h"
#include "training/weights_key.h"

namespace prefusion::training {
namespace fs = std::filesystem;
namespace {

using Clock = std::chrono::steady_clock;
using reward_models::RewardHeadConfig;

RewardStart find_start(const TrainRewardOptions& options, at::Device device) {
  RewardStart start;
  start.has_weights = options.from_config.empty();
  start.clip = start.has_weights ? options.model : options.from_config;
  if (options.training() != RewardTraining::kUsers) return start;
  const reward_models::RewardFolder folder = reward_models::read_reward_folder(options.model);
  check_input(folder.head.kind == "pal", options.model.string(), ": --train users goes on with a pal head, found '",
              folder.head.kind, "'");
  start.clip = folder.clip;
  start.head = reward_models::load_reward_head(folder, device);
  start.known_users = folder.head.users;
  return start;
}

RewardHeadConfig head_config(const TrainRewardOptions& options, const RewardData& data, int64_t width) {
  RewardHeadConfig config{.kind = options.head, .width = width, .columns = data.columns};
  std::map<std::string, double> numbers;
  if (options.head == "mlp" || options.head == "aspects") numbers = {{"hidden", 256}, {"dropout", 0}};
  if (options.head == "pal") {
    numbers = {{"prototypes", 2}, {"dropout", 0.5}, {"a", 0}, {"dist", 0}};
    config.users = data.users;
  }
  numbers = parse_numbers(options.head_args, numbers, "--head-args");
  if (numbers.contains("hidden")) config.hidden = std::llround(numbers["hidden"]);
  if (numbers.contains("dropout")) config.dropout = numbers["dropout"];
  if (numbers.contains("prototypes")) config.prototypes = std::llround(numbers["prototypes"]);
  check_usage((config.kind == "cosine" || config.kind == "pal" || config.hidden > 0) && config.dropout >= 0 &&
                  config.dropout < 1 && config.prototypes > 0,
              "--head-args ", options.head_args, ": hidden and prototypes are positive, dropout is from 0 to below 1");
  if (numbers["a"] != 0) config.form = "a";
  if (numbers["dist"] != 0) config.metric = "dist";
  return reward_models::parse_reward_head(to_json(config), "--head-args");  // checks the ranges
}

// The head of --train users with rows for the users who are new: at the mean of nobody, equal shares.
std::shared_ptr<reward_models::RewardHead> with_new_users(reward_models::RewardHead& known, const RewardData& data) {
  RewardHeadConfig config = known.config();
  const auto num_known = static_cast<int64_t>(config.users.size());
  config.users = data.users;
  auto head = reward_models::make_reward_head(config, 0);
  at::NoGradGuard no_grad;
  const TensorMap old = nn::tensor_map(known);
  for (auto& [name, tensor] : nn::named_tensors(*head)) {
    if (name == "user_weights") tensor.zero_().slice(0, 0, num_known).copy_(old.at(name));
    if (name != "user_weights") tensor.copy_(old.at(name));
  }
  return head;
}

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
    log_ = std::make_unique<MetricsLog>(options_.output / "metrics.jsonl", step_);
    events_ = std::make_unique<TensorBoardWriter>(options_.output);
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
    start_ = find_start(options_, device_);
    data_ = open_reward_data(options_, start_.known_users);
    reward_models::ClipNetwork clip = start_.has_weights
                                          ? reward_models::load_clip_network(start_.clip, dtype_, device_)
                                          : reward_models::make_clip_network(start_.clip, options_.seed, device_);
    std::shared_ptr<reward_models::RewardHead> head;
    if (start_.head) {
      head = with_new_users(*start_.head, data_);
    } else {
      const RewardHeadConfig config = head_config(options_, data_, clip.vision->config().projection_dim);
      head = config.kind == "cosine" ? reward_models::make_cosine_head(config, clip.log_scale)
                                     : reward_models::make_reward_head(config, options_.seed);
    }
    const bool models_ties = options_.loss == "bradley-terry" && data_.num_ties(data_.train) > 0;
    network_ = std::make_unique<RewardNetwork>(std::move(clip), head, options_, models_ties, device_);
    network_->train(false);  // the first measurement comes before the first step
    network_->set_known_users(static_cast<int64_t>(start_.known_users.size()));
    batches_ = std::make_unique<RewardBatches>(data_, *network_, options_);
    check_input(!data_.train.empty() && !data_.validation.empty(), options_.data.front().string(),
                ": the readable groups leave nothing to train on or nothing to validate with");
    order_ = std::make_unique<RewardOrder>(data_, options_.seed);
    for (const auto& group : network_->trainable()) {
      rates_.push_back(group.lr > 0 ? group.lr : options_.base_lr());
      optimizers_.emplace_back(group.parameters,
                               AdamWOptions{.lr = options_.base_lr(), .weight_decay = options_.weight_decay});
    }
    const int64_t per_step = options_.batch_size * options_.accumulate;
    const auto count = static_cast<int64_t>(data_.train.size());
    num_steps_ = options_.steps > 0 ? options_.steps : std::max<int64_t>(1, options_.epochs * count / per_step);
    fingerprint_ = fingerprint();
    log_plan();
  }

  void log_plan() const {
    int64_t count = 0;
    for (const AdamW& optimizer : optimizers_) {
      for (const auto& [name, parameter] : optimizer.parameters()) count += parameter.numel();
    }
    log_info("head ", options_.head, ", loss ", options_.loss, ", training ", options_.train, ": ", count,
             " parameters, ", num_steps_, " steps of ", options_.batch_size * options_.accumulate,
             " groups, learning rate ", options_.base_lr());
  }

  // What must be the same for a resumed run to be the same run.
  Json fingerprint() const {
    TensorMap weights;
    for (const NamedTensor& tensor : network_->clip().tensors())
      weights["clip " + tensor.name] = tensor.tensor.detach();
    for (const auto& [name, tensor] : nn::tensor_map(network_->head())) weights["head " + name] = tensor.detach();
    return {{"start", sampled_weights_key(weights)},
            {"loss", options_.loss},
            {"loss_args", loss_parameters_},
            {"head", to_json(network_->head().config())},
            {"train", options_.train},
            {"data", data_.facts(options_)},
            {"prompt_weights", !options_.no_prompt_weights},
            {"in_batch_negatives", options_.in_batch_negatives},
            {"batch_size", options_.batch_size},
            {"accumulate", options_.accumulate},
            {"lr", options_.base_lr()},
            {"lr_schedule", concat(options_.lr_schedule, ", warmup ", options_.warmup,
                                   options_.lr_schedule == "constant" ? "" : concat(", ", num_steps_, " steps"))},
            {"weight_decay", options_.weight_decay},
            {"max_grad_norm", options_.max_grad_norm},
            {"eval_every", options_.eval_every},
            {"dtype", c10::toString(dtype_)},
            {"seed", options_.seed}};
  }

  void begin() {
    evaluate();
    if (!data_.test.empty()) start_quality_ = to_json(measure_quality(outcomes(data_.test, 0), 1, 0, options_.seed));
  }

  void train() {
    Progress progress("train-reward", num_steps_, "step", options_.progress);
    progress.set_start(step_);
    while (step_ < num_steps_ && !is_over()) {
      train_one_step();
      const bool is_last = step_ == num_steps_;
      if (step_ % options_.eval_every == 0 || is_last) evaluate();
      progress.update(step_, note_);
      if (pending_interrupt() || is_last || (options_.save_every > 0 && step_ % options_.save_every == 0)) save();
      throw_if_interrupted();
    }
    if (is_over()) log_info("stopped at step ", step_, ": no better validation for ", patience_, " measurements");
  }

  bool is_over() const { return options_.patience > 0 && patience_ >= options_.patience; }

  std::vector<RewardGroup> groups_at(int64_t micro_step) {
    std::vector<RewardGroup> groups;
    for (int64_t i = 0; i < options_.batch_size; ++i) {
      groups.push_back(data_.train[order_->at(micro_step * options_.batch_size + i)]);
    }
    return groups;
  }

  void train_one_step() {
    const auto began = Clock::now();
    seed_dropout();
    network_->train(true);
    double loss_sum = 0;
    std::string ids;
    for (int64_t micro = 0; micro < options_.accumulate; ++micro) {
      const int64_t position = step_ * options_.accumulate + micro;
      const std::vector<RewardGroup> groups = groups_at(position);
      const RewardBatch batch = batches_->make(groups);
      if (position + 1 < num_steps_ * options_.accumulate) batches_->prefetch(groups_at(position + 1));
      const at::Tensor loss = loss_of(batch);
      (loss / static_cast<double>(options_.accumulate)).backward();
      loss_sum += loss.item<double>();
      count_right(batch);
      ids = data_.source(groups.front()).id(groups.front().index);
    }
    network_->train(false);
    network_->hold_known_users();
    const double loss = loss_sum / static_cast<double>(options_.accumulate);
    const double norm = clip_gradients();
    check_run(std::isfinite(loss) && std::isfinite(norm), "step ", step_ + 1, ": the loss is ", loss,
              " and the gradient norm ", norm, " (a batch that begins with ", ids, "); use a smaller --lr");
    const double factor = lr_factor(parse_lr_schedule(options_.lr_schedule), step_, options_.warmup, num_steps_);
    for (size_t i = 0; i < optimizers_.size(); ++i) {
      optimizers_[i].step(rates_[i] * factor);
      optimizers_[i].zero_grad();
    }
    ++step_;
    seconds_ += std::chrono::duration<double>(Clock::now() - began).count();
    loss_total_ += loss;
    ++timed_steps_;
    if (step_ % options_.log_every == 0 || step_ == num_steps_ || step_ == 1) {
      log_step(options_.base_lr() * factor, norm);
    }
  }

  // Dropout draws from torch's default generator; a step's draws follow from its number.
  void seed_dropout() const {
    if (network_->head().config().dropout == 0) return;
    const uint64_t seed = random_stream({options_.seed, static_cast<uint64_t>(step_), 0}, RandomPurpose::kOther);
    at::manual_seed(seed);
  }

  at::Tensor loss_of(const RewardBatch& batch) const {
    const losses::RewardTargets targets{.scores = batch.scores, .labels = batch.labels, .log_tie = network_->log_tie()};
    at::Tensor per_group = loss_.compute(targets, loss_parameters_);
    if (options_.in_batch_negatives > 0) per_group = per_group + options_.in_batch_negatives * negatives_of(batch);
    return losses::weighted_mean(per_group, batch.weights);
  }

  at::Tensor negatives_of(const RewardBatch& batch) const {
    const auto count = static_cast<int64_t>(batch.groups.size());
    std::map<std::string, int64_t> numbers;
    std::vector<int64_t> prompt_numbers;
    for (const std::string& prompt : batch.prompts) {
      prompt_numbers.push_back(numbers.try_emplace(prompt, static_cast<int64_t>(numbers.size())).first->second);
    }
    const at::Tensor number = at::tensor(prompt_numbers, at::kLong).to(device_);
    const at::Tensor cosines = reward_models::unit_rows(batch.prompt_features)
                                   .matmul(reward_models::unit_rows(batch.pictures).t());  // [B, B * k]
    const at::Tensor scores = (network_->clip().log_scale.exp() * cosines).view({count, count, data_.group_size});
    return losses::in_batch_loss(scores, number.unsqueeze(0).eq(number.unsqueeze(1)));
  }

  void count_right(const RewardBatch& batch) {
    at::NoGradGuard no_grad;
    const at::Tensor targets = losses::pair_targets(batch.labels);
    const at::Tensor gaps = losses::score_gaps(batch.scores.detach());
    const at::Tensor counts = targets.ne(0.5);
    right_ += ((gaps.sign() == (targets - 0.5).sign()).logical_and(counts)).sum().item<double>();
    compared_ += counts.sum().item<double>();
  }

  double clip_gradients() {
    double square = 0;
    for (const AdamW& optimizer : optimizers_) square += std::pow(optimizer.grad_norm().item<double>(), 2);
    const double norm = std::sqrt(square);
    if (options_.max_grad_norm > 0) {
      const at::Tensor whole = at::scalar_tensor(norm, at::TensorOptions().dtype(at::kFloat).device(device_));
      for (AdamW& optimizer : optimizers_) optimizer.clip_gradients(whole, options_.max_grad_norm);
    }
    return norm;
  }

  void log_step(double lr, double norm) {
    const double count = static_cast<double>(timed_steps_);
    const double per_step = static_cast<double>(options_.batch_size * options_.accumulate);
    pending_metrics_ = {{"loss", loss_total_ / count},
                        {"accuracy", compared_ > 0 ? right_ / compared_ : NAN},
                        {"lr", lr},
                        {"grad_norm", norm},
                        {"epoch", static_cast<double>(step_) * per_step / static_cast<double>(data_.train.size())},
                        {"seconds_per_step", seconds_ / count},
                        {"samples_per_second", per_step * count / seconds_}};
    note_ = concat("loss ", pending_metrics_["loss"], ", accuracy ", pending_metrics_["accuracy"]);
    loss_total_ = right_ = compared_ = seconds_ = 0;
    timed_steps_ = 0;
    if (step_ % options_.eval_every != 0 && step_ != num_steps_) flush_metrics();
  }

  void flush_metrics() {
    if (pending_metrics_.empty()) return;
    log_->write(step_, pending_metrics_);
    events_->write(step_, pending_metrics_);
    pending_metrics_.clear();
  }

  // The judged pairs of the groups of one column.
  std::vector<PairOutcome> outcomes(const std::vector<RewardGroup>& groups, int32_t column) {
    at::NoGradGuard no_grad;
    std::vector<RewardGroup> chosen;
    for (const RewardGroup& group : groups) {
      if (group.column == column) chosen.push_back(group);
    }
    std::map<std::string, int64_t> numbers;
    std::vector<PairOutcome> result;
    for (size_t begin = 0; begin < chosen.size(); begin += static_cast<size_t>(options_.batch_size)) {
      const size_t end = std::min(chosen.size(), begin + static_cast<size_t>(options_.batch_size));
      const RewardBatch batch = batches_->make({chosen.begin() + begin, chosen.begin() + end});
      const at::Tensor gaps = losses::score_gaps(batch.scores).to(at::kCPU, at::kDouble);
      const at::Tensor targets = losses::pair_targets(batch.labels).to(at::kCPU, at::kDouble);
      for (int64_t g = 0; g < gaps.size(0); ++g) {
        if (batch.groups[g].weight == 0) continue;
        const int64_t number =
            numbers.try_emplace(batch.prompts[g], static_cast<int64_t>(numbers.size())).first->second;
        for (int64_t p = 0; p < gaps.size(1); ++p) {
          result.push_back({gaps[g][p].item<double>(), targets[g][p].item<double>(), number});
        }
      }
    }
    check_run(std::all_of(result.begin(), result.end(), [](const PairOutcome& o) { return std::isfinite(o.gap); }),
              "step ", step_, ": a score of the held-out pictures is not finite; use a smaller --lr");
    return result;
  }

  void evaluate() {
    const RewardQuality quality = measure_quality(outcomes(data_.validation, 0), 1, 0, options_.seed);
    pending_metrics_["eval/accuracy"] = quality.accuracy.value;
    pending_metrics_["eval/accuracy_low"] = quality.accuracy.low;
    pending_metrics_["eval/accuracy_high"] = quality.accuracy.high;
    pending_metrics_["eval/accuracy_per_prompt"] = quality.accuracy_per_prompt.value;
    pending_metrics_["eval/log_loss"] = quality.log_loss;
    for (size_t column = 1; column < data_.columns.size(); ++column) {
      const auto aspect =
          measure_quality(outcomes(data_.validation, static_cast<int32_t>(column)), 1, 0, options_.seed);
      pending_metrics_["eval/accuracy/" + data_.columns[column]] = aspect.accuracy.value;
    }
    log_info("step ", step_, ": validation accuracy ", quality.accuracy.value, " [", quality.accuracy.low, ", ",
             quality.accuracy.high, "], log-loss ", quality.log_loss);
    flush_metrics();
    if (step_ == 0) return;  // what was there before is no result
    // Of equally accurate steps the one with the smaller log-loss. Ties alone have no accuracy.
    const double accuracy = std::isfinite(quality.accuracy.value) ? quality.accuracy.value : 0.5;
    const bool is_better =
        best_step_ < 0 || std::pair(accuracy, -quality.log_loss) > std::pair(best_accuracy_, -best_log_loss_);
    patience_ = is_better ? 0 : patience_ + 1;
    if (!is_better) return;
    best_accuracy_ = accuracy;
    best_log_loss_ = quality.log_loss;
    best_step_ = step_;
    save();
  }

  void save() {
    if (saved_step_ == step_) return;
    Checkpoint checkpoint{.step = step_};
    for (size_t i = 0; i < optimizers_.size(); ++i) {
      checkpoint.tensors[concat("optimizer-", i)] = optimizers_[i].state();
    }
    checkpoint.state = {{"run", fingerprint_},
                        {"best_step", best_step_},
                        {"best_accuracy", best_accuracy_},
                        {"best_log_loss", best_log_loss_},
                        {"patience", patience_},
                        {"start_quality", start_quality_}};
    save_checkpoint(options_.output, checkpoint, options_.keep, best_step_);
    saved_step_ = step_;
  }

  void load_weights(const Checkpoint& checkpoint, const std::string& where) {
    for (size_t i = 0; i < optimizers_.size(); ++i) {
      const auto state = checkpoint.tensors.find(concat("optimizer-", i));
      check_input(state != checkpoint.tensors.end(), where, ": is no checkpoint of train-reward");
      optimizers_[i].load_state(state->second, where);
    }
  }

  void restore(const fs::path& path) {
    const Checkpoint checkpoint = load_checkpoint(path);
    const Json run = checkpoint.state.value("run", Json());
    check_input(run.is_object(), path.string(), ": is no checkpoint of train-reward");
    const std::string changes = changed_keys(run, fingerprint_);
    check_usage(changes.empty(), "--resume ", path.string(), ": ", changes);
    load_weights(checkpoint, path.string());
    step_ = checkpoint.step;
    saved_step_ = step_;
    try {
      best_step_ = checkpoint.state.at("best_step").get<int64_t>();
      best_accuracy_ = checkpoint.state.at("best_accuracy").get<double>();
      best_log_loss_ = checkpoint.state.at("best_log_loss").get<double>();
      patience_ = checkpoint.state.at("patience").get<int64_t>();
      start_quality_ = checkpoint.state.at("start_quality");
    } catch (const Json::exception& error) {
      fail_input((path / "state.json").string(), ": ", error.what());
    }
    log_info("resuming at step ", step_, " from ", path.string());
  }

  // How much a comparison changes when its pictures change places; a score is of one picture, so nothing should.
  double order_dependence() {
    at::NoGradGuard no_grad;
    const auto& groups = data_.test.empty() ? data_.validation : data_.test;
    std::vector<RewardGroup> some(groups.begin(), groups.begin() + std::min<size_t>(groups.size(), 64));
    const RewardBatch batch = batches_->make(some);
    const int64_t k = data_.group_size;
    std::vector<int64_t> users, columns;
    for (const RewardGroup& group : some) {
      users.insert(users.end(), static_cast<size_t>(k), group.user);
      columns.push_back(group.column);
    }
    const at::Tensor pictures = batch.pictures.view({-1, k, batch.pictures.size(1)}).flip(1).flatten(0, 1);
    const at::Tensor swapped = network_->head()
                                   .forward({.pictures = pictures,
                                             .prompts = batch.prompt_features.repeat_interleave(k, 0),
                                             .users = at::tensor(users, at::kLong).to(device_)})
                                   .view({-1, k, static_cast<int64_t>(data_.columns.size())});
    const at::Tensor places = at::tensor(columns, at::kLong).to(device_).view({-1, 1, 1}).expand({-1, k, 1});
    return (swapped.gather(2, places).squeeze(2).flip(1) - batch.scores).abs().max().item<double>();
  }

  Json measure_columns(double temperature, double threshold) {
    Json result = Json::object();
    for (size_t column = 0; column < data_.columns.size(); ++column) {
      const auto pairs = outcomes(data_.test, static_cast<int32_t>(column));
      result[data_.columns[column]] = to_json(measure_quality(pairs, temperature, threshold, options_.seed));
    }
    return result;
  }

  Json finish() {
    if (best_step_ > 0 && best_step_ != step_) {
      char name[32];
      std::snprintf(name, sizeof name, "step-%06lld", static_cast<long long>(best_step_));
      const fs::path path = options_.output / "checkpoints" / name;
      load_weights(load_checkpoint(path), path.string());
      log_info("the best validation was at step ", best_step_, ": its weights are written");
    }
    const auto validation = outcomes(data_.validation, 0);
    const double temperature = fit_temperature(validation);
    const double threshold = pick_tie_threshold(validation);
    Json report = {{"steps", step_},
                   {"best_step", best_step_},
                   {"temperature", temperature},
                   {"tie_threshold", threshold},
                   {"order_dependence", order_dependence()},
                   {"validation", to_json(measure_quality(validation, temperature, threshold, options_.seed))}};
    if (!data_.test.empty()) {
      report["test_before"] = start_quality_;
      report["test"] = measure_columns(temperature, threshold);
    }
    Json reward = write_reward_weights(options_, start_, *network_);
    reward["format"] = 1;
    reward["loss"] = options_.loss;
    reward["loss_args"] = loss_parameters_;
    reward["temperature"] = temperature;
    reward["tie_threshold"] = threshold;
    if (network_->log_tie().defined()) reward["log_tie"] = network_->log_tie().item<double>();
    reward["data"] = data_.facts(options_);
    write_file(options_.output / "report.json", report.dump(2) + "\n");
    write_file(options_.output / "README.md", reward_card(options_, reward, report));
    write_file(options_.output / "reward.json", reward.dump(2) + "\n");
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
  std::unique_ptr<RewardOrder> order_;
  std::vector<double> rates_;  // learning rates of the optimizers
  std::vector<AdamW> optimizers_;
  std::unique_ptr<MetricsLog> log_;
  std::unique_ptr<TensorBoardWriter> events_;

  Json fingerprint_;
  Json start_quality_;
  int64_t num_steps_ = 0;
  int64_t step_ = 0;  // optimizer steps done
  int64_t saved_step_ = -1;
  int64_t best_step_ = -1;
  double best_accuracy_ = -1;
  double best_log_loss_ = 0;
  int64_t patience_ = 0;  // measurements since the best one
  Metrics pending_metrics_;
  std::string note_;
  double loss_total_ = 0, right_ = 0, compared_ = 0, seconds_ = 0;
  int64_t timed_steps_ = 0;
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

std::string reward_report_text(const Json& report) {
  const auto line = [](const std::string& name, const Json& quality) {
    const auto share = [&](const char* key) {
      const Json& interval = quality.at(key);
      if (!interval.at("value").is_number() || std::isnan(interval.at("value").get<double>())) return std::string("-");
      char text[64];
      std::snprintf(text, sizeof text, "%5.1f %% [%.1f, %.1f]", 100 * interval.at("value").get<double>(),
                    100 * interval.at("low").get<double>(), 100 * interval.at("high").get<double>());
      return std::string(text);
    };
    char text[320];
    std::snprintf(text, sizeof text, "%-20s %6lld  %-22s %-22s %-22s %.4f  %.4f\n", name.c_str(),
                  quality.at("pairs").get<long long>(), share("accuracy").c_str(), share("accuracy_per_prompt").c_str(),
                  share("accuracy_with_ties").c_str(), quality.at("calibrated_log_loss").get<double>(),
                  quality.at("calibrated_calibration_error").get<double>());
    return std::string(text);
  };
  char header[320];
  std::snprintf(header, sizeof header, "%-20s %6s  %-22s %-22s %-22s %s  %s\n", "", "pairs", "accuracy", "per prompt",
                "with ties", "log-loss", "ECE");
  std::string text = header;
  text += line("validation", report.at("validation"));
  if (report.contains("test")) {
    if (report.at("test_before").is_object()) text += line("test before", report.at("test_before"));
    for (const auto& [column, quality] : report.at("test").items()) text += line("test " + column, quality);
  }
  return text;
}

}  // namespace prefusion::training
