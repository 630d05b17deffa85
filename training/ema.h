#pragma once

#include <vector>

#include "core/safetensors.h"
#include "core/weights.h"

namespace prefusion::training {

// Exponential moving average of weights in fp32: average = decay * average + (1 - decay) * weight after each step.
// The decay warms up as min(decay, (1 + step) / (10 + step)), so that a short run is not dominated by its start.
class Ema {
 public:
  Ema(const std::vector<NamedTensor>& weights, double decay);

  // `takes`: as of a StepGate; where it is 0 nothing moves.
  void update(const std::vector<NamedTensor>& weights, const at::Tensor& takes = {});

  TensorMap state() const;
  void load_state(const TensorMap& state, const std::string& where);
  const std::vector<NamedTensor>& averages() const { return averages_; }

 private:
  double decay_;
  std::vector<NamedTensor> averages_;
  at::Tensor num_updates_;  // [] int64, on the device of the weights
};

// Puts other values into parameters for as long as it lives: sampling and evaluating with the averaged weights.
class SwappedWeights {
 public:
  SwappedWeights(const std::vector<NamedTensor>& parameters, const std::vector<NamedTensor>& values);
  ~SwappedWeights();
  SwappedWeights(const SwappedWeights&) = delete;
  SwappedWeights& operator=(const SwappedWeights&) = delete;

 private:
  std::vector<NamedTensor> parameters_;
  std::vector<at::Tensor> saved_;
};

}  // namespace prefusion::training
