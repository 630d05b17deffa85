#pragma once

#include <memory>

#include "nn/layers.h"
#include "reward_models/reward_head.h"

namespace prefusion::reward_models {

// PAL's map of embeddings, "mlp2-relu-dropout-residual": two stages Linear, dropout, ReLU, then a Linear; the input is
// added. [N, width] -> [N, width]
class PalMapImpl : public torch::nn::Module {
 public:
  PalMapImpl(int64_t width, double dropout);
  at::Tensor forward(const at::Tensor& input);

 private:
  double dropout_;
  nn::Linear hidden0{nullptr}, hidden1{nullptr}, output{nullptr};
};

// PAL (arXiv 2406.08469): a picture is at f(picture), a user's ideal point is a mixture, with weights
// softmax(user_weights[user]), of
//   form b  g_k(prompt), K maps of the prompt
//   form a  prototypes[k], K learned points, whatever the prompt
// Scores by metric: angle, min(exp(logit_scale), 100) * cosine of both; dist, minus their distance.
// Features enter with unit length.
class PalHead : public RewardHead {
 public:
  explicit PalHead(RewardHeadConfig config);
  at::Tensor forward(const HeadInputs& inputs) override;

  // The mixture weights of users, -1 for the mean of all: [N] -> [N, K].
  at::Tensor mixture(const at::Tensor& users);

 private:
  std::shared_ptr<PalMapImpl> f;
  std::vector<std::shared_ptr<PalMapImpl>> g;
  at::Tensor prototypes;
  at::Tensor user_logits;
  at::Tensor logit_scale;
};

}  // namespace prefusion::reward_models
