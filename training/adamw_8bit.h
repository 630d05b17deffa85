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

 protected:
  void move(const std::vector<size_t>& present, double lr, const kernels::StepGate& gate) override;
  TensorMap memory() const override;

 private:
  struct Moments {
    at::Tensor exp_avg, exp_avg_sq;  // [N] fp32 of a small parameter
    std::optional<DynamicTensor> exp_avg_codes, exp_avg_sq_codes;
  };

  // A parameter as elements in the order of its shape, whatever the layout: a state fits wherever it is loaded. In
  // place where the layout is that order, else copies that write_back() brings home.
  struct Elements {
    size_t number;
    at::Tensor parameter;  // [N] in half precision, or undefined: the weight is all there is
    at::Tensor weight;     // [N] fp32
    at::Tensor gradient;   // [N]
  };
  Elements elements_of(size_t i) const;
  void write_back(const Elements& elements);

  AdamWOptions options_;
  std::vector<Moments> moments_;
};

}  // namespace prefusion::training
