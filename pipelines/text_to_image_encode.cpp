#include <ATen/ATen.h>

#include <algorithm>
#include <map>

#include "core/logging.h"
#include "pipelines/text_to_image.h"

// What TextToImage tells its denoiser.
namespace prefusion::pipelines {
namespace {

// A row for each text; every distinct one is encoded once.
template <typename Encode>
text::PromptStates encode_texts(const Encode& encode, const std::vector<std::string>& texts) {
  std::vector<std::string> distinct;
  std::map<std::string, int64_t> positions;
  std::vector<int64_t> order;
  for (const std::string& text : texts) {
    const auto [entry, is_new] = positions.try_emplace(text, static_cast<int64_t>(distinct.size()));
    if (is_new) distinct.push_back(text);
    order.push_back(entry->second);
  }
  const text::PromptStates states = encode(distinct);
  const at::Tensor rows = at::tensor(order, at::kLong).to(states.encoder_hidden_states.device());
  return states.map([&](const at::Tensor& part) { return part.index_select(0, rows); });
}

}  // namespace

GuidedConditioning TextToImage::encode(const std::vector<std::string>& prompts,
                                       const std::vector<std::string>& negative_prompts,
                                       const GuidanceOptions& guidance, ImageSize size) {
  const at::NoGradGuard no_grad;
  text::PromptEncoder& encoder = *components_.prompt_encoder;
  const bool is_guided = asked_twice(guidance).is_active();
  int64_t chunks = 1;  // both sides of guidance must have the same length
  for (const std::string& prompt : prompts) chunks = std::max(chunks, encoder.num_chunks(prompt));
  for (const std::string& prompt : negative_prompts) {
    if (is_guided) chunks = std::max(chunks, encoder.num_chunks(prompt));
  }
  const auto encode_prompts = [&](const auto& texts) { return encoder.encode(texts, chunks); };
  const auto encode_negative = [&](const auto& texts) { return encoder.encode_negative(texts, chunks); };
  GuidedConditioning result;
  result.prompt = conditioning(encode_texts(encode_prompts, prompts), guidance, size, /*is_negative=*/false);
  const bool has_negative = std::any_of(negative_prompts.begin(), negative_prompts.end(),
                                        [](const std::string& prompt) { return !prompt.empty(); });
  if (components_.family == ModelFamily::kFlux && has_negative) {
    log_warn("this model is distilled under guidance: negative prompts have no effect");
  }
  if (is_guided) {
    result.negative =
        conditioning(encode_texts(encode_negative, negative_prompts), guidance, size, /*is_negative=*/true);
  }
  return result;
}

int64_t TextToImage::num_chunks(const ImageRequest& request, const GuidanceOptions& guidance) const {
  const text::PromptEncoder& encoder = *components_.prompt_encoder;
  const int64_t prompt = encoder.num_chunks(request.prompt);
  return asked_twice(guidance).is_active() ? std::max(prompt, encoder.num_chunks(request.negative_prompt)) : prompt;
}

GuidanceOptions TextToImage::asked_twice(const GuidanceOptions& guidance) const {
  return components_.family == ModelFamily::kFlux ? GuidanceOptions{.scale = 1.0} : guidance;
}

unet::Conditioning TextToImage::conditioning(const text::PromptStates& states, const GuidanceOptions& guidance,
                                             ImageSize size, bool is_negative) const {
  const at::ScalarType dtype = components_.denoiser->parameters().front().scalar_type();
  const at::Tensor& hidden = states.encoder_hidden_states;
  unet::Conditioning result{.encoder_hidden_states = hidden.to(dtype), .encoder_mask = states.encoder_mask};
  if (states.pooled.defined()) result.pooled = states.pooled.to(dtype);
  if (const at::Tensor ids = time_ids(size, is_negative); ids.numel() > 0) {
    result.time_ids = ids.to(hidden.device(), dtype).expand({hidden.size(0), -1});
  }
  if (components_.denoiser->info().uses_guidance) {
    result.guidance = at::full({hidden.size(0)}, guidance.scale, hidden.options().dtype(at::kFloat));
  }
  return result;
}

at::Tensor TextToImage::time_ids(ImageSize size, bool is_negative) const {
  const auto height = static_cast<double>(size.height_px);
  const auto width = static_cast<double>(size.width_px);
  // Original size, place of the crop, target size: the picture is whole and of the size asked for. The refiner is told
  // an aesthetic score in place of the last; these are those of its diffusers pipeline.
  if (components_.tells_aesthetic_score) {
    constexpr double kScore = 6.0;
    constexpr double kNegativeScore = 2.5;
    return at::tensor({height, width, 0.0, 0.0, is_negative ? kNegativeScore : kScore}, at::kDouble);
  }
  if (components_.family == ModelFamily::kStableDiffusionXl) {
    return at::tensor({height, width, 0.0, 0.0, height, width}, at::kDouble);
  }
  if (components_.denoiser->info().uses_time_ids) return at::tensor({height, width, height / width}, at::kDouble);
  return at::empty({0}, at::kDouble);
}

}  // namespace prefusion::pipelines
