#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "core/json_config.h"
#include "core/safetensors.h"
#include "tests/support/python_reference.h"
#include "tests/support/tensor_near.h"
#include "training/adamw_8bit.h"
#include "training/dynamic_code.h"
#include "training/lr_schedule.h"
#include "training/make_optimizer.h"

namespace prefusion::training {
namespace {

namespace fs = std::filesystem;

// The files of make_training.py, made once.
const fs::path& reference() {
  static const fs::path folder = tests::run_reference_script("make_training.py");
  return folder;
}

const std::vector<std::string> kNames = {"linear.weight", "linear.bias", "conv.weight", "scalar"};

at::Tensor strided(const std::string& name, const at::Tensor& tensor) {
  return name == "conv.weight" ? tensor.clone(at::MemoryFormat::ChannelsLast) : tensor.clone();
}

std::vector<NamedTensor> initial_parameters(const TensorMap& tensors) {
  std::vector<NamedTensor> parameters;
  for (const auto& name : kNames) {
    parameters.push_back({name, strided(name, tensors.at("initial." + name)).set_requires_grad(true)});
  }
  return parameters;
}

class OptimizerReference : public testing::TestWithParam<std::string> {};

TEST_P(OptimizerReference, FollowsTorchAndTransformers) {
  Metadata metadata;
  const TensorMap expected = read_safetensors(reference() / (GetParam() + ".safetensors"), &metadata);
  const Json rates = Json::parse(metadata.at("rates"));
  const std::string kind = GetParam().starts_with("adafactor") ? "adafactor" : "adamw";
  const auto made = make_optimizer(parse_optimizer(kind, metadata.at("args")), initial_parameters(expected),
                                   std::stod(metadata.at("weight_decay")));
  Optimizer& optimizer = *made;
  for (size_t step = 0; step < rates.size(); ++step) {
    optimizer.zero_grad();
    for (const auto& [name, parameter] : optimizer.parameters()) {
      const auto gradient = expected.find(concat("gradient.", step, ".", name));
      if (gradient != expected.end()) parameter.mutable_grad() = strided(name, gradient->second);
    }
    optimizer.step(rates[step].get<double>());
    for (const auto& [name, master] : optimizer.master_weights()) {
      EXPECT_TRUE(tests::near(master, expected.at(concat("master.", step, ".", name)), 2e-6)) << step << " " << name;
    }
    for (const auto& [name, parameter] : optimizer.parameters()) {
      const at::Tensor& after = expected.at(concat("after.", step, ".", name));
      EXPECT_EQ(parameter.scalar_type(), after.scalar_type());
      // One unit in the last place where the two masters fall on different sides of a rounding.
      const double tolerance = parameter.scalar_type() == at::kFloat ? 2e-6 : 5e-3;
      EXPECT_TRUE(tests::near(parameter, after, tolerance)) << step << " " << name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, OptimizerReference,
                         testing::Values("plain", "undecayed", "strongly_decayed", "bf16", "fp16", "missing",
                                         "adafactor_plain", "adafactor_missing", "adafactor_scaled",
                                         "adafactor_relative", "adafactor_warmup", "adafactor_momentum",
                                         "adafactor_tuned", "adafactor_bf16"),
                         [](const auto& info) { return info.param; });

TEST(DynamicCode, EqualsTheBitPatterns) {
  const TensorMap expected = read_safetensors(reference() / "codes.safetensors");
  for (const bool is_signed : {true, false}) {
    const std::string name = is_signed ? "signed." : "unsigned.";
    const auto code = dynamic_code(is_signed);
    EXPECT_TRUE(tests::near(at::tensor(at::ArrayRef<float>(code.data(), code.size())), expected.at(name + "table"), 0));
    const at::Tensor& values = expected.at(name + "values");
    DynamicTensor tensor(values.numel(), is_signed, at::kCPU);
    tensor.write(0, values);
    EXPECT_TRUE(at::equal(tensor.codes(), expected.at(name + "codes"))) << name;
    EXPECT_TRUE(at::equal(tensor.scales(), expected.at(name + "scales"))) << name;
    EXPECT_TRUE(at::equal(tensor.read(0, values.numel()), expected.at(name + "read"))) << name;
  }
}

TEST(AdamW8bit, FollowsAnEvaluationElsewhere) {
  const TensorMap expected = read_safetensors(reference() / "codes.safetensors");
  const at::Tensor& gradients = expected.at("adamw.gradients");
  AdamW8bit optimizer({{"weight", expected.at("adamw.weight").clone().set_requires_grad(true)}}, {.weight_decay = 0.1});
  for (int64_t step = 0; step < gradients.size(0); ++step) {
    optimizer.parameters()[0].tensor.mutable_grad() = gradients[step].clone();
    optimizer.step(1e-2);
  }
  const at::Tensor error = (optimizer.master_weights()[0].tensor - expected.at("adamw.after")).abs();
  // Sums in another order: what lies between two codes may fall to the other one, of few elements.
  EXPECT_LT((error > 1e-6).sum().item<int64_t>(), 5);
  EXPECT_LT(error.max().item<double>(), 2e-3);
}

TEST(AdamW, ClipsAsTorch) {
  for (int index = 0; index < 3; ++index) {
    Metadata metadata;
    const TensorMap expected = read_safetensors(reference() / concat("clip-", index, ".safetensors"), &metadata);
    std::vector<NamedTensor> parameters;
    for (int i = 0; i < 3; ++i) {
      const at::Tensor gradient = expected.at(concat("before.", i));
      at::Tensor parameter = at::zeros_like(gradient).set_requires_grad(true);
      parameter.mutable_grad() = gradient.clone();
      parameters.push_back({std::to_string(i), parameter});
    }
    parameters.push_back({"unused", at::zeros({5}).set_requires_grad(true)});
    AdamW optimizer(parameters, {});
    const at::Tensor norm = optimizer.grad_norm();
    EXPECT_TRUE(tests::near(norm, expected.at("norm"), 1e-6));
    const at::Tensor factor = clip_factor(norm, std::stod(metadata.at("max_norm")));
    for (int i = 0; i < 3; ++i) {
      EXPECT_TRUE(tests::near(parameters[i].tensor.grad() * factor, expected.at(concat("after.", i)), 1e-6)) << index;
    }
    EXPECT_FALSE(parameters[3].tensor.grad().defined());
  }
}

TEST(LrSchedule, IsThatOfTransformers) {
  const Json cases = read_json(reference() / "schedules.json");
  ASSERT_EQ(cases.size(), 9u);
  for (const Json& entry : cases) {
    const auto kind = parse_lr_schedule(entry.at("kind").get<std::string>());
    const auto warmup = entry.at("warmup").get<int64_t>();
    const auto total = entry.at("total").get<int64_t>();
    const auto& factors = entry.at("factors");
    for (int64_t step = 0; step <= total; ++step) {
      EXPECT_NEAR(lr_factor(kind, step, warmup, total), factors[static_cast<size_t>(step)].get<double>(), 1e-12)
          << entry.at("kind") << " step " << step << " of " << total << ", warmup " << warmup;
    }
  }
}

}  // namespace
}  // namespace prefusion::training
