#include "training/user_accuracy.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace prefusion::training {

void UserAccuracy::add(const std::vector<std::string>& users, const at::Tensor& error, const at::Tensor& error_ref) {
  const at::Tensor improvement = error_ref - error;
  const at::Tensor margin = (improvement.select(1, 0) - improvement.select(1, 1)).to(at::kDouble).cpu();
  for (size_t i = 0; i < users.size(); ++i) {
    const double of_group = margin[static_cast<int64_t>(i)].item<double>();
    Count& count = users_[users[i]];
    count.agreed += of_group > 0 ? 1.0 : of_group == 0 ? 0.5 : 0.0;
    ++count.all;
  }
}

Metrics UserAccuracy::metrics() const {
  constexpr size_t kNamed = 50;
  Metrics metrics;
  if (users_.empty()) return metrics;
  double sum = 0, least = 1;
  for (const auto& [name, count] : users_) {
    const double accuracy = count.agreed / static_cast<double>(count.all);
    sum += accuracy;
    least = std::min(least, accuracy);
    if (users_.size() <= kNamed) metrics["eval/user_accuracy/" + name] = accuracy;
  }
  metrics["eval/user_accuracy"] = sum / static_cast<double>(users_.size());
  metrics["eval/user_accuracy_least"] = least;
  return metrics;
}

}  // namespace prefusion::training
