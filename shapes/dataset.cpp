#include "shapes/dataset.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "core/rng.h"
#include "shapes/scene.h"

namespace prefusion::shapes {

SceneBatch scene_batch(uint64_t seed, int64_t step, int64_t batch_size) {
  check_usage(step >= 0, "step of the scene stream must not be negative, got ", step);
  check_usage(batch_size >= 1, "batch size of the scene stream must be at least 1, got ", batch_size);
  SceneBatch batch;
  std::vector<Scene> scenes;
  for (int64_t i = 0; i < batch_size; ++i) {
    const DrawKey key{seed, static_cast<uint64_t>(i), static_cast<uint64_t>(step)};
    CounterRng rng(key, RandomPurpose::kScene);
    scenes.push_back(sample_scene(rng));
    batch.captions.push_back(caption(scenes.back()));
  }
  batch.pixel_values = render_batch(scenes);
  return batch;
}

}  // namespace prefusion::shapes
