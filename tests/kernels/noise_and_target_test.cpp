#include "kernels/noise_and_target/noise_and_target.h"

#include <ATen/Parallel.h>

#include "core/error.h"
#include "core/rng.h"
#include "tests/kernels/device_test.h"
#include "tests/support/tensor_near.h"

namespace prefusion::kernels {
namespace {

using prefusion::tests::DeviceTest;
using prefusion::tests::near;

constexpr uint64_t kSeed = 0x123456789abcdef;
constexpr PredictionType kTypes[] = {PredictionType::kEpsilon, PredictionType::kVPrediction, PredictionType::kSample,
                                     PredictionType::kFlow};

at::Tensor make_streams(int64_t num_groups) {
  at::Tensor streams = at::empty({num_groups}, at::kLong);
  for (int64_t i = 0; i < num_groups; ++i) {
    const DrawKey key{.seed = kSeed, .item = static_cast<uint64_t>(i), .draw = 3};
    streams[i].fill_(static_cast<int64_t>(random_stream(key, RandomPurpose::kNoise)));
  }
  return streams;
}

struct Scales {
  at::Tensor signal, noise;  // [B, k]
};

Scales make_scales(int64_t num_groups, int64_t k) {
  const at::Tensor abar = at::linspace(0.02, 0.98, num_groups * k, at::kFloat).view({num_groups, k});
  return {abar.sqrt(), (1 - abar).sqrt()};
}

at::Tensor expected_target(PredictionType type, const at::Tensor& x, const at::Tensor& n, const at::Tensor& a,
                           const at::Tensor& s) {
  switch (type) {
    case PredictionType::kEpsilon: return n;
    case PredictionType::kVPrediction: return a * n - s * x;
    case PredictionType::kSample: return x;
    default: return n - x;
  }
}

class NoiseAndTarget : public DeviceTest {};

TEST_P(NoiseAndTarget, EqualsPlainAtenForEveryTypeDtypeAndOddSize) {
  const std::vector<std::vector<int64_t>> shapes = {
      {1, 1, 1, 1, 1}, {2, 2, 4, 8, 8}, {3, 2, 3, 5, 7}, {1, 4, 1, 1, 3}, {2, 1, 16, 33, 31}};
  for (const auto& shape : shapes) {
    const Scales scales = make_scales(shape[0], shape[1]);
    const at::Tensor streams = make_streams(shape[0]);
    const at::Tensor a = scales.signal.view({shape[0], shape[1], 1, 1, 1});
    const at::Tensor s = scales.noise.view({shape[0], shape[1], 1, 1, 1});
    const at::Tensor noise = group_noise(streams, kSeed, {shape[2], shape[3], shape[4]}, shape[1]);
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
      const at::Tensor latents = at::randn(shape).to(dtype);
      for (const PredictionType type : kTypes) {
        const NoisyLatents found = noise_and_target(latents.to(device()), streams, kSeed, scales.signal.to(device()),
                                                    scales.noise.to(device()), type);
        const at::Tensor x = latents.to(at::kFloat);
        EXPECT_EQ(found.noisy_latents.scalar_type(), dtype);
        EXPECT_EQ(found.target.scalar_type(), at::kFloat);
        EXPECT_TRUE(near(found.target, expected_target(type, x, noise, a, s), 1e-5)) << prediction_type_name(type);
        const double rounding = dtype == at::kFloat ? 1e-6 : dtype == at::kHalf ? 1e-3 : 8e-3;
        EXPECT_TRUE(near(found.noisy_latents, a * x + s * noise, rounding)) << c10::toString(dtype);
      }
    }
  }
}

TEST_P(NoiseAndTarget, NoiseIsPhiloxRandnOfTheGroupsKeyAndSharedByItsItems) {
  const at::Tensor noise = group_noise(make_streams(3).to(device()), kSeed, {3, 5, 7}, 4).cpu();
  for (int64_t group = 0; group < 3; ++group) {
    const DrawKey key{.seed = kSeed, .item = static_cast<uint64_t>(group), .draw = 3};
    const at::Tensor expected = philox_randn({3, 5, 7}, key, RandomPurpose::kNoise);
    for (int64_t item = 0; item < 4; ++item)
      EXPECT_TRUE(near(noise[group][item], expected, device().is_cpu() ? 0 : 1e-5));
  }
  EXPECT_GT((noise[0] - noise[1]).abs().max().item<float>(), 0.1f);
}

TEST_P(NoiseAndTarget, ReadsNonContiguousLatents) {
  const Scales scales = make_scales(2, 3);
  const at::Tensor latents = at::randn({3, 2, 6, 5, 4}).permute({1, 0, 4, 3, 2}).to(device());
  const auto call = [&](const at::Tensor& x) {
    return noise_and_target(x, make_streams(2), kSeed, scales.signal.to(device()), scales.noise.to(device()),
                            PredictionType::kVPrediction);
  };
  const NoisyLatents strided = call(latents);
  const NoisyLatents dense = call(latents.contiguous());
  EXPECT_TRUE(near(strided.noisy_latents, dense.noisy_latents, 0));
  EXPECT_TRUE(near(strided.target, dense.target, 0));
}

TEST_P(NoiseAndTarget, TakesAnEmptyBatch) {
  const at::Tensor scale = at::empty({0, 2}, at::device(device()));
  const NoisyLatents found = noise_and_target(at::empty({0, 2, 4, 8, 8}, at::device(device())), make_streams(0), kSeed,
                                              scale, scale, PredictionType::kEpsilon);
  EXPECT_EQ(found.noisy_latents.sizes(), at::IntArrayRef({0, 2, 4, 8, 8}));
  EXPECT_EQ(found.target.numel(), 0);
}

INSTANTIATE_TEST_SUITE_P(Devices, NoiseAndTarget, testing::Values("cpu", "cuda"), prefusion::tests::device_name);

TEST(NoiseAndTargetCpu, DoesNotDependOnTheNumberOfThreads) {
  const Scales scales = make_scales(3, 2);
  const at::Tensor latents = at::randn({3, 2, 4, 32, 33});
  const auto call = [&] {
    return noise_and_target(latents, make_streams(3), kSeed, scales.signal, scales.noise, PredictionType::kFlow);
  };
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const NoisyLatents one = call();
  at::set_num_threads(2);
  const NoisyLatents two = call();
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(one.noisy_latents, two.noisy_latents));
  EXPECT_TRUE(at::equal(one.target, two.target));
}

