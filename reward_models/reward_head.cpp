#include "reward_models/reward_head.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "core/error.h"
#include "core/rng.h"
#include "nn/layers.h"
#include "reward_models/pal_head.h"

namespace prefusion::reward_models {
namespace {

class CosineHead : public RewardHead {
 public:
  CosineHead(RewardHeadConfig config, const at::Tensor& log_scale)
      : RewardHead(std::move(config)), log_scale_(log_scale) {}

  at::Tensor forward(const HeadInputs& inputs) override {
    const at::Tensor cosine = (unit_rows(inputs.pictures) * unit_rows(inputs.prompts)).sum(-1, /*keepdim=*/true);
    return log_scale_.exp() * cosine;
  }

 private:
  at::Tensor log_scale_;  // belongs to the CLIP
};

// Two hidden layers on a picture, its prompt and the product of both.
class TrunkImpl : public torch::nn::Module {
 public:
  TrunkImpl(const RewardHeadConfig& config, int64_t num_outputs) : dropout_(config.dropout) {
    hidden0 = register_module("hidden0", nn::Linear(3 * config.width, config.hidden));
    hidden1 = register_module("hidden1", nn::Linear(config.hidden, config.hidden));
    output = register_module("output", nn::Linear(config.hidden, num_outputs));
  }

  at::Tensor forward(const HeadInputs& inputs) {
    // Entries of the size a layer expects, whatever the width.
    const double scale = std::sqrt(static_cast<double>(inputs.pictures.size(1)));
    const at::Tensor picture = unit_rows(inputs.pictures) * scale;
    const at::Tensor prompt = unit_rows(inputs.prompts) * scale;
    at::Tensor states = at::cat({picture, prompt, picture * prompt}, -1);
    for (auto* layer : {&hidden0, &hidden1}) states = at::dropout(at::gelu((*layer)(states)), dropout_, is_training());
    return output(states);
  }

 private:
  double dropout_;
  nn::Linear hidden0{nullptr}, hidden1{nullptr}, output{nullptr};
};

class MlpHead : public RewardHead {
 public:
  explicit MlpHead(RewardHeadConfig config) : RewardHead(std::move(config)) {
    trunk = register_module("trunk", std::make_shared<TrunkImpl>(config_, 1));
  }
  at::Tensor forward(const HeadInputs& inputs) override { return trunk->forward(inputs); }

 private:
  std::shared_ptr<TrunkImpl> trunk;
};

class AspectsHead : public RewardHead {
 public:
  explicit AspectsHead(RewardHeadConfig config) : RewardHead(std::move(config)) {
    const auto num_aspects = static_cast<int64_t>(config_.columns.size()) - 1;
    trunk = register_module("trunk", std::make_shared<TrunkImpl>(config_, num_aspects));
    gate = register_module("gate", nn::Linear(config_.width, num_aspects));
  }

  at::Tensor forward(const HeadInputs& inputs) override {
    const at::Tensor aspects = trunk->forward(inputs);                      // [N, A]
    const at::Tensor shares = gate(unit_rows(inputs.prompts)).softmax(-1);  // of the experts
    return at::cat({(aspects * shares).sum(-1, /*keepdim=*/true), aspects}, -1);
  }

 private:
  std::shared_ptr<TrunkImpl> trunk;
  nn::Linear gate{nullptr};
};

// What no layer owns.
void init_pal(PalHead& head, at::Generator generator) {
  constexpr double kLogitScale = 2.6592600369327783;  // log(1 / 0.07)
  at::NoGradGuard no_grad;
  for (auto& entry : head.named_parameters(/*recurse=*/false)) {
    at::Tensor& parameter = entry.value();
    if (entry.key() == "logit_scale") parameter.fill_(kLogitScale);
    if (entry.key() == "user_weights") parameter.normal_(0, 1, generator);
    // Of unit length on average, as the places they are compared with are.
    if (entry.key() == "prototypes") {
      parameter.normal_(0, 1 / std::sqrt(static_cast<double>(parameter.size(1))), generator);
    }
  }
}

}  // namespace

at::Tensor unit_rows(const at::Tensor& features) {
  return features / features.norm(2, {-1}, /*keepdim=*/true).clamp_min(1e-12);
}

Json to_json(const RewardHeadConfig& config) {
  Json json = {{"kind", config.kind}, {"width", config.width}, {"columns", config.columns}};
  if (config.kind == "mlp" || config.kind == "aspects") json["hidden"] = config.hidden;
  if (config.kind != "cosine") json["dropout"] = config.dropout;
  if (config.kind == "pal") {
    json["form"] = config.form;
    json["metric"] = config.metric;
    json["prototypes"] = config.prototypes;
    json["users"] = config.users;
  }
  return json;
}

RewardHeadConfig parse_reward_head(const Json& json, const std::string& where) {
  check_input(json.is_object(), where, ": 'head' is no object");
  ConfigReader reader(json, where + " (head)");
  RewardHeadConfig config;
  config.kind = reader.require<std::string>("kind");
  config.width = reader.require<int64_t>("width");
  config.columns = reader.require<std::vector<std::string>>("columns");
  config.hidden = reader.get("hidden", int64_t{0});
  config.dropout = reader.get("dropout", 0.0);
  config.form = reader.get("form", config.form);
  config.metric = reader.get("metric", config.metric);
  config.prototypes = reader.get("prototypes", config.prototypes);
  config.users = reader.get("users", config.users);
  reader.finish();
  const auto one_of = [&](const char* key, const std::string& value, std::initializer_list<const char*> choices) {
    for (const char* choice : choices) {
      if (value == choice) return;
    }
    reader.refuse(key, value);
  };
  one_of("kind", config.kind, {"cosine", "mlp", "aspects", "pal"});
  one_of("form", config.form, {"a", "b"});
  one_of("metric", config.metric, {"angle", "dist"});
  constexpr int64_t kMost = int64_t{1} << 20;
  const bool has_hidden = config.kind == "mlp" || config.kind == "aspects";
  check_input(config.width > 0 && config.width < kMost && config.hidden >= (has_hidden ? 1 : 0) &&
                  config.hidden < kMost && config.dropout >= 0 && config.dropout < 1 && config.prototypes > 0 &&
                  config.prototypes < kMost,
              where, ": a number of 'head' is out of range");
  check_input(config.columns.size() >= (config.kind == "aspects" ? 2 : 1), where, ": 'columns' names no aspect");
  check_input(config.kind != "pal" || !config.users.empty(), where, ": 'users' names nobody");
  return config;
}

std::shared_ptr<RewardHead> make_cosine_head(const RewardHeadConfig& config, const at::Tensor& log_scale) {
  return std::make_shared<CosineHead>(config, log_scale);
}

std::shared_ptr<RewardHead> make_reward_head(const RewardHeadConfig& config, uint64_t seed) {
  at::Generator generator = make_torch_generator(seed);
  if (config.kind == "pal") {
    auto head = std::make_shared<PalHead>(config);
    nn::init_weights(*head, generator);
    init_pal(*head, generator);
    return head;
  }
  std::shared_ptr<RewardHead> head;
  if (config.kind == "mlp") head = std::make_shared<MlpHead>(config);
  if (config.kind == "aspects") head = std::make_shared<AspectsHead>(config);
  check_usage(head != nullptr, "there is no head '", config.kind, "' of its own weights");
  nn::init_weights(*head, generator);
  return head;
}

}  // namespace prefusion::reward_models
