#include "tools/group_ranking.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

namespace prefusion::tools {

at::Tensor GroupRanking::values(const at::Tensor& scores) const {
  if (!kind->needs_statistics) return reward_models::aggregate(kind->aggregate, scores, weights);
  if (statistics) return reward_models::aggregate(kind->aggregate, scores, weights, &*statistics);
  reward_models::RunningStatistics of_group;
  of_group.add(scores);
  const reward_models::ScoreStatistics group = of_group.statistics();
  return reward_models::aggregate(kind->aggregate, scores, weights, &group);
}

std::vector<size_t> GroupRanking::best(const at::Tensor& scores, size_t count) const {
  const at::Tensor of_items = values(scores);
  const auto value = of_items.accessor<double, 1>();
  std::vector<size_t> order(static_cast<size_t>(scores.size(0)));
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return value[static_cast<int64_t>(a)] > value[static_cast<int64_t>(b)]; });
  order.resize(std::min(count, order.size()));
  std::sort(order.begin(), order.end());
  return order;
}

}  // namespace prefusion::tools
