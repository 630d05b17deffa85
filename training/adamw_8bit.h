#pragma once

#include <optional>
#include <vector>

#include "training/dynamic_code.h"
#include "training/optimizer.h"

namespace prefusion::training {

// AdamW whose moments are bytes ("8-bit Optimizers via Block-wise Quantization", arXiv 2110.02861): both are read into
// fp32, updated, and rounded back. Parameters of less than kSmallest elements, which cost nothing and are often the
// delicate ones (biases, norms), keep fp32 moments. State: 2 bytes an element and 8 a block of 256, instead of 8 bytes
// an element.
class AdamW8bit : public Optimizer {
 public:
  static constexpr int64_t kSmallest = 4096;  // elements

  AdamW8bit(std::vector<NamedTensor> parameters, const AdamWOptions& options);
  void step(double lr) override;

 protected:
  TensorMap memory() const override;

 private:
  struct Moments {
    at::Tensor exp_avg, exp_avg_sq;  // [N] fp32 of a small parameter
    std::optional<DynamicTensor> exp_avg_codes, exp_avg_sq_codes;
  };

  // On elements [N] with fp32 weights; a parameter that is defined becomes their rounding.
  void update(const at::Tensor& parameter, const at::Tensor& weight, const at::Tensor& gradient, const Moments& moments,
              double count, double lr) const;

  AdamWOptions options_;
  std::vector<Moments> moments_;
};

}  // namespace prefusion::training
