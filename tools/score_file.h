#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "tools/score_row.h"

namespace prefusion::tools {

enum class ScoreFormat { kJsonl, kCsv, kParquet };

// By extension. Usage error for another than .jsonl, .csv and .parquet.
ScoreFormat score_format(const std::filesystem::path& path);

// Rows of a score file from front to back.
class ScoreFileReader {
 public:
  virtual ~ScoreFileReader() = default;
  // False at the end. Input error for a row that is broken or lacks a column.
  virtual bool next(ScoreRow& row) = 0;
  // Offset of the first byte behind the last row; -1 where the format has none.
  virtual int64_t position() const { return -1; }
  // Whether the last row had its line end; one without was cut off while it was written.
  virtual bool was_terminated() const { return true; }
};

// Input error when the file is missing or lacks a column of the layout.
std::unique_ptr<ScoreFileReader> open_score_file(const std::filesystem::path& path, const ScoreLayout& layout);
std::unique_ptr<ScoreFileReader> open_score_file(const std::filesystem::path& path, ScoreFormat format,
                                                 const ScoreLayout& layout);

// The names of all columns of a score file (of JSONL: of its first row).
std::vector<std::string> score_file_columns(const std::filesystem::path& path);

// Writes Parquet: image, prompt and error as text, scores as float, details as int64 or bool. The file appears, whole,
// with finish(); run error when the disk is full.
class ScoreParquetWriter {
 public:
  ScoreParquetWriter(const std::filesystem::path& path, const ScoreLayout& layout);
  ~ScoreParquetWriter();
  void add(const ScoreRow& row);
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace prefusion::tools
