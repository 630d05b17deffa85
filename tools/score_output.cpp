#include "tools/score_output.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/atomic_file.h"
#include "core/error.h"

namespace prefusion::tools {

std::filesystem::path score_journal_path(const std::filesystem::path& output) {
  return score_format(output) == ScoreFormat::kParquet ? std::filesystem::path(output.string() + ".journal.jsonl")
                                                       : output;
}

ScoreOutput::ScoreOutput(const std::filesystem::path& path, const ScoreLayout& layout) : path_(path), layout_(layout) {
  if (path_.empty()) return;
  format_ = score_format(path_);
  journal_ = score_journal_path(path_);
  descriptor_ = ::open(journal_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  check_run(descriptor_ >= 0, journal_.string(), ": cannot be written (", std::strerror(errno), ")");
  check_run(::flock(descriptor_, LOCK_EX | LOCK_NB) == 0, journal_.string(), ": another process is writing it");
}

ScoreOutput::~ScoreOutput() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void ScoreOutput::write(const std::string& text) {
  const int descriptor = path_.empty() ? STDOUT_FILENO : descriptor_;
  const std::string name = path_.empty() ? "standard output" : journal_.string();
  for (size_t done = 0; done < text.size();) {
    const ssize_t written = ::write(descriptor, text.data() + done, text.size() - done);
    if (written < 0 && errno == EINTR) continue;
    check_run(written > 0, name, ": writing failed (", std::strerror(errno),
              path_.empty() ? ")" : "); --resume goes on once there is room");
    done += static_cast<size_t>(written);
  }
}

void ScoreOutput::start() {
  if (path_.empty()) return;
  check_run(::ftruncate(descriptor_, 0) == 0 && ::lseek(descriptor_, 0, SEEK_SET) == 0, journal_.string(),
            ": cannot be written (", std::strerror(errno), ")");
  if (is_csv()) write(csv_header(layout_));
}

int64_t ScoreOutput::resume(int64_t batch_size, int64_t total, const std::function<void(const ScoreRow&)>& visit) {
  const ScoreFormat format = is_csv() ? ScoreFormat::kCsv : ScoreFormat::kJsonl;
  const int64_t header_bytes = is_csv() ? static_cast<int64_t>(csv_header(layout_).size()) : 0;
  int64_t kept_bytes = header_bytes;
  int64_t num_rows = 0;
  if (static_cast<int64_t>(std::filesystem::file_size(journal_)) <= header_bytes) {
    start();
    return 0;
  }
  const auto reader = open_score_file(journal_, format, layout_);
  std::vector<ScoreRow> batch;
  for (ScoreRow row; num_rows < total && reader->next(row) && reader->was_terminated();) {
    batch.push_back(std::move(row));
    const int64_t rows_with_batch = num_rows + static_cast<int64_t>(batch.size());
    if (static_cast<int64_t>(batch.size()) < batch_size && rows_with_batch < total) continue;
    for (const ScoreRow& kept : batch) visit(kept);
    num_rows = rows_with_batch;
    kept_bytes = reader->position();
    batch.clear();
  }
  check_run(::ftruncate(descriptor_, kept_bytes) == 0 && ::lseek(descriptor_, 0, SEEK_END) == kept_bytes,
            journal_.string(), ": cannot be written (", std::strerror(errno), ")");
  return num_rows;
}

void ScoreOutput::append(const std::vector<ScoreRow>& rows) {
  std::string text;
  for (const ScoreRow& row : rows) text += is_csv() ? csv_line(row, layout_) : jsonl_line(row, layout_);
  write(text);
}

void ScoreOutput::sync() {
  if (path_.empty()) return;
  check_run(::fsync(descriptor_) == 0, journal_.string(), ": writing failed (", std::strerror(errno), ")");
}

void ScoreOutput::finish() {
  sync();
  if (path_.empty() || format_ != ScoreFormat::kParquet) return;
  ScoreParquetWriter writer(path_, layout_);
  const auto reader = open_score_file(journal_, ScoreFormat::kJsonl, layout_);
  for (ScoreRow row; reader->next(row);) writer.add(row);
  writer.finish();
}

}  // namespace prefusion::tools
