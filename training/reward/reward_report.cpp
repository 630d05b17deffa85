#include "training/reward/reward_report.h"

#include <cmath>
#include <cstdio>

namespace prefusion::training {

std::string reward_report_text(const Json& report) {
  const auto line = [](const std::string& name, const Json& quality) {
    const auto share = [&](const char* key) {
      const Json& interval = quality.at(key);
      if (!interval.at("value").is_number() || std::isnan(interval.at("value").get<double>())) return std::string("-");
      char text[64];
      std::snprintf(text, sizeof text, "%5.1f %% [%.1f, %.1f]", 100 * interval.at("value").get<double>(),
                    100 * interval.at("low").get<double>(), 100 * interval.at("high").get<double>());
      return std::string(text);
    };
    char text[320];
    std::snprintf(text, sizeof text, "%-20s %6lld  %-22s %-22s %-22s %.4f  %.4f\n", name.c_str(),
                  quality.at("pairs").get<long long>(), share("accuracy").c_str(), share("accuracy_per_prompt").c_str(),
                  share("accuracy_with_ties").c_str(), quality.at("calibrated_log_loss").get<double>(),
                  quality.at("calibrated_calibration_error").get<double>());
    return std::string(text);
  };
  char header[320];
  std::snprintf(header, sizeof header, "%-20s %6s  %-22s %-22s %-22s %s  %s\n", "", "pairs", "accuracy", "per prompt",
                "with ties", "log-loss", "ECE");
  std::string text = header;
  text += line("validation", report.at("validation"));
  if (report.contains("test")) {
    if (report.at("test_before").is_object()) text += line("test before", report.at("test_before"));
    for (const auto& [column, quality] : report.at("test").items()) text += line("test " + column, quality);
  }
  return text;
}

}  // namespace prefusion::training
