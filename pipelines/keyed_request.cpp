#include "pipelines/keyed_request.h"

#include <ATen/ATen.h>

#include "core/error.h"

namespace prefusion::pipelines {
namespace {

// Sampling needs many draws of one (seed, item, draw): they get a key of their own.
DrawKey sampling_key(const DrawKey& key, uint64_t draw) {
  return {.seed = key.seed, .item = random_stream(key, RandomPurpose::kSample), .draw = draw};
}

}  // namespace

at::Tensor keyed_noise(std::span<const KeyedRequest> requests, uint64_t draw, at::IntArrayRef item_shape) {
  std::vector<at::Tensor> rows;
  for (const KeyedRequest& request : requests) {
    rows.push_back(philox_randn(item_shape, sampling_key(request.key, draw), RandomPurpose::kNoise));
  }
  return at::stack(rows);
}

at::Tensor keyed_choice(std::span<const KeyedRequest> requests, uint64_t draw, int64_t count) {
  std::vector<int64_t> choices;
  for (const KeyedRequest& request : requests) {
    choices.push_back(CounterRng(sampling_key(request.key, draw), RandomPurpose::kShuffle).below(count));
  }
  return at::tensor(choices, at::kLong);
}

GuidedConditioning encode_requests(TextToImage& pipeline, std::span<const KeyedRequest> requests,
                                   const GuidanceOptions& guidance, ImageSize size) {
  check_usage(!requests.empty(), "there is nothing to sample");
  std::vector<std::string> prompts, negative_prompts;
  for (const KeyedRequest& request : requests) {
    prompts.push_back(request.prompt);
    negative_prompts.push_back(request.negative_prompt);
  }
  if (size.height_px == 0) size = pipeline.image_size({});
  return pipeline.encode(prompts, negative_prompts, guidance, size);
}

}  // namespace prefusion::pipelines
