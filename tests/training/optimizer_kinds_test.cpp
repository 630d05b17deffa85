#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <functional>
#include <tuple>

#include "core/error.h"
#include "core/rng.h"
#include "tests/support/tensor_near.h"
#include "training/adamw_8bit.h"
#include "training/dynamic_code.h"
#include "training/make_optimizer.h"

namespace prefusion::training {
namespace {

at::Tensor random(at::IntArrayRef shape, uint64_t item) {
  return philox_randn(shape, DrawKey{7, item, 0}, RandomPurpose::kOther);
}

// One large enough for bytes, with a last block that is not full and strides of its own, and small ones.
std::vector<NamedTensor> parameters(at::ScalarType dtype) {
  const at::Tensor large = random({7, 3, 15, 15}, 1).to(dtype).contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor turned = random({4, 3, 3, 3}, 3).to(dtype).contiguous(at::MemoryFormat::ChannelsLast);
  return {{"large", large.set_requires_grad(true)},
          {"small", random({5}, 2).to(dtype).set_requires_grad(true)},
          {"turned", turned.set_requires_grad(true)}};
}

std::unique_ptr<Optimizer> make(const std::string& name, std::vector<NamedTensor> parameters,
                                const std::string& args = "") {
  return make_optimizer(parse_optimizer(name, args), std::move(parameters), 1e-2);
}

void take_steps(Optimizer& optimizer, uint64_t first, uint64_t last) {
  for (uint64_t step = first; step < last; ++step) {
    for (const auto& [name, parameter] : optimizer.parameters()) {
      parameter.mutable_grad() = random(parameter.sizes(), 100 * step + name[0]).to(parameter.scalar_type());
    }
    optimizer.step(1e-2);
    optimizer.zero_grad();
  }
}

using Case = std::tuple<std::string, std::string, at::ScalarType>;
class OptimizerState : public testing::TestWithParam<Case> {};

TEST_P(OptimizerState, GoesOnBitForBit) {
  const auto& [name, args, dtype] = GetParam();
  const auto whole = make(name, parameters(dtype), args);
  take_steps(*whole, 0, 6);

  const auto first = make(name, parameters(dtype), args);
  take_steps(*first, 0, 3);
  TensorMap state;
  for (const auto& [key, tensor] : first->state()) state[key] = tensor.clone();
  const auto second = make(name, parameters(dtype), args);
  second->load_state(state, "test");
  take_steps(*second, 3, 6);

  for (size_t i = 0; i < 3; ++i) {
    EXPECT_TRUE(at::equal(whole->parameters()[i].tensor, second->parameters()[i].tensor));
    EXPECT_TRUE(at::equal(whole->master_weights()[i].tensor, second->master_weights()[i].tensor));
    EXPECT_FALSE(at::equal(whole->master_weights()[i].tensor, first->master_weights()[i].tensor));
  }
}

TEST_P(OptimizerState, StepsThatAreNotTakenLeaveNothingBehind) {
  const auto& [name, args, dtype] = GetParam();
  const auto with_gap = make(name, parameters(dtype), args), without = make(name, parameters(dtype), args);
  for (const auto& optimizer : {with_gap.get(), without.get()}) take_steps(*optimizer, 0, 2);
  for (const auto& [key, parameter] : with_gap->parameters()) {
    parameter.mutable_grad() = at::full_like(parameter, NAN);
  }
  with_gap->step(1e-2, {.takes = at::zeros({}), .gradient_factor = at::full({}, NAN)});
  with_gap->zero_grad();
  for (const auto& optimizer : {with_gap.get(), without.get()}) take_steps(*optimizer, 2, 4);
  const TensorMap expected = without->state();
  for (const auto& [key, tensor] : with_gap->state()) EXPECT_TRUE(at::equal(tensor, expected.at(key))) << key;
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_TRUE(at::equal(with_gap->parameters()[i].tensor, without->parameters()[i].tensor));
  }
}

TEST_P(OptimizerState, GradientsAreClippedByTheGatesFactor) {
  const auto& [name, args, dtype] = GetParam();
  const auto gated = make(name, parameters(dtype), args), plain = make(name, parameters(dtype), args);
  for (uint64_t step = 0; step < 3; ++step) {
    for (const auto& optimizer : {gated.get(), plain.get()}) {
      for (const auto& [key, parameter] : optimizer->parameters()) {
        const at::Tensor gradient = random(parameter.sizes(), 100 * step + key[0]).to(parameter.scalar_type());
        parameter.mutable_grad() = optimizer == plain.get() ? gradient * 0.125 : gradient;
      }
    }
    gated->step(1e-2, {.takes = at::ones({}), .gradient_factor = at::full({}, 0.125)});
    plain->step(1e-2);
  }
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_TRUE(at::equal(gated->master_weights()[i].tensor, plain->master_weights()[i].tensor));
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, OptimizerState,
                         testing::Values(Case{"adamw", "beta1=0.8", at::kFloat}, Case{"adamw8bit", "", at::kFloat},
                                         Case{"adamw8bit", "", at::kBFloat16}, Case{"adafactor", "", at::kFloat},
                                         Case{"adafactor", "beta1=0.9,relative_step=1", at::kBFloat16}),
                         [](const auto& info) { return concat(std::get<0>(info.param), "_", info.index); });

// In every layout a large parameter can have: some are stepped where they lie, others in a copy.
TEST(Optimizer, HalfPrecisionParametersAreTheirMastersRounded) {
  for (const char* name : {"adamw", "adamw8bit", "adafactor"}) {
    for (const auto format : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast}) {
      std::vector<NamedTensor> trained = parameters(at::kBFloat16);
      trained[0].tensor = trained[0].tensor.detach().contiguous(format).set_requires_grad(true);
      const auto optimizer = make(name, trained);
      take_steps(*optimizer, 0, 2);
      for (size_t i = 0; i < trained.size(); ++i) {
        const at::Tensor master = optimizer->master_weights()[i].tensor;
        EXPECT_FALSE(at::equal(master, parameters(at::kFloat)[i].tensor)) << name;
        EXPECT_TRUE(at::equal(trained[i].tensor, master.to(at::kBFloat16))) << name << ", " << trained[i].name;
      }
    }
  }
}

