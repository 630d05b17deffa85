#pragma once

#include <filesystem>
#include <functional>
#include <vector>

#include "tools/score_file.h"
#include "tools/score_state.h"

namespace prefusion::tools {

// The growing output of a run. JSONL and CSV are appended to; Parquet cannot be, so that its rows gather in
// OUTPUT.journal.jsonl until the last one is there. An empty path is standard output, as JSONL.
class ScoreOutput {
 public:
  // Run error when the file cannot be written or another process writes it.
  ScoreOutput(const std::filesystem::path& path, const ScoreLayout& layout);
  ~ScoreOutput();
  ScoreOutput(const ScoreOutput&) = delete;
  ScoreOutput& operator=(const ScoreOutput&) = delete;

  // Begins anew.
  void start();
  // Goes on after the rows that are there: whole batches of `batch_size`, or all `total`; what is behind them is cut
  // off. Each is given to `visit` in order, which checks it. Returns their number.
  int64_t resume(int64_t batch_size, int64_t total, const std::function<void(const ScoreRow&)>& visit);

  // Appends rows in one write. Run error when the disk is full.
  void append(const std::vector<ScoreRow>& rows);
  // Makes the file durable, and of Parquet the file itself.
  void finish();
  void sync();

 private:
  bool is_csv() const { return format_ == ScoreFormat::kCsv; }
  void write(const std::string& text);

  std::filesystem::path path_;
  std::filesystem::path journal_;  // what is appended to
  ScoreFormat format_ = ScoreFormat::kJsonl;
  ScoreLayout layout_;
  int descriptor_ = -1;
};

// What a run appends to before it is finished; `output` itself but for Parquet.
std::filesystem::path score_journal_path(const std::filesystem::path& output);

}  // namespace prefusion::tools
