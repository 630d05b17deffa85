#include "pipelines/sampling_run.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"
#include "core/interrupt.h"
#include "core/rng.h"
#include "schedulers/discrete_prediction.h"

namespace prefusion::pipelines {
namespace {

// Standard normal noise, every item from its own generator. Drawn in fp32 on the CPU, so that a picture's noise is the
// same on every device and in every dtype.
at::Tensor draw_noise(const std::vector<at::Generator>& generators, const at::Tensor& like) {
  std::vector<int64_t> shape = like.sizes().vec();
  shape[0] = 1;
  std::vector<at::Tensor> items;
  for (const at::Generator& generator : generators) items.push_back(at::randn(shape, generator, at::kFloat));
  return at::cat(items).to(like.device(), like.scalar_type());
}

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
  latents_ = draw_noise(generators_, like) * scheduler_->init_noise_sigma();
}

void SamplingRun::step() {
  const at::NoGradGuard no_grad;
  throw_if_interrupted();
  check_usage(!is_done(), "all ", num_calls(), " denoiser calls have been made");
  last_input_ = scheduler_->scale_model_input(latents_, position_);
  const at::Tensor timesteps = timestep_tensor(*scheduler_, position_, last_input_.size(0), last_input_.device());
  last_prediction_ =
      predict_guided(*pipeline_->components().denoiser, last_input_, timesteps, conditioning_, options_.guidance);
  // Samplers that know what to do with variances get them from Stable Diffusion alone, as in diffusers.
  if (pipeline_->components().family != ModelFamily::kStableDiffusion) {
    last_prediction_ = unet::without_variances(last_prediction_, latents_.size(1));
  }
  const schedulers::NoiseSource noise = [this](const at::Tensor& like) { return draw_noise(generators_, like); };
  const at::Tensor next = scheduler_->step(last_prediction_, position_, latents_, noise);
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

at::Tensor SamplingRun::predicted_clean() const {
  const at::NoGradGuard no_grad;
  check_usage(last_prediction_.defined(), "before the first denoiser call nothing is predicted");
  const schedulers::InputScales scales = scheduler_->input_scales(position_ - 1);
  const at::Tensor sample = last_input_.to(at::kFloat);
  const at::Tensor prediction = last_prediction_.slice(1, 0, sample.size(1)).to(at::kFloat);  // variances left out
  return schedulers::split_prediction(scheduler_->prediction_type(), prediction, sample,
                                      at::full({}, scales.signal, at::kFloat), at::full({}, scales.noise, at::kFloat))
      .clean.to(latents_.scalar_type());
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
  conditioning_ = select_rows(conditioning_, rows);
  std::vector<at::Generator> generators;
  for (const int64_t item : items) generators.push_back(generators_[static_cast<size_t>(item)]);
  generators_ = std::move(generators);
  select(latents_);
  select(last_input_);
  select(last_prediction_);
}

}  // namespace prefusion::pipelines
