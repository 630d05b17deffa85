#include "losses/timestep_weights.h"

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include <cmath>
#include <functional>

#include "core/error.h"

namespace prefusion::losses {
namespace {

using Formula = std::function<double(double snr)>;

void expect_formula(const char* name, PredictionType type, const Formula& formula, double gamma = 5) {
  for (const double snr : {1e-4, 0.3, 1.0, 4.9, 5.1, 80.0, 2e4}) {
    const double found = timestep_weight(name, at::full({1}, snr, at::kDouble), type, gamma).item<double>();
    EXPECT_NEAR(found, formula(snr), 1e-12 * formula(snr)) << name << " " << prediction_type_name(type) << " " << snr;
  }
}

constexpr double kPi = 3.14159265358979323846;

// Flow models: t from snr = ((1 - t) / t)^2.
double flow_time(double snr) {
  return 1 / (1 + std::sqrt(snr));
}

TEST(TimestepWeight, MinSnrCapsTheSignalToNoiseRatio) {
  using enum PredictionType;
  expect_formula("min-snr", kEpsilon, [](double snr) { return std::min(snr, 5.0) / snr; });
  expect_formula("min-snr", kVPrediction, [](double snr) { return std::min(snr, 5.0) / (snr + 1); });
  expect_formula("min-snr", kSample, [](double snr) { return std::min(snr, 5.0); });
  expect_formula("min-snr", kFlow,
                 [](double snr) { return std::min(snr, 5.0) / snr * std::pow(1 - flow_time(snr), 2); });
  expect_formula(
      "min-snr", kEpsilon, [](double snr) { return std::min(snr, 2.0) / snr; }, /*gamma=*/2);
}

TEST(TimestepWeight, DebiasedIsThatOfSdScripts) {
  using enum PredictionType;
  expect_formula("debiased", kEpsilon, [](double snr) { return 1 / std::sqrt(std::min(snr, 1000.0)); });
  expect_formula("debiased", kVPrediction, [](double snr) { return 1 / (std::min(snr, 1000.0) + 1); });
}

TEST(TimestepWeight, LikeEpsilonTurnsErrorsIntoThoseOfTheNoise) {
  // A prediction that is off by d everywhere in x0 is off by d * sqrt(snr) in the noise.
  using enum PredictionType;
  expect_formula("like-epsilon", kEpsilon, [](double) { return 1; });
  expect_formula("like-epsilon", kSample, [](double snr) { return snr; });
  expect_formula("like-epsilon", kVPrediction, [](double snr) { return snr / (snr + 1); });
  expect_formula("like-epsilon", kFlow, [](double snr) { return std::pow(1 - flow_time(snr), 2); });
}

TEST(TimestepWeight, FlowWeightsAreFunctionsOfSigma) {
  for (const PredictionType type : {PredictionType::kFlow, PredictionType::kEpsilon}) {
    expect_formula("sigma-sqrt", type, [](double snr) { return 1 / std::pow(flow_time(snr), 2); });
    expect_formula("cosmap", type, [](double snr) {
      const double sigma = flow_time(snr);
      return 2 / (kPi * (1 - 2 * sigma + 2 * sigma * sigma));
    });
  }
  expect_formula("none", PredictionType::kFlow, [](double) { return 1; });
}

TEST(TimestepWeight, StaysFiniteWithoutAnySignal) {
  const at::Tensor snr = at::zeros({3}, at::kFloat);
  for (const auto& name : timestep_weight_names()) {
    const at::Tensor weight = timestep_weight(name, snr, PredictionType::kVPrediction);
    EXPECT_EQ(weight.scalar_type(), at::kFloat);
    EXPECT_EQ(weight.sizes(), snr.sizes());
    EXPECT_TRUE(weight.isfinite().all().item<bool>()) << name;
    EXPECT_TRUE(timestep_weight(name, snr, PredictionType::kEpsilon).isfinite().all().item<bool>()) << name;
  }
}

TEST(TimestepWeight, RefusesUnknownNamesAndTypesWithoutAFormula) {
  const auto message = [](const char* name, PredictionType type) -> std::string {
    try {
      check_timestep_weight(name, type);
    } catch (const Error& error) {
      EXPECT_EQ(error.error_class(), ErrorClass::kUsage);
      return error.what();
    }
    return "";
  };
  EXPECT_NE(message("min_snr", PredictionType::kEpsilon).find("did you mean 'min-snr'"), std::string::npos);
  EXPECT_NE(message("debiased", PredictionType::kFlow).find("not defined for"), std::string::npos);
  EXPECT_EQ(message("min-snr", PredictionType::kFlow), "");
}

}  // namespace
}  // namespace prefusion::losses
