#include "training/hardness.h"

#include <ATen/ATen.h>

#include <limits>

#include "core/error.h"
#include "training/timestep_sampler.h"

namespace prefusion::training {

double hardness_of(const std::vector<std::vector<float>>& errors) {
  double sum = 0;
  for (const auto& items : errors) sum += static_cast<double>(items.front()) - static_cast<double>(items.back());
  return sum / static_cast<double>(errors.size());
}

std::vector<double> measure_hardness(EncodedData& data, const std::string& run_key,
                                     ReferenceErrors::Questions questions, int64_t num_train_timesteps,
                                     int64_t num_timesteps) {
  questions.draws = all_draws(data.num_train_groups(), 1);
  questions.empty_prompt_rate = 0;
  std::vector<std::vector<std::vector<float>>> errors(questions.draws.size());  // [group][timesteps][k]
  for (const int64_t timestep : timestep_grid(num_train_timesteps, num_timesteps)) {
    questions.title = concat("hardness at timestep ", timestep);
    questions.timesteps = [timestep](const EncodedBatch& batch) {
      return at::full({batch.size()}, timestep, batch.mean.options().dtype(at::kLong));
    };
    ReferenceErrors at_timestep(data.cache(), run_key);
    at_timestep.prepare(data, questions);
    for (size_t i = 0; i < errors.size(); ++i) {
      if (auto items = at_timestep.find(questions.draws[i]); !items.empty()) errors[i].push_back(std::move(items));
    }
  }
  std::vector<double> hardness;
  for (const auto& of_group : errors) {
    hardness.push_back(of_group.empty() ? std::numeric_limits<double>::infinity() : hardness_of(of_group));
  }
  return hardness;
}

}  // namespace prefusion::training
