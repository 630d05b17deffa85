#include <ATen/ATen.h>

#include "reward_models/scorer.h"
#include "tools/bench_parts.h"

namespace prefusion::tools {

std::vector<BenchRow> bench_scoring(const BenchOptions& options) {
  const at::NoGradGuard no_grad;
  reward_models::Scorer scorer(
      std::vector<reward_models::RewardSpec>{
          {.column = "pickscore", .kind = "pickscore", .path = options.model, .options = {}}},
      {.dtype = options.dtype, .device = options.device, .batch_size = options.batch_size});
  const int64_t height = options.height_px > 0 ? options.height_px : 512;
  const int64_t width = options.width_px > 0 ? options.width_px : 512;
  at::manual_seed(options.seed);
  std::vector<images::Picture> pictures;
  for (int64_t i = 0; i < options.batch_size; ++i) {
    images::Picture picture;
    picture.pixels = at::randint(256, {height, width, 3}, at::kByte);
    pictures.push_back(std::move(picture));
  }
  const std::vector<std::string> prompts(pictures.size(), options.prompt);
  const auto rate = static_cast<double>(options.batch_size);
  const auto time = [&](const auto& run) { return time_runs(run, options.device, options.repeats); };

  std::vector<reward_models::PreparedPicture> prepared(pictures.size());
  std::vector<BenchRow> rows;
  rows.push_back(
      {.name = "preparing " + std::to_string(height) + " x " + std::to_string(width) + " pictures on one thread",
       .timing = time([&] {
         for (size_t i = 0; i < pictures.size(); ++i) prepared[i] = scorer.prepare(pictures[i]);
       }),
       .per_run = rate,
       .unit = "pictures"});
  rows.push_back({.name = "scoring prepared pictures under a known prompt",
                  .timing = time([&] { scorer.score(prepared, prompts); }),
                  .per_run = rate,
                  .unit = "pictures"});
  rows.push_back({.name = "scoring them, the prompt encoded each time",
                  .timing = time([&] {
                    scorer.forget_prompts();
                    scorer.score(prepared, prompts);
                  }),
                  .per_run = rate,
                  .unit = "pictures"});
  return rows;
}

}  // namespace prefusion::tools
