#include "training/online/sample_groups.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

namespace prefusion::training {
namespace {

std::vector<int64_t> best_first(const std::vector<double>& reward) {
  std::vector<int64_t> order(reward.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](int64_t a, int64_t b) { return reward[a] > reward[b]; });
  return order;
}

// The share of the others that a sample beats.
double win_share(const std::vector<double>& reward, int64_t sample) {
  const auto beaten = std::ranges::count_if(reward, [&](double other) { return other < reward[sample]; });
  return static_cast<double>(beaten) / static_cast<double>(reward.size() - 1);
}

SampleGroup list_of(int64_t prompt, const std::vector<int64_t>& order, const std::vector<double>& reward) {
  SampleGroup list{.prompt = prompt, .samples = order, .labels = {}};
  for (const int64_t sample : order) list.labels.push_back(win_share(reward, sample));
  return list;
}

}  // namespace

std::vector<SampleGroup> plan_sample_groups(losses::DataKind kind, const at::Tensor& reward) {
  std::vector<SampleGroup> groups;
  const at::Tensor rows = reward.to(at::kCPU, at::kDouble).contiguous();
  for (int64_t prompt = 0; prompt < rows.size(0); ++prompt) {
    const double* begin = rows[prompt].const_data_ptr<double>();
    const std::vector<double> rewards(begin, begin + rows.size(1));
    const std::vector<int64_t> order = best_first(rewards);
    const int64_t best = order.front(), worst = order.back();
    if (rewards[best] == rewards[worst]) continue;
    if (kind == losses::DataKind::kPair) groups.push_back({prompt, {best, worst}, {1, 0}});
    if (kind == losses::DataKind::kList) groups.push_back(list_of(prompt, order, rewards));
    if (kind == losses::DataKind::kSingle || kind == losses::DataKind::kUnpaired)
      groups.push_back({prompt, {best}, {1}});
    if (kind == losses::DataKind::kUnpaired) groups.push_back({prompt, {worst}, {0}});
  }
  return groups;
}

}  // namespace prefusion::training
