#include "training/metrics_log.h"

#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/json_config.h"

namespace prefusion::training {
namespace {

// The lines of the log that are whole and belong to steps up to `last_step`.
std::string kept_lines(const std::filesystem::path& path, int64_t last_step) {
  std::ifstream file(path);
  std::string kept, line;
  while (std::getline(file, line)) {
    const Json row = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!row.is_object() || !row.contains("step") || !row["step"].is_number_integer()) continue;
    if (row["step"].get<int64_t>() <= last_step) kept += line + "\n";
  }
  return kept;
}

}  // namespace

MetricsLog::MetricsLog(const std::filesystem::path& path, int64_t resume_step) : path_(path) {
  write_file(path, resume_step > 0 && std::filesystem::exists(path) ? kept_lines(path, resume_step) : std::string());
  file_ = std::fopen(path.c_str(), "a");
  check_run(file_ != nullptr, path.string(), ": cannot be written (", std::strerror(errno), ")");
}

MetricsLog::~MetricsLog() {
  if (file_) std::fclose(file_);
}

void MetricsLog::write(int64_t step, const Metrics& metrics) {
  nlohmann::ordered_json row;
  row["step"] = step;
  for (const auto& [name, value] : metrics) {
    if (std::isfinite(value)) {
      row[name] = value;
    } else {
      row[name] = nullptr;
    }
  }
  const std::string line = row.dump() + "\n";
  const bool written = std::fwrite(line.data(), 1, line.size(), file_) == line.size() && std::fflush(file_) == 0;
  check_run(written, path_.string(), ": writing failed (", std::strerror(errno), ")");
}

std::vector<Metrics> read_metrics(const std::filesystem::path& path) {
  std::ifstream file(path);
  check_input(file.good(), path.string(), ": cannot be opened");
  std::vector<Metrics> rows;
  std::string line;
  while (std::getline(file, line)) {
    const Json row = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!row.is_object()) continue;
    Metrics metrics;
    for (const auto& [name, value] : row.items()) {
      if (value.is_number()) metrics[name] = value.get<double>();
    }
    rows.push_back(std::move(metrics));
  }
  return rows;
}

}  // namespace prefusion::training
