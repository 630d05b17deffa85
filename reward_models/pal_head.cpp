#include "reward_models/pal_head.h"

#include <ATen/ATen.h>

#include <cmath>

namespace prefusion::reward_models {

PalMapImpl::PalMapImpl(int64_t width, double dropout) : dropout_(dropout) {
  hidden0 = register_module("hidden0", nn::Linear(width, width));
  hidden1 = register_module("hidden1", nn::Linear(width, width));
  output = register_module("output", nn::Linear(width, width));
}

at::Tensor PalMapImpl::forward(const at::Tensor& input) {
  const at::Tensor first = at::dropout(hidden0(input), dropout_, is_training()).relu();
  const at::Tensor second = at::dropout(hidden1(first), dropout_, is_training()).relu();
  return input + output(second);
}

PalHead::PalHead(RewardHeadConfig config) : RewardHead(std::move(config)) {
  f = register_module("f", std::make_shared<PalMapImpl>(config_.width, config_.dropout));
  if (config_.form == "b") {
    for (int64_t k = 0; k < config_.prototypes; ++k) {
      const auto map = std::make_shared<PalMapImpl>(config_.width, config_.dropout);
      g.push_back(register_module("g" + std::to_string(k), map));
    }
  } else {
    prototypes = register_parameter("prototypes", at::empty({config_.prototypes, config_.width}));
  }
  user_logits =
      register_parameter("user_weights", at::empty({static_cast<int64_t>(config_.users.size()), config_.prototypes}));
  if (config_.metric == "angle") logit_scale = register_parameter("logit_scale", at::empty({}));
}

at::Tensor PalHead::mixture(const at::Tensor& users) {
  const at::Tensor weights = user_logits.softmax(-1);  // [U, K]
  const at::Tensor with_mean = at::cat({weights, weights.mean(0, /*keepdim=*/true)});
  return with_mean.index_select(0, at::where(users.lt(0), weights.size(0), users));
}

at::Tensor PalHead::forward(const HeadInputs& inputs) {
  const at::Tensor place = f->forward(unit_rows(inputs.pictures));
  const at::Tensor weights = mixture(inputs.users);  // [N, K]
  at::Tensor ideal;
  if (config_.form == "b") {
    const at::Tensor prompts = unit_rows(inputs.prompts);
    std::vector<at::Tensor> points;
    for (const auto& map : g) points.push_back(map->forward(prompts));
    ideal = (at::stack(points, 1) * weights.unsqueeze(-1)).sum(1);
  } else {
    ideal = weights.matmul(prototypes);
  }
  if (config_.metric == "dist") return -(place - ideal).norm(2, {-1}, /*keepdim=*/true);
  const at::Tensor cosine = (unit_rows(place) * unit_rows(ideal)).sum(-1, /*keepdim=*/true);
  return logit_scale.exp().clamp_max(100) * cosine;
}

}  // namespace prefusion::reward_models
