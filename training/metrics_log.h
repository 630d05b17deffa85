#pragma once

#include <cstdio>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace prefusion::training {

using Metrics = std::map<std::string, double>;

// metrics.jsonl: one JSON object a logged step, appended and flushed. Opening it to continue after step `resume_step`
// drops rows beyond that step (written after the checkpoint the run resumes from) and a torn last line.
class MetricsLog {
 public:
  MetricsLog(const std::filesystem::path& path, int64_t resume_step);
  ~MetricsLog();
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;

  // Non-finite values are written as null, which JSON can hold.
  void write(int64_t step, const Metrics& metrics);

 private:
  std::filesystem::path path_;
  FILE* file_ = nullptr;
};

// All rows of a metrics.jsonl; a torn last line is left out.
std::vector<Metrics> read_metrics(const std::filesystem::path& path);

}  // namespace prefusion::training
