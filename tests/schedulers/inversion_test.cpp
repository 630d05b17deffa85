#include "schedulers/inversion.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/json_config.h"
#include "core/rng.h"
#include "core/safetensors.h"
#include "schedulers/noise_schedule.h"
#include "tests/support/python_reference.h"
#include "tests/support/tensor_near.h"

namespace prefusion::schedulers {
namespace {

using tests::near;

constexpr const char* kStableDiffusion =
    R"({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1})";

SchedulerConfig config_of(const std::string& json) {
  return parse_scheduler_config(json, "test");
}

at::Tensor values(at::IntArrayRef shape, uint64_t item) {
  return philox_randn(shape, {.seed = 21, .item = item}, RandomPurpose::kOther);
}

at::Tensor longs(const std::vector<int64_t>& list) {
  return at::tensor(list, at::kLong);
}

// The reference script's stand-in for a network, with timesteps of their own for the items.
at::Tensor dummy_denoiser(const at::Tensor& sample, const at::Tensor& timesteps, at::IntArrayRef) {
  const at::Tensor scale = (0.002 * timesteps.to(at::kDouble) + 0.1).to(at::kFloat).reshape({-1, 1, 1, 1});
  return (0.7 * sample + 0.1 * sample.flip({3})).tanh() * 0.8 + 0.05 * scale.sin();
}

// Noise that depends on item and step alone.
at::Tensor keyed_noise(const at::Tensor& latents, at::IntArrayRef items, int64_t step) {
  std::vector<at::Tensor> rows;
  for (const int64_t item : items) {
    const DrawKey key{.seed = 4, .item = static_cast<uint64_t>(item), .draw = static_cast<uint64_t>(step)};
    rows.push_back(philox_randn(latents.sizes().slice(1), key, RandomPurpose::kNoise));
  }
  return at::stack(rows);
}

TEST(InversionReference, WholeWalksEqualDiffusers) {
  const std::filesystem::path folder = tests::run_reference_script("make_ddim_steps.py");
  const TensorMap tensors = read_safetensors(folder / "tensors.safetensors");
  const Json cases = read_json(folder / "cases.json")["inversions"];
  ASSERT_EQ(cases.size(), 3u);
  for (const Json& item : cases) {
    SCOPED_TRACE(item.dump());
    const std::string key = item["key"];
    const DdimInversion inversion(config_of(item["config"]), {.num_steps = item["steps"]});
    const at::Tensor timesteps = tensors.at(key + ".timesteps");
    ASSERT_TRUE(at::equal(longs(inversion.grid()), timesteps));
    // One item for every grid value the walk passes.
    const at::Tensor latents = tensors.at(key + ".latents").expand({timesteps.size(0), -1, -1, -1});
    const InvertedLatents found = inversion.invert(latents, timesteps, dummy_denoiser);
    EXPECT_TRUE(near(found.noisy_latents, tensors.at(key + ".inverted"), 1e-5));
  }
}

// On, between, below and above the grid 1, 101, ..., 901.
const std::vector<int64_t> kTimesteps = {0, 1, 437, 999};

TEST(Inversion, BatchOfDifferentTimestepsEqualsItemsAlone) {
  const at::Tensor latents = values({4, 4, 6, 5}, 0);
  for (const InversionOptions& options : {InversionOptions{}, InversionOptions{.eta = 0.1},
                                          InversionOptions{.renoise = true}, InversionOptions{.num_steps = 3}}) {
    const DdimInversion inversion(config_of(kStableDiffusion), options);
    const InvertedLatents all = inversion.invert(latents, longs(kTimesteps), dummy_denoiser, keyed_noise);
    for (int64_t i = 0; i < 4; ++i) {
      const auto shifted = [&](const at::Tensor& like, at::IntArrayRef, int64_t step) {
        return keyed_noise(like, {i}, step);
      };
      const InvertedLatents alone = inversion.invert(
          latents.narrow(0, i, 1), longs({kTimesteps[static_cast<size_t>(i)]}), dummy_denoiser, shifted);
      EXPECT_TRUE(at::equal(all.noisy_latents.narrow(0, i, 1), alone.noisy_latents));
      EXPECT_TRUE(at::equal(all.noise.narrow(0, i, 1), alone.noise));
    }
  }
}

TEST(Inversion, LandsOnTheTimestepItself) {
  // A denoiser that is sure of the noise leads to exactly that noise at exactly the asked level.
  const at::Tensor latents = values({4, 4, 3, 3}, 0);
  const at::Tensor sure = values({4, 4, 3, 3}, 1);
  const DdimInversion inversion(config_of(kStableDiffusion), {});
  const InvertedLatents found =
      inversion.invert(latents, longs(kTimesteps), [&](const at::Tensor&, const at::Tensor&, at::IntArrayRef items) {
        return sure.index_select(0, longs(items.vec()));
      });
  EXPECT_TRUE(near(found.noise, sure, 2e-4));  // 1 - abar_0 is 0.00085
  const NoiseSchedule schedule(config_of(kStableDiffusion));
  EXPECT_TRUE(near(found.noisy_latents, schedule.add_noise(latents, sure, longs(kTimesteps)), 1e-5));
  EXPECT_TRUE(near(found.noisy_latents, schedule.add_noise(latents, found.noise, longs(kTimesteps)), 1e-6));
}

TEST(Inversion, OfALinearDenoiserHasAClosedForm) {
  const DdimInversion inversion(config_of(kStableDiffusion), {});
  const double slope = 0.3;
  const at::Tensor latents = values({4, 1, 2, 2}, 0).to(at::kDouble);
  const InvertedLatents found = inversion.invert(
      latents, longs(kTimesteps), [&](const at::Tensor& x, const at::Tensor&, at::IntArrayRef) { return slope * x; });
  const at::Tensor alphas_cumprod = NoiseSchedule(config_of(kStableDiffusion)).alphas_cumprod().to(at::kDouble);
  for (size_t i = 0; i < kTimesteps.size(); ++i) {
    std::vector<int64_t> path;
    for (const int64_t value : inversion.grid()) {
      if (value < kTimesteps[i]) path.push_back(value);
    }
    path.push_back(kTimesteps[i]);
    double factor = 1, alpha = 1;
    for (const int64_t timestep : path) {
      const double next = alphas_cumprod[timestep].item<double>();
      factor *= std::sqrt(next / alpha) * (1 - slope * std::sqrt(1 - alpha)) + slope * std::sqrt(1 - next);
      alpha = next;
    }
    EXPECT_TRUE(near(found.noisy_latents[static_cast<int64_t>(i)], factor * latents[static_cast<int64_t>(i)], 1e-10));
  }
}

TEST(Inversion, CallsTheDenoiserOnlyForItemsOnTheirWay) {
  const DdimInversion inversion(config_of(kStableDiffusion), {});
  std::vector<std::vector<int64_t>> items, timesteps;
  inversion.invert(values({4, 1, 2, 2}, 0), longs({150, 1, 950, 0}),
                   [&](const at::Tensor& x, const at::Tensor& t, at::IntArrayRef rows) {
                     items.push_back(rows.vec());
                     timesteps.emplace_back(t.data_ptr<int64_t>(), t.data_ptr<int64_t>() + t.numel());
                     EXPECT_EQ(x.size(0), t.size(0));
                     return x;
                   });
  ASSERT_EQ(items.size(), 11u);
  EXPECT_EQ(items[0], (std::vector<int64_t>{0, 1, 2, 3}));
  EXPECT_EQ(timesteps[0], (std::vector<int64_t>{1, 1, 1, 0}));
  EXPECT_EQ(timesteps[1], (std::vector<int64_t>{101, 101}));
  EXPECT_EQ(timesteps[2], (std::vector<int64_t>{150, 201}));
  EXPECT_EQ(items[2], (std::vector<int64_t>{0, 2}));
  EXPECT_EQ(items[3], (std::vector<int64_t>{2}));
  EXPECT_EQ(timesteps[10], (std::vector<int64_t>{950}));
}

TEST(Inversion, RenoiseStepsWithTheMeanOfTwoPredictions) {
  const DdimInversion plain(config_of(kStableDiffusion), {.num_steps = 1});
  const DdimInversion renoise(config_of(kStableDiffusion), {.num_steps = 1, .renoise = true});
  const at::Tensor latents = values({1, 2, 3, 3}, 0);
  const at::Tensor timesteps = longs({1});  // one step of the grid 1
  const at::Tensor first = dummy_denoiser(latents, timesteps, {0});
  const at::Tensor reached = plain.invert(latents, timesteps, dummy_denoiser).noisy_latents;
  const at::Tensor second = dummy_denoiser(reached, timesteps, {0});
  EXPECT_FALSE(near(second, first, 1e-3));
  EXPECT_TRUE(near(renoise.invert(latents, timesteps, dummy_denoiser).noise, (first + second) / 2, 1e-4));
}

TEST(Inversion, RenoiseComesNearerToTheWayBack) {
  // What DDIM's step back from x_t arrives at: closer to the start with ReNoise.
  const at::Tensor latents = values({1, 4, 6, 5}, 0);
  const at::Tensor timesteps = longs({101});
  const NoiseSchedule schedule(config_of(kStableDiffusion));
  const auto way_back_error = [&](bool is_renoise) {
    const DdimInversion inversion(config_of(kStableDiffusion), {.num_steps = 10, .renoise = is_renoise});
    const at::Tensor noisy = inversion.invert(latents, timesteps, dummy_denoiser).noisy_latents;
    const at::Tensor noise = dummy_denoiser(noisy, timesteps, {0});
    const at::Tensor clean = (noisy - schedule.noise_scale(timesteps) * noise) / schedule.signal_scale(timesteps);
    return (clean - latents).square().mean().item<double>();
  };
  EXPECT_LT(way_back_error(true), 0.5 * way_back_error(false));
}

TEST(Inversion, ExtraNoiseKeepsTheLevel) {
  const at::Tensor latents = values({3, 4, 40, 40}, 0);
  const std::vector<int64_t> targets = {101, 437, 999};
  const DdimInversion inversion(config_of(kStableDiffusion), {.eta = 0.7});
  const NoiseSchedule schedule(config_of(kStableDiffusion));
  const at::Tensor start_noise = values({3, 4, 40, 40}, 1);
  // A denoiser that knows the clean latents, and which level the sample is still on.
  const auto perfect = [&](const at::Tensor& x, const at::Tensor& timesteps, at::IntArrayRef items) {
    const at::Tensor rows = longs(items.vec());
    const int64_t to = timesteps.max().item<int64_t>();
    int64_t from = -1;
    for (const int64_t value : inversion.grid()) from = value < to ? value : from;
    if (from < 0) return start_noise.index_select(0, rows);
    const at::Tensor at_from = at::full({1}, from, at::kLong);
    return (x - schedule.signal_scale(at_from) * latents.index_select(0, rows)) / schedule.noise_scale(at_from);
  };
  const InvertedLatents found = inversion.invert(latents, longs(targets), perfect, keyed_noise);
  for (int64_t i = 0; i < 3; ++i) {
    EXPECT_NEAR(found.noise[i].square().mean().item<double>(), 1.0, 0.05);
    EXPECT_GT(tests::relative_error(found.noise[i], start_noise[i]), i == 0 ? 0.01 : 0.2);
  }
}

TEST(Inversion, DoesNotDependOnWhatTheNetworkPredicts) {
  const at::Tensor latents = values({4, 4, 6, 5}, 0);
  const NoiseSchedule schedule(config_of(kStableDiffusion));
  const auto scales = [&](const at::Tensor& timesteps) {
    return std::pair(schedule.signal_scale(timesteps).reshape({-1, 1, 1, 1}),
                     schedule.noise_scale(timesteps).reshape({-1, 1, 1, 1}));
  };
  const auto clean = [&](const at::Tensor& x, const at::Tensor& timesteps, at::IntArrayRef items) {
    const auto [signal, deviation] = scales(timesteps);
    return (x - deviation * dummy_denoiser(x, timesteps, items)) / signal;
  };
  const auto velocity = [&](const at::Tensor& x, const at::Tensor& timesteps, at::IntArrayRef items) {
    const auto [signal, deviation] = scales(timesteps);
    return signal * dummy_denoiser(x, timesteps, items) - deviation * clean(x, timesteps, items);
  };
  const auto invert = [&](PredictionType type, const InversionDenoiser& denoiser) {
    SchedulerConfig config = config_of(kStableDiffusion);
    config.prediction_type = type;
    return DdimInversion(config, {.renoise = true}).invert(latents, longs(kTimesteps), denoiser).noisy_latents;
  };
  const at::Tensor expected = invert(PredictionType::kEpsilon, dummy_denoiser);
  EXPECT_TRUE(near(invert(PredictionType::kVPrediction, velocity), expected, 1e-4));
  EXPECT_TRUE(near(invert(PredictionType::kSample, clean), expected, 1e-4));
}

TEST(Inversion, GivesNoGradients) {
  const DdimInversion inversion(config_of(kStableDiffusion), {});
  const at::Tensor latents = values({1, 1, 2, 2}, 0).requires_grad_();
  const InvertedLatents found = inversion.invert(latents, longs({500}), dummy_denoiser);
  EXPECT_FALSE(found.noisy_latents.requires_grad());
  EXPECT_EQ(found.noise.scalar_type(), at::kFloat);
}

TEST(Inversion, RefusesWhatTheScheduleDoesNotHave) {
  const DdimInversion inversion(config_of(kStableDiffusion), {});
  const at::Tensor latents = values({1, 1, 2, 2}, 0);
  EXPECT_THROW(inversion.invert(latents, longs({1000}), dummy_denoiser), Error);
  EXPECT_THROW(inversion.invert(latents, longs({-1}), dummy_denoiser), Error);
  EXPECT_THROW(inversion.invert(latents, longs({1, 2}), dummy_denoiser), Error);
  EXPECT_THROW(DdimInversion(config_of(kStableDiffusion), {.eta = 1.5}), Error);
  EXPECT_THROW(DdimInversion(config_of(kStableDiffusion), {.num_steps = 0}), Error);
}

}  // namespace
}  // namespace prefusion::schedulers