TEST(OptimizerState, IsNotThatOfAnotherKind) {
  const auto adamw = make("adamw", parameters(at::kFloat));
  const auto bytes = make("adamw8bit", parameters(at::kFloat));
  EXPECT_THROW(bytes->load_state(adamw->state(), "checkpoint"), Error);
}

TEST(StateBytes, AreWhatTheKindKeeps) {
  constexpr size_t kLarge = 7 * 3 * 15 * 15, kSmall = 5, kTurned = 108;  // 4725 elements are 19 blocks
  const auto bytes = [](const char* name, at::ScalarType dtype, const char* args = "") {
    return make(name, parameters(dtype), args)->state_bytes();
  };
  EXPECT_EQ(bytes("adamw", at::kFloat), 8 * (kLarge + kSmall + kTurned));
  EXPECT_EQ(bytes("adamw8bit", at::kFloat), 2 * (kLarge + 19 * 4) + 8 * (kSmall + kTurned));
  EXPECT_EQ(bytes("adamw8bit", at::kBFloat16),
            2 * (kLarge + 19 * 4) + 8 * (kSmall + kTurned) + 4 * (kLarge + kSmall + kTurned));
  constexpr size_t kFactors = 4 * (7 * 3 * 15 + 7 * 3 * 15) + 4 * (4 * 3 * 3 + 4 * 3 * 3);
  EXPECT_EQ(bytes("adafactor", at::kFloat), kFactors + 4 * kSmall);
  EXPECT_EQ(bytes("adafactor", at::kFloat, "beta1=0.9"), kFactors + 4 * kSmall + 4 * (kLarge + kSmall + kTurned));
}

TEST(DynamicTensor, ReadsWhatWasWrittenInParts) {
  const at::Tensor values = random({1000}, 3);
  DynamicTensor whole(1000, true, at::kCPU), parts(1000, true, at::kCPU);
  EXPECT_EQ(whole.read(0, 1000).abs().max().item<double>(), 0);
  whole.write(0, values);
  parts.write(512, values.slice(0, 512));
  parts.write(0, values.slice(0, 0, 512));
  EXPECT_TRUE(at::equal(whole.read(0, 1000), parts.read(0, 1000)));
  EXPECT_TRUE(at::equal(whole.read(256, 300), whole.read(0, 1000).slice(0, 256, 556)));
  EXPECT_LT((whole.read(0, 1000) - values).abs().max().item<double>(), 0.01 * values.abs().max().item<double>());
}

