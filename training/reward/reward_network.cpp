#include "training/reward/reward_network.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "nn/clip_encoder.h"
#include "nn/layers.h"

namespace prefusion::training {
namespace {

constexpr const char* kUserWeights = "head.user_weights";

bool is_projection(const std::string& name) {
  return name == "visual_projection.weight" || name == "text_projection.weight";
}

// Both projections are without bias; pooled features of frozen towers come from a cache, not through the network.
at::Tensor project(const torch::nn::Module& tower, const char* name, const at::Tensor& pooled) {
  const at::Tensor weight = tower.named_parameters()[name];
  return at::linear(pooled.to(weight.scalar_type()), weight).to(at::kFloat);
}

void checkpoint_activations(torch::nn::Module& tower, bool on) {
  for (const auto& child : tower.modules()) {
    if (auto* encoder = child->as<nn::ClipEncoderImpl>()) encoder->set_gradient_checkpointing(on);
  }
}

// Number of the transformer layer a tensor belongs to, or -1.
int64_t layer_of(const std::string& name) {
  const std::string marker = ".encoder.layers.";
  const size_t begin = name.find(marker);
  return begin == std::string::npos ? -1 : std::stoll(name.substr(begin + marker.size()));
}

}  // namespace

RewardNetwork::RewardNetwork(reward_models::ClipNetwork clip, std::shared_ptr<reward_models::RewardHead> head,
                             const TrainRewardOptions& options, bool models_ties, at::Device device)
    : clip_(std::move(clip)),
      head_(std::move(head)),
      training_(options.training()),
      has_cosine_head_(options.head == "cosine"),
      trains_towers_(training_ == RewardTraining::kLast || training_ == RewardTraining::kFull),
      device_(device) {
  if (training_ == RewardTraining::kLast) num_last_layers_ = options.num_last_layers();
  if (models_ties) log_tie_ = at::zeros({}, at::TensorOptions().dtype(at::kFloat).device(device));
  head_->to(device);
  checkpoint_activations(*clip_.vision, options.gradient_checkpointing);
  checkpoint_activations(*clip_.text, options.gradient_checkpointing);
  at::NoGradGuard no_grad;
  for (const NamedTensor& tensor : clip_.tensors()) {
    at::Tensor parameter = tensor.tensor;
    // On frozen towers the projections are all there is to train, and cost nothing in full precision.
    if (!trains_towers_ && is_projection(tensor.name)) parameter.set_data(parameter.to(at::kFloat));
    parameter.set_requires_grad(is_trained(tensor.name));
  }
  for (const NamedTensor& tensor : nn::named_tensors(*head_)) {
    at::Tensor parameter = tensor.tensor;
    parameter.set_requires_grad(is_trained("head." + tensor.name));
  }
  if (log_tie_.defined()) log_tie_.set_requires_grad(true);
}

bool RewardNetwork::is_trained(const std::string& name) const {
  if (training_ == RewardTraining::kUsers) return name == kUserWeights;
  if (name.starts_with("head.")) return true;
  if (name == "logit_scale") return has_cosine_head_;
  switch (training_) {
    case RewardTraining::kHead: return has_cosine_head_ && is_projection(name);
    case RewardTraining::kFull: return true;
    case RewardTraining::kLast: break;
    case RewardTraining::kUsers: return false;
  }
  if (is_projection(name) || name.find("post_layernorm") != std::string::npos ||
      name.find("final_layer_norm") != std::string::npos) {
    return true;
  }
  const int64_t num_layers = name.starts_with("text_model.") ? clip_.text->config().num_hidden_layers
                                                             : clip_.vision->config().num_hidden_layers;
  return layer_of(name) >= num_layers - num_last_layers_ && layer_of(name) >= 0;
}

std::vector<RewardNetwork::ParameterGroup> RewardNetwork::trainable() const {
  ParameterGroup all;
  // PAL's public training: 1e-4 for the maps, which --lr replaces, 5e-3 for mixtures and prototypes, 0.1 for the scale.
  // Its logarithm is bounded, so that a rate that grew with --lr would throw it from bound to bound.
  ParameterGroup mixtures{.lr = training_ == RewardTraining::kUsers ? 0.0 : 5e-3, .parameters = {}};
  ParameterGroup scale{.lr = 0.1, .parameters = {}};
  for (const NamedTensor& tensor : clip_.tensors()) {
    if (is_trained(tensor.name)) all.parameters.push_back(tensor);
  }
  for (const auto& [name, tensor] : nn::named_tensors(*head_)) {
    const std::string full = "head." + name;
    if (!is_trained(full)) continue;
    const bool is_pal = head_->config().kind == "pal";
    const bool is_mixture = is_pal && (name == "user_weights" || name == "prototypes");
    auto& group = is_mixture ? mixtures : is_pal && name == "logit_scale" ? scale : all;
    group.parameters.push_back({full, tensor});
  }
  if (log_tie_.defined() && training_ != RewardTraining::kUsers) all.parameters.push_back({"log_tie", log_tie_});
  std::vector<ParameterGroup> groups;
  for (auto* group : {&all, &mixtures, &scale}) {
    if (!group->parameters.empty()) groups.push_back(*group);
  }
  return groups;
}

at::Tensor RewardNetwork::pooled_pictures(const at::Tensor& prepared) {
  const at::Tensor example = clip_.vision->parameters().front();
  return clip_.vision->pooled(prepared.to(example.options()));
}

at::Tensor RewardNetwork::pooled_prompts(const std::vector<std::string>& prompts) {
  return clip_.text->forward(reward_models::token_ids(clip_.tokenizer, prompts).to(device_)).pooled;
}

at::Tensor RewardNetwork::project_pictures(const at::Tensor& pooled) {
  return project(*clip_.vision, "visual_projection.weight", pooled);
}

at::Tensor RewardNetwork::project_prompts(const at::Tensor& pooled) {
  return project(*clip_.text, "text_projection.weight", pooled);
}

void RewardNetwork::train(bool on) {
  head_->train(on);
}

void RewardNetwork::hold_known_users() {
  if (training_ != RewardTraining::kUsers || num_known_users_ == 0) return;
  for (const auto& [name, tensor] : nn::named_tensors(*head_)) {
    if (name == "user_weights" && tensor.grad().defined()) tensor.grad().slice(0, 0, num_known_users_).zero_();
  }
}

}  // namespace prefusion::training