TEST(NoiseAndTargetCpu, NoiseIsStandardNormal) {
  const at::Tensor noise = group_noise(make_streams(4), kSeed, {4, 64, 64}, 1).flatten();
  EXPECT_NEAR(noise.mean().item<double>(), 0.0, 0.015);
  EXPECT_NEAR(noise.var().item<double>(), 1.0, 0.02);
  EXPECT_NEAR((noise.pow(4).mean()).item<double>(), 3.0, 0.12);
}

TEST(NoiseAndTargetCpu, RefusesArgumentsThatDoNotFit) {
  const Scales scales = make_scales(2, 2);
  const at::Tensor latents = at::randn({2, 2, 4, 3, 3});
  const auto call = [&](const at::Tensor& x, const at::Tensor& streams, const at::Tensor& scale) {
    noise_and_target(x, streams, kSeed, scale, scales.noise, PredictionType::kEpsilon);
  };
  EXPECT_THROW(call(latents[0], make_streams(2), scales.signal), Error);
  EXPECT_THROW(call(latents.to(at::kDouble), make_streams(2), scales.signal), Error);
  EXPECT_THROW(call(latents, make_streams(3), scales.signal), Error);
  EXPECT_THROW(call(latents, make_streams(2).to(at::kInt), scales.signal), Error);
  EXPECT_THROW(call(latents, make_streams(2), scales.signal[0]), Error);
  EXPECT_THROW(call(latents, make_streams(2), scales.signal.to(at::kDouble)), Error);
  EXPECT_THROW(call(latents.clone().requires_grad_(), make_streams(2), scales.signal), Error);
  EXPECT_NO_THROW(call(latents, make_streams(2), scales.signal));
}

}  // namespace
}  // namespace prefusion::kernels