TEST(DynamicTensor, KeepsSmallSquaresAboveZero) {
  DynamicTensor squares(256, /*is_signed=*/false, at::kCPU);
  at::Tensor values = at::full({256}, 1e-12);
  values[0] = 1.0;
  values[1] = 0.0;
  squares.write(0, values);
  const at::Tensor read = squares.read(0, 256);
  EXPECT_EQ(read[1].item<double>(), 0.0);
  EXPECT_GT(read[2].item<double>(), 0.0);
  EXPECT_LT(read[2].item<double>(), 1e-6);
}

// How far apart fp32 and bytes end after 300 steps of a regression, as a share of the way. Features are 10^low to
// 10^high in size, and every block of 256 weights has some of all sizes.
double distance_from_fp32(double low, double high) {
  const at::Tensor truth = random({64, 80}, 10);
  const at::Tensor sizes = at::logspace(low, high, 80);
  const auto run = [&](const std::string& name) {
    const auto optimizer = make(name, {{"w", at::zeros({64, 80}).set_requires_grad(true)}});
    for (uint64_t step = 0; step < 300; ++step) {
      const at::Tensor features = random({32, 80}, 1000 + step) * sizes;
      const at::Tensor& weight = optimizer->parameters()[0].tensor;
      (features.matmul((weight - truth).t())).square().mean().backward();
      optimizer->step(1e-2);
      optimizer->zero_grad();
    }
    return optimizer->master_weights()[0].tensor.detach();
  };
  const at::Tensor fp32 = run("adamw"), bytes = run("adamw8bit");
  return ((bytes - fp32).norm() / fp32.norm()).item<double>();
}

TEST(AdamW8bit, StaysCloseToFp32) {
  const double even = distance_from_fp32(0, 0), uneven = distance_from_fp32(-2, 1);
  EXPECT_GT(even, 0);
  EXPECT_LT(even, 0.03);
  EXPECT_LT(uneven, 0.12);  // squared gradients of one block differ by six decades
}

TEST(Adafactor, SaysItsOwnRate) {
  const auto relative = make("adafactor", parameters(at::kFloat), "relative_step=1,warmup_init=1");
  take_steps(*relative, 0, 3);
  EXPECT_DOUBLE_EQ(relative->rate(0.5), 3e-6);
  EXPECT_DOUBLE_EQ(make("adafactor", parameters(at::kFloat))->rate(0.5), 0.5);
  EXPECT_DOUBLE_EQ(make("adafactor", parameters(at::kFloat), "relative_step=1")->rate(0.5), 1e-2);
}

std::string message_of(const std::function<void()>& function) {
  try {
    function();
  } catch (const Error& error) {
    EXPECT_EQ(error.error_class(), ErrorClass::kUsage);
    return error.what();
  }
  return "";
}

TEST(ParseOptimizer, NamesWhatIsWrong) {
  const auto refusal = [](const char* name, const char* args) {
    return message_of([&] { parse_optimizer(name, args); });
  };
  EXPECT_NE(refusal("lion", "").find("expected adamw, adamw8bit or adafactor"), std::string::npos);
  EXPECT_NE(refusal("adamw", "decay_rate=1").find("it has beta1, beta2, eps"), std::string::npos);
  EXPECT_NE(refusal("adamw", "beta1").find("name=value"), std::string::npos);
  EXPECT_NE(refusal("adamw", "beta1=x").find("is not a number"), std::string::npos);
  EXPECT_NE(refusal("adamw", "beta1=1").find("out of range"), std::string::npos);
  EXPECT_NE(refusal("adamw8bit", "eps=1e-8,eps=1e-9").find("given twice"), std::string::npos);
  EXPECT_NE(refusal("adafactor", "scale_parameter=0.5").find("expected 0 or 1"), std::string::npos);
  EXPECT_NE(refusal("adafactor", "warmup_init=1").find("add relative_step=1"), std::string::npos);
}

}  // namespace
}  // namespace prefusion::training
