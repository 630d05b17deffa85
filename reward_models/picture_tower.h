#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "images/picture.h"

namespace prefusion::reward_models {

// The half of a reward model that looks at pictures alone. Heads that stand on the same tower share its one pass
// (Scorer); towers with equal keys compute the same.
class PictureTower {
 public:
  virtual ~PictureTower() = default;

  // Names everything that features() depends on: weights, their dtype, preparation.
  virtual const std::string& key() const = 0;
  // Names everything that prepare() depends on: pictures are prepared once for all towers with equal ones.
  virtual const std::string& preparation_key() const = 0;

  // What the network is given of a picture, on the CPU; fp32 [3, H, W] for most. Safe to call from several threads.
  virtual at::Tensor prepare(const images::Picture& picture) const = 0;

  // Features of N prepared pictures: [N, ...]. Results do not depend on which pictures share a batch.
  virtual at::Tensor features(const std::vector<at::Tensor>& prepared) = 0;
};

}  // namespace prefusion::reward_models
