#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "training/metrics_log.h"

namespace prefusion::training {

// Preference accuracy of each user apart: whether a policy that knows users serves all of them.
class UserAccuracy {
 public:
  // errors and error_ref [B, 2] of pairs, index 0 the chosen item, which these users judged.
  void add(const std::vector<std::string>& users, const at::Tensor& error, const at::Tensor& error_ref);

  // eval/user_accuracy, the mean over users, eval/user_accuracy_least, and eval/user_accuracy/NAME of each while they
  // are no more than 50. Empty where nothing was added.
  Metrics metrics() const;

 private:
  struct Count {
    double agreed = 0;  // a tie counts one half
    int64_t all = 0;
  };
  std::map<std::string, Count> users_;
};

}  // namespace prefusion::training
