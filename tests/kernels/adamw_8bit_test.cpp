#include "kernels/adamw_8bit/adamw_8bit.h"

#include <ATen/Parallel.h>

#include <cmath>
#include <vector>

#include "core/error.h"
#include "kernels/adamw_8bit/byte_threads.h"
#include "tests/kernels/device_test.h"
#include "tests/support/tensor_near.h"

namespace prefusion::kernels {
namespace {

using prefusion::tests::DeviceTest;
using prefusion::tests::near;

constexpr AdamWSettings kSettings{.lr = 0.02, .beta1 = 0.85, .beta2 = 0.97, .eps = 1e-5, .weight_decay = 0.3};

// Any sorted numbers that hold 0 and 1 are a code.
at::Tensor table_of(bool is_signed) {
  at::Tensor values = at::rand({is_signed ? 127 : 254});
  values = is_signed ? at::cat({values, -at::rand({127})}) : values;
  return std::get<0>(at::cat({values, at::tensor({0.0F, 1.0F})}).sort());
}

struct State {
  at::Tensor parameter, master;
  ByteMoment exp_avg, exp_avg_sq;

  State clone() const {
    const auto copy = [](const ByteMoment& m) {
      return ByteMoment{m.codes.clone(), m.scales.clone(), m.table, m.middles};
    };
    return {parameter.defined() ? parameter.clone() : parameter, master.clone(), copy(exp_avg), copy(exp_avg_sq)};
  }
};

ByteMoment random_moment(int64_t length, bool is_signed, at::Device device) {
  const at::Tensor table = table_of(is_signed);
  return {at::randint(0, 256, {length}, at::kByte).to(device),
          (at::rand({(length + kByteBlock - 1) / kByteBlock}) * 0.1).to(device), table.to(device),
          ((table.slice(0, 1) + table.slice(0, 0, 255)) / 2).to(device)};
}

State random_state(int64_t length, at::ScalarType dtype, at::Device device) {
  const at::Tensor master = at::randn({length}).to(device);
  return {dtype == at::kFloat ? at::Tensor() : master.to(dtype), master, random_moment(length, true, device),
          random_moment(length, false, device)};
}

at::Tensor in_blocks(const at::Tensor& values) {
  const int64_t missing = (kByteBlock - values.numel() % kByteBlock) % kByteBlock;
  return at::constant_pad_nd(values, {0, missing}).view({-1, kByteBlock});
}

at::Tensor read(const ByteMoment& moment) {
  const at::Tensor values = moment.table.index_select(0, moment.codes.to(at::kInt));
  return (in_blocks(values) * moment.scales.unsqueeze(1)).flatten().slice(0, 0, moment.codes.numel());
}

void write(ByteMoment& moment, const at::Tensor& values, bool is_signed) {
  const at::Tensor blocks = in_blocks(values);
  moment.scales = blocks.abs().amax(1);
  const at::Tensor divisors = at::where(moment.scales > 0, moment.scales, at::ones_like(moment.scales));
  const at::Tensor scaled = blocks / divisors.unsqueeze(1);
  at::Tensor codes = at::bucketize(scaled, moment.middles);
  if (!is_signed) codes = codes.maximum((scaled > 0).to(at::kLong));
  moment.codes = codes.flatten().slice(0, 0, values.numel()).to(at::kByte);
}

// The step in plain operations of fp32.
State plain_step(State state, const at::Tensor& gradient, double count, const AdamWSettings& s) {
  const at::Tensor g = gradient.to(at::kFloat);
  const at::Tensor m = s.beta1 * read(state.exp_avg) + (1 - s.beta1) * g;
  const at::Tensor v = s.beta2 * read(state.exp_avg_sq) + (1 - s.beta2) * g * g;
  const at::Tensor direction =
      m / (1 - std::pow(s.beta1, count)) / ((v / (1 - std::pow(s.beta2, count))).sqrt() + s.eps);
  state.master = state.master * (1 - s.lr * s.weight_decay) - s.lr * direction;
  if (state.parameter.defined()) state.parameter = state.master.to(state.parameter.scalar_type());
  write(state.exp_avg, m, true);
  write(state.exp_avg_sq, v, false);
  return state;
}

// Of values that lie between two codes, to a rounding, a few may fall to the other one.
void expect_close(const State& found, const State& expected) {
  EXPECT_TRUE(near(found.master, expected.master, 2e-6));
  if (expected.parameter.defined()) {
    EXPECT_TRUE(at::equal(found.parameter, found.master.to(found.parameter.scalar_type())));
  }
  for (const auto moment : {&State::exp_avg, &State::exp_avg_sq}) {
    EXPECT_TRUE(near((found.*moment).scales, (expected.*moment).scales, 1e-6));
    const at::Tensor apart = ((found.*moment).codes.to(at::kInt) - (expected.*moment).codes.to(at::kInt)).abs();
    EXPECT_LE(apart.max().item<int>(), 1);
    EXPECT_LE(apart.sum().item<int64_t>(), 1 + apart.numel() / 1000);
  }
}

at::Tensor number(double value, at::Device device) {
  return at::full({}, value, at::TensorOptions().device(device).dtype(at::kFloat));
}

State ours(const State& before, const at::Tensor& gradient, double count, const AdamWSettings& settings,
           const StepGate& gate = {}) {
  State state = before.clone();
  adamw_8bit_step(state.parameter, state.master, gradient, state.exp_avg, state.exp_avg_sq,
                  number(count, state.master.device()), settings, gate);
  return state;
}

bool equal(const State& a, const State& b) {
  return at::equal(a.master, b.master) && at::equal(a.exp_avg.codes, b.exp_avg.codes) &&
         at::equal(a.exp_avg_sq.codes, b.exp_avg_sq.codes) && at::equal(a.exp_avg_sq.scales, b.exp_avg_sq.scales);
}

class AdamW8bitStep : public DeviceTest {
 protected:
  void SetUp() override {
    DeviceTest::SetUp();
    at::manual_seed(3);
  }
};

TEST_P(AdamW8bitStep, EqualsItsFormulaForEveryDtypeAndOddSize) {
  for (const int64_t length : {1, 7, 255, 256, 257, 1000, 70'001}) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
      for (const double count : {1.0, 40.0}) {
        SCOPED_TRACE(testing::Message() << length << " " << c10::toString(dtype) << " step " << count);
        const State state = random_state(length, dtype, device());
        const at::Tensor gradient = at::randn({length}).to(dtype).to(device());
        expect_close(ours(state, gradient, count, kSettings), plain_step(state, gradient, count, kSettings));
      }
    }
  }
}

// A block of nothing but zeros stays so; a second moment that is positive does not become 0.
TEST_P(AdamW8bitStep, KeepsZerosAndWhatIsBarelyPositive) {
  State state = random_state(600, at::kFloat, device());
  const auto zero = (state.exp_avg.table == 0).nonzero().item<int64_t>();
  state.exp_avg.codes.fill_(zero);
  state.exp_avg_sq.codes.fill_(0);  // the smallest of a table without a sign is 0
  at::Tensor gradient = at::zeros({600}).to(device());
  State found = ours(state, gradient, 1, kSettings);
  EXPECT_TRUE(at::equal(found.exp_avg.codes, state.exp_avg.codes));
  EXPECT_EQ(found.exp_avg.scales.abs().max().item<float>(), 0);
  EXPECT_TRUE(at::equal(found.exp_avg_sq.codes, state.exp_avg_sq.codes));
  gradient.fill_(1e-4);
  gradient[0] = 1;
  found = ours(state, gradient, 1, kSettings);
  EXPECT_GE(found.exp_avg_sq.codes.min().item<int>(), 1);
}

TEST_P(AdamW8bitStep, ShowsWhatIsNotANumber) {
  const State state = random_state(512, at::kFloat, device());
  at::Tensor gradient = at::zeros({512}).to(device());
  gradient[300] = NAN;
  const State found = ours(state, gradient, 1, kSettings);
  EXPECT_TRUE(std::isnan(found.exp_avg.scales[1].item<float>()));
  EXPECT_FALSE(std::isnan(found.exp_avg.scales[0].item<float>()));
  EXPECT_TRUE(std::isnan(found.master[300].item<float>()));
}

TEST_P(AdamW8bitStep, AGateThatIsShutLeavesEverything) {
  const State state = random_state(600, at::kBFloat16, device());
  const at::Tensor gradient = at::full({600}, NAN).to(at::kBFloat16).to(device());
  EXPECT_TRUE(equal(ours(state, gradient, 1, kSettings, {.takes = number(0, device())}), state));
}

TEST_P(AdamW8bitStep, GradientsAreMultipliedByTheGatesFactor) {
  const State state = random_state(600, at::kHalf, device());
  const at::Tensor gradient = at::randn({600}).to(at::kHalf).to(device());
  EXPECT_TRUE(equal(ours(state, gradient, 3, kSettings, {.gradient_factor = number(0.5, device())}),
                    ours(state, gradient * 0.5, 3, kSettings)));
}

INSTANTIATE_TEST_SUITE_P(Devices, AdamW8bitStep, testing::Values("cpu", "cuda"), prefusion::tests::device_name);

TEST(AdamW8bitCpu, DoesNotDependOnTheNumberOfThreads) {
  at::manual_seed(4);
  const State state = random_state(100'000, at::kBFloat16, at::kCPU);
  const at::Tensor gradient = at::randn({100'000}).to(at::kBFloat16);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const State one = ours(state, gradient, 3, kSettings);
  at::set_num_threads(2);
  const State two = ours(state, gradient, 3, kSettings);
  at::set_num_threads(threads);
  EXPECT_TRUE(equal(one, two));
}

TEST(AdamW8bitCpu, RefusesWhatDoesNotFit) {
  const State state = random_state(300, at::kBFloat16, at::kCPU);
  const at::Tensor gradient = at::randn({300}).to(at::kBFloat16);
  const auto step = [&](const State& s, const at::Tensor& g, const at::Tensor& count = at::ones({})) {
    adamw_8bit_step(s.parameter, s.master, g, s.exp_avg, s.exp_avg_sq, count, kSettings);
  };
  step(state, gradient);
  EXPECT_THROW(step(state, gradient, at::ones({1})), Error);
  EXPECT_THROW(step(state, gradient.to(at::kFloat)), Error);
  EXPECT_THROW(step(state, gradient.slice(0, 0, 299)), Error);
  EXPECT_THROW(step(state, gradient.to(at::kDouble)), Error);
  EXPECT_THROW(step(state, {}), Error);
  State other = state;
  other.master = at::randn({600}).slice(0, 0, 600, 2);
  EXPECT_THROW(step(other, gradient), Error);
  other = state;
  other.exp_avg.scales = at::rand({1});
  EXPECT_THROW(step(other, gradient), Error);
  other = state;
  other.exp_avg_sq.table = at::rand({255});
  EXPECT_THROW(step(other, gradient), Error);
}

// The GPU's kernel, thread after thread.
TEST(ByteThreadsTest, CoverEveryElementOnce) {
  at::manual_seed(5);
  for (const int64_t length : {1, 256, 300, 1025}) {
    const State before = random_state(length, at::kBFloat16, at::kCPU);
    const at::Tensor gradient = at::randn({length}).to(at::kBFloat16);
    const State state = before.clone();
    const detail::ByteThreads<at::BFloat16> threads{.parameter = state.parameter.mutable_data_ptr<at::BFloat16>(),
                                                    .master = state.master.mutable_data_ptr<float>(),
                                                    .gradient = gradient.const_data_ptr<at::BFloat16>(),
                                                    .codes1 = state.exp_avg.codes.mutable_data_ptr<uint8_t>(),
                                                    .codes2 = state.exp_avg_sq.codes.mutable_data_ptr<uint8_t>(),
                                                    .scales1 = state.exp_avg.scales.mutable_data_ptr<float>(),
                                                    .scales2 = state.exp_avg_sq.scales.mutable_data_ptr<float>(),
                                                    .length = length};
    const detail::AdamWFactors factors =
        detail::adamw_factors(detail::adamw_constants(kSettings), /*gradient_factor=*/1.0F, /*count=*/2.0F);
    const float *table1 = state.exp_avg.table.const_data_ptr<float>(),
                *table2 = state.exp_avg_sq.table.const_data_ptr<float>();
    const float *middles1 = state.exp_avg.middles.const_data_ptr<float>(),
                *middles2 = state.exp_avg_sq.middles.const_data_ptr<float>();
    for (int64_t block = 0; block < state.exp_avg.scales.numel(); ++block) {
      std::vector<detail::MovedElement> moved;
      float scale1 = 0, scale2 = 0;
      for (int64_t thread = 0; thread < kByteBlock; ++thread) {
        moved.push_back(threads.move(block, block * kByteBlock + thread, table1, table2, factors));
        scale1 = detail::larger(scale1, moved.back().exp_avg);
        scale2 = detail::larger(scale2, moved.back().exp_avg_sq);
      }
      for (int64_t thread = 0; thread < kByteBlock; ++thread) {
        threads.write(block, block * kByteBlock + thread, moved[thread], scale1, scale2, middles1, middles2,
                      thread == 0);
      }
    }
    expect_close(state, plain_step(before, gradient, 2, kSettings));
  }
}

}  // namespace
}  // namespace prefusion::kernels
