#include "schedulers/unipc.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "schedulers/beta_schedule.h"
#include "schedulers/discrete_prediction.h"
#include "schedulers/flow_sigmas.h"
#include "schedulers/per_item.h"
#include "schedulers/sample_limits.h"
#include "schedulers/timestep_spacing.h"

namespace prefusion::schedulers {

// The parts of one step that predictor and corrector share.
struct UniPcScheduler::Update {
  SolverPoint from;
  SolverPoint to;
  at::Tensor phi;                       // e^x - 1, x = -h for clean latents, h for noise
  at::Tensor scale;                     // B(h) of the paper
  at::Tensor matrix;                    // [order, order] powers of the step ratios
  at::Tensor right_side;                // [order]
  std::vector<at::Tensor> differences;  // of earlier predictions to the newest, order - 1 of them
};

UniPcScheduler::UniPcScheduler(const SchedulerConfig& config)
    : Scheduler(resolve_for(config, SchedulerClass::kUniPc)), table_(make_positive_alphas_cumprod(config_)) {}

// Sets timesteps_ and returns the sigmas without the last.
std::vector<double> UniPcScheduler::choose_sigmas(int64_t num_inference_steps) {
  if (config_.use_flow_sigmas) {
    const std::vector<double> sigmas = unipc_flow_sigmas(config_, image_tokens_, num_inference_steps);
    timesteps_ = flow_timesteps(config_, sigmas);
    return sigmas;
  }
  timesteps_ = solver_timesteps(config_, num_inference_steps, config_.num_train_timesteps);
  const SigmaRange range = sigma_range(config_, table_.largest(), table_.smallest());
  std::vector<double> sigmas = special_sigmas(config_, range, num_inference_steps);
  if (sigmas.empty()) {
    for (const double timestep : timesteps_) sigmas.push_back(table_.at(timestep));
    return sigmas;
  }
  timesteps_.clear();
  for (const double sigma : sigmas) {
    const double timestep = table_.timestep_of(sigma);
    timesteps_.push_back(config_.use_karras_sigmas ? std::nearbyint(timestep) : timestep);
  }
  return sigmas;
}

void UniPcScheduler::set_timesteps(int64_t num_inference_steps) {
  const std::vector<double> sigmas = choose_sigmas(num_inference_steps);
  const bool is_special =
      config_.use_flow_sigmas || config_.use_karras_sigmas || config_.use_exponential_sigmas || config_.use_beta_sigmas;
  const double smallest = is_special ? sigmas.back() : table_.smallest();
  truncate_timesteps(timesteps_);
  sigmas_ = sigma_tensor(sigmas, config_.final_sigmas_type == "zero" ? 0.0 : smallest);
  history_.clear();
  last_sample_ = at::Tensor();
}

InputScales UniPcScheduler::input_scales(size_t index) const {
  if (!config_.use_flow_sigmas) return Scheduler::input_scales(index);
  return flow_input_scales(sigmas_, index);
}

at::Tensor UniPcScheduler::add_noise(const at::Tensor& clean, const at::Tensor& noise, size_t index) const {
  return noisy_sample(solver_point(config_, sigmas_[static_cast<int64_t>(index)]), clean, noise);
}

at::Tensor UniPcScheduler::convert(const at::Tensor& prediction, const at::Tensor& sample, int64_t index) const {
  const SolverPoint here = solver_point(config_, sigmas_[index]);
  const auto [clean, noise] = split_prediction(config_.prediction_type, prediction, sample, here.alpha, here.sigma);
  if (!config_.predict_x0) return noise;
  return config_.thresholding ? threshold_sample(config_, clean) : clean;
}

// The step from grid point `from` to the next, whose newest prediction is the one at `from` (section 3 of the paper).
UniPcScheduler::Update UniPcScheduler::make_update(int64_t from, int64_t order) const {
  Update update{.from = solver_point(config_, sigmas_[from]), .to = solver_point(config_, sigmas_[from + 1])};
  const at::Tensor h = update.to.lambda - update.from.lambda;
  std::vector<at::Tensor> ratios;
  for (int64_t i = 1; i < order; ++i) {
    const at::Tensor ratio = (solver_point(config_, sigmas_[from - i]).lambda - update.from.lambda) / h;
    ratios.push_back(ratio);
    update.differences.push_back((history_[static_cast<size_t>(i)] - history_[0]) / ratio);
  }
  ratios.push_back(at::ones({}, at::kFloat));

  const at::Tensor x = config_.predict_x0 ? -h : h;
  update.phi = at::expm1(x);
  update.scale = *config_.solver_type == "bh1" ? x : update.phi;
  const at::Tensor row = at::stack(ratios);
  std::vector<at::Tensor> rows;
  std::vector<at::Tensor> right;
  at::Tensor phi = update.phi / x - 1;
  double factorial = 1;
  for (int64_t i = 1; i <= order; ++i) {
    rows.push_back(row.pow(static_cast<double>(i - 1)));
    right.push_back(phi * factorial / update.scale);
    factorial *= static_cast<double>(i + 1);
    phi = phi / x - 1 / factorial;
  }
  update.matrix = at::stack(rows);
  update.right_side = at::stack(right);
  return update;
}

namespace {

// The exact solution for a constant prediction, plus `residual` with the weight of the varying part.
at::Tensor combine(bool predicts_clean, const SolverPoint& from, const SolverPoint& to, const at::Tensor& phi,
                   const at::Tensor& scale, const at::Tensor& sample, const at::Tensor& newest,
                   const at::Tensor& residual) {
  const at::Tensor& decay_from = predicts_clean ? from.sigma : from.alpha;
  const at::Tensor& decay_to = predicts_clean ? to.sigma : to.alpha;
  const at::Tensor& weight = predicts_clean ? to.alpha : to.sigma;
  at::Tensor next = decay_to / decay_from * sample - weight * phi * newest;
  if (residual.defined()) next = next - weight * scale * residual;
  return next.to(sample.scalar_type());
}

void accumulate(at::Tensor& sum, const at::Tensor& term) {
  sum = sum.defined() ? sum + term : term;
}

}  // namespace

at::Tensor UniPcScheduler::predict(const at::Tensor& sample, int64_t index, int64_t order) const {
  const Update update = make_update(index, order);
  at::Tensor residual;
  if (order == 2) {
    residual = 0.5 * update.differences[0];
  } else if (order > 2) {
    const at::Tensor weights =
        at::linalg_solve(update.matrix.slice(0, 0, -1).slice(1, 0, -1), update.right_side.slice(0, 0, -1));
    for (int64_t i = 0; i + 1 < order; ++i) {
      accumulate(residual, weights[i].to(sample.scalar_type()) * update.differences[static_cast<size_t>(i)]);
    }
  }
  return combine(config_.predict_x0, update.from, update.to, update.phi, update.scale, sample, history_[0], residual);
}

at::Tensor UniPcScheduler::correct(const at::Tensor& converted, int64_t index) const {
  const Update update = make_update(index - 1, last_order_);
  const at::Tensor weights =
      last_order_ == 1 ? at::full({1}, 0.5, at::kFloat) : at::linalg_solve(update.matrix, update.right_side);
  at::Tensor residual;
  for (int64_t i = 0; i + 1 < last_order_; ++i) {
    accumulate(residual, weights[i] * update.differences[static_cast<size_t>(i)]);
  }
  accumulate(residual, weights[-1] * (converted - history_[0]));
  return combine(config_.predict_x0, update.from, update.to, update.phi, update.scale, last_sample_, history_[0],
                 residual);
}

at::Tensor UniPcScheduler::step(const at::Tensor& prediction, size_t index, const at::Tensor& sample,
                                const NoiseSource&) {
  const auto position = static_cast<int64_t>(index);
  const at::Tensor converted = convert(prediction, sample, position);
  const auto& disabled = config_.disable_corrector;
  const bool corrects =
      last_sample_.defined() && std::find(disabled.begin(), disabled.end(), position - 1) == disabled.end();
  const at::Tensor start = corrects ? correct(converted, position) : sample;

  // The order grows with the history, and shrinks towards the end where the config says so.
  const auto remaining = static_cast<int64_t>(timesteps_.size()) - position;
  const int64_t wanted = config_.lower_order_final ? std::min(config_.solver_order, remaining) : config_.solver_order;
  last_order_ = std::min(wanted, static_cast<int64_t>(history_.size()) + 1);
  history_.push_front(converted);
  if (static_cast<int64_t>(history_.size()) > config_.solver_order) history_.pop_back();
  last_sample_ = start;
  return predict(start, position, last_order_);
}

void UniPcScheduler::keep_items(const at::Tensor& items) {
  for (at::Tensor& prediction : history_) select_items(prediction, items);
  select_items(last_sample_, items);
}

}  // namespace prefusion::schedulers
