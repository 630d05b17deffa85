#include "pipelines/guidance.h"

#include <ATen/ATen.h>

namespace prefusion::pipelines {

bool GuidanceInterval::contains(size_t call, size_t count) const {
  const auto border = [&](double share) { return static_cast<size_t>(share * static_cast<double>(count)); };
  return border(begin) <= call && call < border(end);
}

at::Tensor apply_guidance(const at::Tensor& prediction, const GuidanceOptions& options) {
  const std::vector<at::Tensor> halves = prediction.chunk(2);
  const at::Tensor& negative = halves[0];
  const at::Tensor& positive = halves[1];
  const at::Tensor guided = negative + options.scale * (positive - negative);
  if (options.rescale <= 0) return guided;
  const std::vector<int64_t> item_dims = {1, 2, 3};
  const at::Tensor ratio = positive.std(item_dims, /*unbiased=*/true, /*keepdim=*/true) /
                           guided.std(item_dims, /*unbiased=*/true, /*keepdim=*/true);
  return options.rescale * (guided * ratio) + (1 - options.rescale) * guided;
}

at::Tensor limit_range(const at::Tensor& guided, const at::Tensor& modest, double percentile) {
  const auto centred = [](const at::Tensor& latents) {
    const at::Tensor flat = latents.flatten(2);
    return flat - flat.mean(2, /*keepdim=*/true);
  };
  const at::Tensor deviation = centred(guided);
  const at::Tensor range = centred(modest).abs().amax(2, /*keepdim=*/true);
  const at::Tensor quantile = at::quantile(deviation.abs(), percentile, 2, /*keepdim=*/true);
  const at::Tensor limit = at::maximum(quantile, range).clamp_min(1e-12);  // a flat channel stays flat
  const at::Tensor limited = at::clamp(deviation, -limit, limit) * (range / limit);
  return (guided.flatten(2).mean(2, /*keepdim=*/true) + limited).reshape(guided.sizes());
}

}  // namespace prefusion::pipelines
