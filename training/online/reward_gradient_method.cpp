#include <ATen/ATen.h>

#include "core/error.h"
#include "losses/online/longalign.h"
#include "pipelines/backprop_sampling.h"
#include "training/online/decisions.h"
#include "training/online/differentiable_reward.h"
#include "training/online/online_method.h"
#include "training/policy_pipeline.h"

namespace prefusion::training {
namespace {

// Pictures made with a gradient, one for each prompt of a micro-step, whose score is differentiated. A round is one
// micro-step: nothing that was sampled is used again.
class RewardGradientMethod : public OnlineMethod {
 public:
  explicit RewardGradientMethod(const OnlineRun& run)
      : run_(run),
        prompts_(run.options.online.prompts, run.options.batch_size, run.options.seed),
        pipeline_(training_pipeline(run.options, run.policy.denoiser, run.dtype, run.device)),
        reward_(make_differentiable_reward(run.options.online.reward)) {
    for (const auto& prompt : prompts_.all()) reward_->check_prompt(prompt);
    direction_ = losses::common_direction(reward_->embed_texts(prompts_.all()));
    vae::AutoencoderKL& autoencoder = *pipeline_.components().autoencoder;
    for (at::Tensor& weight : autoencoder.parameters()) weight.set_requires_grad(false);
    autoencoder.set_gradient_checkpointing(true);
    gradient_steps_of(0);
  }

  void begin_round(int64_t round, int64_t /*steps_done*/) override { round_ = round; }
  int64_t num_micro_steps() const override { return 1; }
  int64_t num_samples() const override { return 0; }  // they are made in the step
  const PromptRounds& prompts() const override { return prompts_; }
  std::string description() const override { return "pictures made with a gradient"; }

  MicroStep micro_step(int64_t /*index*/, TraceWriter* trace) override {
    const auto requests = prompts_.requests_of(round_, /*copies=*/1);
    const pipelines::BackpropOptions options{.num_inference_steps = run_.options.online.sampling_steps,
                                             .guidance = {.scale = run_.options.online.guidance},
                                             .gradient_steps = gradient_steps_of(round_)};
    const at::Tensor latents = pipelines::sample_with_gradient(pipeline_, requests, options);
    const at::Tensor pixel_values = pipeline_.components().autoencoder->decode(latents);
    const at::Tensor image = reward_->embed_images(pixel_values);
    const at::Tensor text = reward_->embed_texts(prompts_.prompts_of(round_)).to(image.device());
    const at::Tensor score =
        losses::decomposed_score(text, image, direction_.to(image.device()), run_.params.get("weight"));
    const auto loss = std::get<losses::RewardLoss>(run_.objective.group_loss);
    const at::Tensor reward = (text * image.detach()).sum(1);
    if (trace != nullptr) {
      trace->keep("noise", pipelines::keyed_noise(requests, 0, latents.sizes().slice(1)));
      trace->keep("latents", latents);
      trace->keep("pixel_values", pixel_values);
      trace->keep("has_gradient", gradient_mask(options));
      trace_conditioning(*trace, pipelines::encode_requests(pipeline_, requests, options.guidance));
      trace->keep("text_embedding", text);
      trace->keep("image_embedding", image);
      trace->keep("direction", direction_.unsqueeze(0));
      trace->keep("score", score);
      trace->keep("reward", reward);
      trace->keep("micro_groups", at::full({1}, latents.size(0), at::kLong));
    }
    MicroStep micro{
        .loss = loss(score, run_.params).mean(),
        .metrics = {{"reward", reward.mean().to(at::kDouble)}, {"score", score.detach().mean().to(at::kDouble)}},
        .ids = {}};
    for (const auto& request : requests) micro.ids += concat(micro.ids.empty() ? "" : ", ", "'", request.prompt, "'");
    return micro;
  }

  void restore(int64_t round, const TensorMap& /*tensors*/, const std::string& /*where*/) override { round_ = round; }

 private:
  std::vector<int64_t> gradient_steps_of(int64_t round) const {
    return pipelines::evenly_spaced_steps(run_.options.online.sampling_steps,
                                          static_cast<int64_t>(run_.params.get("gradient_every")),
                                          {run_.options.seed, 0, static_cast<uint64_t>(round)});
  }

  // [1, S] bool
  static at::Tensor gradient_mask(const pipelines::BackpropOptions& options) {
    at::Tensor mask = at::zeros({1, options.num_inference_steps}, at::kBool);
    for (const int64_t step : options.gradient_steps) mask[0][step].fill_(true);
    return mask;
  }

  OnlineRun run_;
  PromptRounds prompts_;
  pipelines::TextToImage pipeline_;
  std::unique_ptr<DifferentiableReward> reward_;
  at::Tensor direction_;  // [D] that all prompts of the run have in common
  int64_t round_ = 0;
};

}  // namespace

std::unique_ptr<OnlineMethod> make_reward_gradient_method(const OnlineRun& run) {
  return std::make_unique<RewardGradientMethod>(run);
}

}  // namespace prefusion::training
