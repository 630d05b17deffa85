#include "training/implicit_preference.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "core/atomic_file.h"
#include "images/image_encode.h"
#include "tests/support/temp_dir.h"

namespace prefusion::training {
namespace {

namespace fs = std::filesystem;

const fs::path kModel = fs::path(PREFUSION_ASSETS) / "shapes";

std::shared_ptr<unet::Denoiser> bundled_denoiser() {
  return unet::load_denoiser(kModel / "unet", at::kFloat, at::kCPU);
}

// Predicts zero whatever it is asked: the same error on both pictures of a pair, which share their noise.
std::shared_ptr<unet::Denoiser> silent_denoiser() {
  auto denoiser = bundled_denoiser();
  at::NoGradGuard no_grad;
  for (auto& parameter : denoiser->named_parameters()) {
    if (parameter.key().starts_with("conv_out")) parameter.value().zero_();
  }
  return denoiser;
}

// Pairs whose chosen picture is plain, which the bundled model predicts well, and whose rejected one is noise.
fs::path plain_over_noise(const tests::TempDir& folder) {
  for (const char* name : {"chosen", "rejected"}) fs::create_directories(folder / name);
  for (int i = 0; i < 3; ++i) {
    const std::string stem = std::to_string(i);
    const auto plain = at::full({64, 64, 3}, 200 + 10 * i, at::kByte);
    const auto noise = at::randint(0, 256, {64, 64, 3}, at::kByte);
    write_file(folder / "chosen" / (stem + ".png"), images::encode_png(plain));
    write_file(folder / "rejected" / (stem + ".png"), images::encode_png(noise));
    write_file(folder / "chosen" / (stem + ".txt"), "a red circle");
  }
  return folder.path();
}

TEST(ImplicitPreference, AgreesWithLabelsWhereTheModelIsBetterAtTheChosen) {
  at::manual_seed(0);
  const tests::TempDir folder;
  const PreferencePairsOptions options{.data = plain_over_noise(folder), .num_timesteps = 4, .batch_size = 2};
  const auto able = bundled_denoiser(), silent = silent_denoiser();
  const ImplicitPreferenceTest against_silent(options, kModel, silent, /*seed=*/1, at::kFloat, at::kCPU);
  const ImplicitPreference better = against_silent.measure(*able);
  EXPECT_EQ(better.num_pairs, 3);
  EXPECT_EQ(better.accuracy.value, 1.0);
  EXPECT_GT(better.margin.low, 0);

  // Model and baseline exchanged: the same margin with the other sign.
  const ImplicitPreferenceTest against_able(options, kModel, able, /*seed=*/1, at::kFloat, at::kCPU);
  const ImplicitPreference worse = against_able.measure(*silent);
  EXPECT_EQ(worse.accuracy.value, 0.0);
  EXPECT_NEAR(worse.margin.value, -better.margin.value, 1e-9);
}

}  // namespace
}  // namespace prefusion::training
