#include "tools/picture_batches.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "core/error.h"

namespace prefusion::tools {

void generate_in_batches(pipelines::TextToImage& pipeline, std::span<const pipelines::ImageRequest> requests,
                         const PictureBatchOptions& options,
                         const std::function<void(size_t index, const at::Tensor& image)>& take) {
  check_usage(options.batch_size >= 1, "--batch-size must be at least 1");
  const auto batch_size = static_cast<size_t>(options.batch_size);
  for (size_t begin = 0; begin < requests.size(); begin += batch_size) {
    const auto batch = requests.subspan(begin, std::min(batch_size, requests.size() - begin));
    const at::Tensor images = pipeline.generate({batch.begin(), batch.end()}, options.sampling);
    for (size_t i = 0; i < batch.size(); ++i) take(begin + i, images[static_cast<int64_t>(i)]);
  }
}

}  // namespace prefusion::tools
