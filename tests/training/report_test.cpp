#include "training/report.h"

#include <gtest/gtest.h>

namespace prefusion::training {
namespace {

bool contains(const std::string& html, const std::string& part) {
  return html.find(part) != std::string::npos;
}

TEST(Report, PlotsTheDiagnosticsThatWereMeasured) {
  std::vector<Metrics> rows;
  for (int step = 0; step < 3; ++step) {
    rows.push_back({{"step", step},
                    {"loss", 0.7},
                    {"gradient_factor", 0.5},
                    {"eval/drift_chosen", 0.01 * step},
                    {"eval/drift_chosen_band0", 0.01},
                    {"eval/drift_chosen_band1", 0.02},
                    {"eval/ece", 0.1}});
  }
  const std::string html = metrics_charts(rows);
  for (const char* title : {"Drift from the start", "Drift of the chosen pictures by timestep", "Calibration error",
                            "Gradient factor", "band 0, least noise", "band 1, most noise"}) {
    EXPECT_TRUE(contains(html, title)) << title;
  }
  for (const char* title : {"Drift of the rejected pictures by timestep", "Ranking accuracy", "Preference accuracy"}) {
    EXPECT_FALSE(contains(html, title)) << title;
  }
}

TEST(Report, SaysWhichAlarmRangWhen) {
  const std::vector<Metrics> rows = {{{"step", 10}, {"eval/alarm", 0}, {"eval/alarm_displacement", 1}},
                                     {{"step", 20}, {"eval/alarm", 1}, {"eval/alarm_displacement", 1}}};
  const std::string html = metrics_charts(rows);
  EXPECT_TRUE(contains(html, "Over-optimisation alarm at step 20<"));
  EXPECT_TRUE(contains(html, "Likelihood displacement alarm at step 10, 20<"));
}

}  // namespace
}  // namespace prefusion::training
