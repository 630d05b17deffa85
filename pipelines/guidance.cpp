#include "pipelines/guidance.h"

#include <ATen/ATen.h>

namespace prefusion::pipelines {

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

}  // namespace prefusion::pipelines
