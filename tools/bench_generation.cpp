#include <ATen/ATen.h>

#include "pipelines/text_to_image.h"
#include "tools/bench_parts.h"
#include "tools/bench_pipeline.h"
#include "unet/graphed_denoiser.h"

namespace prefusion::tools {

std::vector<BenchRow> bench_generation(const BenchOptions& options) {
  const at::NoGradGuard no_grad;
  auto pipeline = open_bench_pipeline(options);
  pipelines::GenerateOptions sampling;
  sampling.num_inference_steps = options.num_inference_steps;
  sampling.guidance.scale = options.guidance_scale;
  sampling.height_px = options.height_px;
  sampling.width_px = options.width_px;
  const auto size = pipeline.image_size(sampling);

  std::vector<pipelines::ImageRequest> requests;
  for (int64_t i = 0; i < options.batch_size; ++i) {
    requests.push_back(
        {.prompt = options.prompt, .negative_prompt = {}, .seed = options.seed + static_cast<uint64_t>(i)});
  }
  const auto time = [&](const auto& run) { return time_runs(run, options.device, options.repeats); };
  const auto pictures = static_cast<double>(options.batch_size);
  const std::string shape = std::to_string(options.batch_size) + " of " + std::to_string(size.height_px) + " x " +
                            std::to_string(size.width_px);

  std::vector<BenchRow> rows;
  rows.push_back({.name = "pictures, " + shape + ", " + std::to_string(options.num_inference_steps) + " steps",
                  .timing = time([&] { pipeline.generate(requests, sampling); }),
                  .per_run = pictures,
                  .unit = "pictures"});
  at::Tensor latents;
  rows.push_back(
      {.name = "  their latents", .timing = time([&] { latents = pipeline.generate_latents(requests, sampling); })});
  if (options.uses_cuda_graphs) {
    pipelines::PipelineComponents components = pipeline.components();
    components.graphed_denoiser = std::make_shared<unet::GraphedDenoiser>(components.denoiser);
    pipelines::TextToImage graphed(std::move(components));
    rows.push_back({.name = "  the same as a CUDA graph",
                    .timing = time([&] { graphed.generate_latents(requests, sampling); }),
                    .baseline = "  their latents"});
  }
  if (!options.random_weights) {
    rows.push_back({.name = "    text, one prompt and its negative",
                    .timing = time([&] {
                      pipeline.encode({options.prompt}, {""}, pipeline.asked_twice(sampling.guidance), size);
                    })});
  }
  rows.push_back({.name = "  decoding them", .timing = time([&] { pipeline.decode(latents); })});
  return rows;
}

}  // namespace prefusion::tools
