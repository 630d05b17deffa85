#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>

namespace arrow {
class RecordBatchBuilder;
class Schema;
}  // namespace arrow

namespace prefusion::data {

// A Parquet file of any schema, written row group by row group; it appears, whole, with finish(). Memory holds one row
// group. Run error when the disk is full; destroyed without finish() it leaves nothing.
class ParquetFileWriter {
 public:
  // A row group ends after `max_rows` rows or about `max_bytes` bytes of images. `metadata` are notes on the whole file
  // (read_parquet_metadata).
  ParquetFileWriter(const std::filesystem::path& path, const std::shared_ptr<arrow::Schema>& schema, int64_t max_rows,
                    int64_t max_bytes, const std::map<std::string, std::string>& metadata = {});
  ~ParquetFileWriter();

  // Takes a row field by field; then end_row().
  arrow::RecordBatchBuilder& builder();
  void end_row(int64_t image_bytes);
  void finish();
  int64_t num_rows() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace prefusion::data
