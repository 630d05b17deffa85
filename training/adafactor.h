#pragma once

#include <optional>
#include <vector>

#include "training/optimizer.h"

namespace prefusion::training {

struct AdafactorOptions {
  double weight_decay = 1e-2;
  double decay_rate = -0.8;      // the second moment decays by 1 - t^decay_rate
  double clip_threshold = 1.0;   // of an update's root mean square, before the learning rate
  double eps1 = 1e-30;           // added to squared gradients
  double eps2 = 1e-3;            // the smallest scale of a parameter
  std::optional<double> beta1;   // of a first moment; absent: none is kept
  bool scale_parameter = false;  // the learning rate of a parameter is relative to its root mean square
  bool relative_step = false;    // the rate is min(1e-2, 1 / sqrt(t)), whatever lr says
  bool warmup_init = false;      // with relative_step: min(1e-6 t, 1 / sqrt(t))
};

// Adafactor (arXiv 1804.04235) as transformers.optimization.Adafactor: of the squared gradients of a matrix only means
// over rows and columns are kept (its last two dimensions; [out, in, kh, kw] has a row of kw a kernel row). State: as
// good as none for matrices, 4 bytes an element for vectors, and 4 more for a first moment. Made of plain tensor
// operations, it waits for its gate and step counts.
class Adafactor : public Optimizer {
 public:
  Adafactor(std::vector<NamedTensor> parameters, const AdafactorOptions& options);
  double rate(double lr) const override;

 protected:
  void move(const std::vector<size_t>& present, double lr, const kernels::StepGate& gate) override;
  TensorMap memory() const override;

 private:
  struct Moments {
    at::Tensor row, column;  // of parameters with two dimensions or more
    at::Tensor square;       // of others
    at::Tensor exp_avg;      // with beta1
  };

  double rate_at(double count, double lr) const;
  at::Tensor normalised(const at::Tensor& gradient, const Moments& moments, double beta2) const;
  void update(const at::Tensor& weight, const at::Tensor& gradient, const Moments& moments, double count,
              double lr) const;

  AdafactorOptions options_;
  std::vector<Moments> moments_;
};

}  // namespace prefusion::training
