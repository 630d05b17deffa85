#include <ATen/ATen.h>

#include <filesystem>

#include "core/error.h"
#include "core/rng.h"
#include "losses/online/online_objective.h"
#include "losses/registry.h"
#include "nn/lora.h"
#include "schedulers/noise_schedule.h"
#include "tools/bench_denoiser.h"
#include "tools/bench_parts.h"
#include "training/graphed_step.h"
#include "training/make_optimizer.h"
#include "training/reference_policy.h"
#include "training/synthetic_batch.h"
#include "training/train_step.h"
#include "training/train_step_options.h"

namespace prefusion::tools {
namespace {

constexpr int64_t kListSize = 4;

// That of the folder, or, where there is none beside a config, what most models of its kind have.
schedulers::NoiseSchedule open_schedule(const BenchOptions& options, const unet::DenoiserInfo& info) {
  if (std::filesystem::exists(options.model / "scheduler" / "scheduler_config.json")) {
    return schedulers::NoiseSchedule(schedulers::read_scheduler_config(options.model));
  }
  schedulers::SchedulerConfig config;
  config.use_flow_sigmas = info.is_flow;
  return schedulers::NoiseSchedule(config);
}

const losses::Objective& find_offline_objective(const std::string& name) {
  check_usage(losses::find_online_objective(name) == nullptr, "--objective ", name,
              ": learns from its own samples; bench train times steps on data");
  const losses::Objective& objective = losses::find_objective(name);
  check_usage(!objective.info.needs_users && !objective.info.fuses_experts, "--objective ", name,
              ": trains an adapter of its own, which bench train does not");
  return objective;
}

int64_t items_of(losses::DataKind kind) {
  switch (kind) {
    case losses::DataKind::kPair: return 2;
    case losses::DataKind::kList: return kListSize;
    default: return 1;
  }
}

// A policy with its optimizer and reference, for steps of any objective.
class TrainingBench {
 public:
  explicit TrainingBench(const BenchOptions& options)
      : options_(options), pass_(options), schedule_(open_schedule(options, pass_.denoiser()->info())) {
    policy_.denoiser = pass_.denoiser();
    policy_.denoiser->set_gradient_checkpointing({options.gradient_checkpointing, options.activation_memory_gb});
    if (options.adapter == "full") {
      for (const auto& item : policy_.denoiser->named_parameters()) {
        policy_.trainable.push_back({item.key(), item.value()});
      }
    } else {
      policy_.adapter =
          nn::LoraAdapter::create(*policy_.denoiser, nn::LoraConfig(), make_torch_generator(options.seed));
      policy_.trainable = policy_.adapter->parameters();
    }
    for (auto& [name, parameter] : policy_.trainable) parameter.set_requires_grad(true);
    const training::AlignOptions defaults;
    optimizer_ = training::make_optimizer(training::parse_optimizer(defaults.optimizer, defaults.optimizer_args),
                                          policy_.trainable, defaults.weight_decay);
  }

  void add_rows(const std::string& name, std::vector<BenchRow>& rows) {
    const losses::Objective& objective = find_offline_objective(name);
    training::ReferencePolicy* reference = objective.info.needs_reference ? &this->reference() : nullptr;
    const training::TrainStep step(*policy_.denoiser, reference, schedule_, objective, step_options(name, objective));
    const training::EncodedBatch batch = make_batch(objective.info);
    const int64_t items = batch.items_per_group();
    BenchRow row{.name = concat("step of ", name, ", ", options_.batch_size, " groups of ", items),
                 .timing = time_step(step, batch, {}),
                 .per_run = static_cast<double>(options_.batch_size),
                 .unit = "groups"};
    rows.push_back(row);
    if (options_.uses_cuda_graphs) add_graphed(step, batch, row, rows);
    const bool can_be_cached = reference != nullptr && !objective.info.needs_drift &&
                               objective.info.latent_source == losses::LatentSource::kForwardNoise;
    if (!can_be_cached) return;
    row.baseline = row.name;
    row.name = concat("  ", name, " with its reference cached");
    row.timing = time_step(step, batch, at::ones({options_.batch_size, items}).to(options_.device));
    rows.push_back(row);
  }

 private:
  void add_graphed(const training::TrainStep& step, const training::EncodedBatch& batch, BenchRow row,
                   std::vector<BenchRow>& rows) {
    training::GraphedStep graphed(step, policy_.trainable, 1.0);
    optimizer_->keep_gradients();
    row.baseline = row.name;
    row.name = "  the same as a CUDA graph";
    row.timing = time_runs([&] { graphed.run(step.prepare(batch, step.draw_timesteps(batch))), update(); },
                           options_.device, options_.repeats);
    rows.push_back(row);
  }

  // With a rate of zero, so that all runs compute the same.
  void update() {
    optimizer_->grad_norm();
    optimizer_->step(0.0);
    optimizer_->zero_grad();
  }

  // Made when an objective asks for one: that of full fine-tuning is a second network.
  training::ReferencePolicy& reference() {
    if (!reference_) {
      reference_ = policy_.adapter ? training::adapter_off_reference(policy_.denoiser, policy_.adapter)
                                   : training::frozen_reference(open_bench_denoiser(options_));
    }
    return *reference_;
  }

  training::TrainStepOptions step_options(const std::string& name, const losses::Objective& objective) const {
    training::AlignOptions run;
    run.objective = name;
    const auto params = losses::resolve_params(objective.info, run.objective_args, run.beta, run.kappa);
    return training::train_step_options(run, objective, params, policy_, schedule_, options_.dtype);
  }

  training::EncodedBatch make_batch(const losses::ObjectiveInfo& objective) const {
    const unet::Conditioning& conditioning = pass_.conditioning();
    const auto first = [](const at::Tensor& rows) { return rows.defined() ? rows.slice(0, 0, 1) : rows; };
    const training::ItemShape shape{
        .latents = pass_.noisy_latents().sizes().slice(1).vec(),
        .prompt = {first(conditioning.encoder_hidden_states), {}, first(conditioning.pooled)},
        .time_ids = conditioning.time_ids.defined() ? conditioning.time_ids[0] : at::Tensor()};
    return training::synthetic_batch(shape, options_.batch_size, items_of(objective.data), objective, options_.device);
  }

  Timing time_step(const training::TrainStep& step, const training::EncodedBatch& batch, const at::Tensor& known) {
    return time_runs([&] { step.forward(batch, step.draw_timesteps(batch), known).loss.loss.backward(), update(); },
                     options_.device, options_.repeats);
  }

  const BenchOptions& options_;
  DenoiserPass pass_;
  schedulers::NoiseSchedule schedule_;
  training::Policy policy_;
  std::unique_ptr<training::Optimizer> optimizer_;
  std::unique_ptr<training::ReferencePolicy> reference_;
};

}  // namespace

std::vector<BenchRow> bench_training(const BenchOptions& options) {
  std::vector<std::string> names = options.objectives;
  if (names.empty()) names = {"diffusion-dpo"};
  for (const std::string& name : names) find_offline_objective(name);  // before the model is loaded
  TrainingBench bench(options);
  std::vector<BenchRow> rows;
  for (const std::string& name : names) bench.add_rows(name, rows);
  return rows;
}

}  // namespace prefusion::tools
