#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "data/segment_cache.h"

namespace arrow {
class RecordBatch;
}

namespace prefusion::data {

// A note on a whole Parquet file, by its key; empty without one. Input error when the file is no sound Parquet file.
std::string read_parquet_metadata(const std::filesystem::path& path, const std::string& key);

// A Parquet file read in two ways: its small columns once from front to back, and its large ones row by row with
// bounded memory. Row groups are cut into segments of about `segment_bytes`; segments are decoded with one forward
// cursor a row group and kept in a cache that several tables share.
class ParquetTable {
 public:
  // The parts of a leaf column's path: {"images", "list", "element", "rank"}.
  using LeafFilter = std::function<bool(const std::vector<std::string>& path)>;

  // Input error when the file is missing or no sound Parquet file.
  ParquetTable(std::filesystem::path path, std::shared_ptr<SegmentCache> cache, int64_t segment_bytes);
  ~ParquetTable();

  const std::filesystem::path& path() const { return path_; }
  int64_t num_rows() const;
  bool has_column(const std::string& name) const;
  std::vector<std::string> float_columns() const;  // the top-level columns of single or double precision
  std::string column_names() const;                // for messages

  // Visits the chosen leaf columns of all rows in order, in batches.
  void scan(const LeafFilter& wants, const std::function<void(int64_t first_row, const arrow::RecordBatch&)>& visit);

  // Chooses the columns that row() gives.
  void select(const LeafFilter& wants);

  struct Row {
    std::shared_ptr<arrow::RecordBatch> batch;
    int64_t row_in_batch = 0;
  };
  // Thread-safe. Input error when the row's part of the file cannot be decoded.
  Row row(int64_t row) const;

  struct Place {
    int row_group = 0;
    int64_t segment = 0;    // within the row group
    int64_t num_bytes = 0;  // decoded size of the segment, from the file's own statistics
  };
  Place place(int64_t row) const;

 private:
  struct State;
  std::shared_ptr<const Segment> load_segment(int row_group, int64_t segment) const;

  std::filesystem::path path_;
  std::shared_ptr<SegmentCache> cache_;
  std::unique_ptr<State> state_;
};

}  // namespace prefusion::data
