#include "pipelines/sampling_run.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"
#include "core/interrupt.h"
#include "core/rng.h"
#include "kernels/attention/attention.h"
#include "schedulers/discrete_prediction.h"

namespace prefusion::pipelines {
namespace {

std::vector<std::string> texts_of(const std::vector<ImageRequest>& requests, std::string ImageRequest::*field) {
  std::vector<std::string> texts;
  for (const ImageRequest& request : requests) texts.push_back(request.*field);
  return texts;
}

at::Tensor timestep_tensor(const schedulers::Scheduler& scheduler, size_t index, int64_t batch, at::Device device) {
  const double timestep = scheduler.timesteps()[index];
  const at::ScalarType dtype = scheduler.has_continuous_timesteps() ? at::kFloat : at::kLong;
  return at::full({batch}, timestep, at::TensorOptions().dtype(dtype).device(device));
}

}  // namespace

SamplingRun::SamplingRun(TextToImage& pipeline, const std::vector<ImageRequest>& requests,
                         const GenerateOptions& options)
    : pipeline_(&pipeline), options_(options) {
  const at::NoGradGuard no_grad;
  check_usage(!requests.empty(), "there is no picture to generate");
  const ImageSize size = pipeline.image_size(options);
  scheduler_ = pipeline.make_scheduler(options);
  scheduler_->set_timesteps(options.num_inference_steps);

  const auto batch = static_cast<int64_t>(requests.size());
  conditioning_ = pipeline.encode(texts_of(requests, &ImageRequest::prompt),
                                  texts_of(requests, &ImageRequest::negative_prompt), options.guidance, size);
  options_.guidance = pipeline.asked_twice(options.guidance);
  if (options.user_states.defined()) {
    const at::Tensor states = options.user_states.unsqueeze(0).expand({batch, -1, -1});
    conditioning_.prompt.user_states = conditioning_.negative.user_states = states;
  }
  for (const ImageRequest& request : requests) generators_.push_back(make_torch_generator(request.seed));

  std::vector<int64_t> shape = pipeline.latent_shape(size);
  shape.insert(shape.begin(), batch);
  const at::Tensor like = at::empty(shape, conditioning_.prompt.encoder_hidden_states.options());
  start_ = start_sampling(pipeline, *scheduler_, options_, generators_, like);
  latents_ = std::move(start_.latents);
  position_ = start_.first_call;
  scheduler_->begin_at(position_);
}

void SamplingRun::step() {
  const at::NoGradGuard no_grad;
  const kernels::ForwardOnly forward_only;
  throw_if_interrupted();
  check_usage(!is_done(), "all ", num_calls(), " denoiser calls have been made");
  last_input_ = scheduler_->scale_model_input(latents_, position_);
  const at::Tensor timesteps = timestep_tensor(*scheduler_, position_, last_input_.size(0), last_input_.device());
  const kernels::GuidedStep predicted = predict(timesteps);
  last_prediction_ = predicted.guided;
  // Samplers that know what to do with variances get them from Stable Diffusion alone, as in diffusers.
  if (pipeline_->components().family != ModelFamily::kStableDiffusion) {
    last_prediction_ = unet::without_variances(last_prediction_, latents_.size(1));
  }
  const schedulers::NoiseSource noise = [this](const at::Tensor& like) { return draw_noise(generators_, like); };
  at::Tensor next =
      predicted.next.defined() ? predicted.next : scheduler_->step(last_prediction_, position_, latents_, noise);
  next = restore_kept(next);
  if (position_ + 1 == num_calls()) next = as_decoded(next);
  if (options_.on_step) {
    options_.on_step({.index = position_,
                      .count = num_calls(),
                      .timestep = scheduler_->timesteps()[position_],
                      .latents = latents_,
                      .prediction = last_prediction_,
                      .next = next});
  }
  latents_ = next;
  ++position_;
}

at::Tensor SamplingRun::restore_kept(const at::Tensor& next) const {
  if (!start_.picture_latents.defined()) return next;
  const bool is_last = position_ + 1 == num_calls();
  const at::Tensor kept =
      is_last ? start_.picture_latents : scheduler_->add_noise(start_.picture_latents, start_.noise, position_ + 1);
  return ((1 - start_.mask) * kept + start_.mask * next).to(next.scalar_type());
}

at::Tensor SamplingRun::as_decoded(const at::Tensor& latents) const {
  const bool leaves_out_shift =
      pipeline_->components().family == ModelFamily::kStableDiffusion3 && options_.start.mask.defined();
  if (!leaves_out_shift) return latents;
  const vae::AutoencoderKLConfig& config = pipeline_->components().autoencoder->config();
  return latents - config.shift_factor * config.scaling_factor;
}

kernels::GuidedStep SamplingRun::predict(const at::Tensor& timesteps) const {
  // Where adapters act on one side of guidance alone, the sides are different launches.
  const PipelineComponents& components = pipeline_->components();
  const bool is_graphed = components.graphed_denoiser && options_.adapters.empty();
  unet::Denoiser& denoiser = is_graphed ? *components.graphed_denoiser : *components.denoiser;
  const GuidanceOptions& guidance = options_.guidance;
  const at::Tensor input =
      start_.added_channels.defined() ? at::cat({last_input_, start_.added_channels}, 1) : last_input_;
  const bool is_guided = guidance.is_active() &&
                         guidance.interval.contains(position_ - start_.first_call, num_calls() - start_.first_call);
  if (!is_guided) return {predict_prompt(denoiser, input, timesteps, conditioning_, options_.adapters), {}};
  const at::Tensor both = predict_both(denoiser, input, timesteps, conditioning_, options_.adapters);
  if (const auto step = fused_step(both)) return kernels::guided_step(both, latents_, guidance.scale, *step);
  const at::Tensor guided = apply_guidance(both, guidance);
  return {guidance.mimic_scale > 0 ? limit_guidance(guided, both) : guided, {}};
}

std::optional<kernels::LinearStep> SamplingRun::fused_step(const at::Tensor& both) const {
  const GuidanceOptions& guidance = options_.guidance;
  const bool is_plain = guidance.rescale <= 0 && guidance.mimic_scale <= 0 && both.size(1) == latents_.size(1) &&
                        both.scalar_type() == latents_.scalar_type();
  if (!is_plain || !(options_.fuses_steps || latents_.is_cuda())) return std::nullopt;
  return scheduler_->linear_step(position_);
}

at::Tensor SamplingRun::limit_guidance(const at::Tensor& guided, const at::Tensor& both) const {
  const at::Tensor modest = apply_guidance(both, {.scale = options_.guidance.mimic_scale});
  const at::Tensor limited = limit_range(clean_latents(guided, position_), clean_latents(modest, position_),
                                         options_.guidance.mimic_percentile);
  const schedulers::InputScales scales = scheduler_->input_scales(position_);
  const at::Tensor prediction =
      schedulers::prediction_of(scheduler_->prediction_type(), limited, last_input_.to(at::kFloat),
                                at::full({}, scales.signal, at::kFloat), at::full({}, scales.noise, at::kFloat));
  const at::Tensor variances = guided.slice(1, last_input_.size(1));
  return at::cat({prediction.to(guided.scalar_type()), variances}, 1);
}

at::Tensor SamplingRun::clean_latents(const at::Tensor& prediction, size_t index) const {
  const schedulers::InputScales scales = scheduler_->input_scales(index);
  const at::Tensor sample = last_input_.to(at::kFloat);
  return schedulers::split_prediction(scheduler_->prediction_type(),
                                      prediction.slice(1, 0, sample.size(1)).to(at::kFloat), sample,
                                      at::full({}, scales.signal, at::kFloat), at::full({}, scales.noise, at::kFloat))
      .clean;
}

at::Tensor SamplingRun::predicted_clean() const {
  const at::NoGradGuard no_grad;
  check_usage(last_prediction_.defined(), "before the first denoiser call nothing is predicted");
  return clean_latents(last_prediction_, position_ - 1).to(latents_.scalar_type());
}

void SamplingRun::keep(const std::vector<int64_t>& items) {
  const at::NoGradGuard no_grad;
  const int64_t batch = latents_.size(0);
  const bool is_ascending = std::adjacent_find(items.begin(), items.end(), std::greater_equal<>()) == items.end();
  check_usage(!items.empty() && is_ascending && items.front() >= 0 && items.back() < batch,
              "items to go on with must be ascending numbers below ", batch, ", found ", shape_text(items));
  const at::Tensor rows = at::tensor(items, at::kLong).to(latents_.device());
  const auto select = [&](at::Tensor& tensor) {
    if (tensor.defined()) tensor = tensor.index_select(0, rows);
  };
  scheduler_->keep_items(rows);
  start_.keep_items(rows);
  conditioning_ = select_rows(conditioning_, rows);
  std::vector<at::Generator> generators;
  for (const int64_t item : items) generators.push_back(generators_[static_cast<size_t>(item)]);
  generators_ = std::move(generators);
  select(latents_);
  select(last_input_);
  select(last_prediction_);
}

}  // namespace prefusion::pipelines
