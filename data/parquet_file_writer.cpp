#include "data/parquet_file_writer.h"

#include <arrow/io/file.h>
#include <arrow/record_batch.h>
#include <arrow/type.h>
#include <arrow/util/key_value_metadata.h>
#include <parquet/arrow/writer.h>
#include <parquet/properties.h>

#include "core/atomic_file.h"
#include "data/arrow_status.h"

namespace prefusion::data {

struct ParquetFileWriter::State {
  State(const std::filesystem::path& path, const std::shared_ptr<arrow::Schema>& schema, int64_t max_rows,
        int64_t max_bytes, const std::map<std::string, std::string>& metadata)
      : file(path), max_rows(max_rows), max_bytes(max_bytes) {
    builder = take(arrow::RecordBatchBuilder::Make(schema, arrow::default_memory_pool()));
    output = take(arrow::io::FileOutputStream::Open(file.temporary_path().string()));
    // Encoded images do not compress, and repeat too rarely for a dictionary.
    const auto properties = parquet::WriterProperties::Builder().disable_dictionary()->build();
    writer = take(parquet::arrow::FileWriter::Open(*schema, arrow::default_memory_pool(), output, properties));
    if (metadata.empty()) return;
    const auto notes = std::make_shared<arrow::KeyValueMetadata>();
    for (const auto& [key, value] : metadata) notes->Append(key, value);
    check_status(writer->AddKeyValueMetadata(notes));
  }

  void flush() {
    if (rows_in_group == 0) return;
    const auto batch = take(builder->Flush());
    check_status(writer->NewBufferedRowGroup());
    check_status(writer->WriteRecordBatch(*batch));
    rows_in_group = 0;
    bytes_in_group = 0;
  }

  AtomicFile file;
  int64_t max_rows;
  int64_t max_bytes;
  int64_t num_rows = 0;
  int64_t rows_in_group = 0;
  int64_t bytes_in_group = 0;
  std::unique_ptr<arrow::RecordBatchBuilder> builder;
  std::shared_ptr<arrow::io::FileOutputStream> output;
  std::unique_ptr<parquet::arrow::FileWriter> writer;
};

ParquetFileWriter::ParquetFileWriter(const std::filesystem::path& path, const std::shared_ptr<arrow::Schema>& schema,
                                     int64_t max_rows, int64_t max_bytes,
                                     const std::map<std::string, std::string>& metadata)
    : state_(std::make_unique<State>(path, schema, max_rows, max_bytes, metadata)) {}

ParquetFileWriter::~ParquetFileWriter() = default;

arrow::RecordBatchBuilder& ParquetFileWriter::builder() {
  return *state_->builder;
}

void ParquetFileWriter::end_row(int64_t image_bytes) {
  ++state_->num_rows;
  state_->bytes_in_group += image_bytes;
  if (++state_->rows_in_group >= state_->max_rows || state_->bytes_in_group >= state_->max_bytes) state_->flush();
}

void ParquetFileWriter::finish() {
  state_->flush();
  check_status(state_->writer->Close());
  check_status(state_->output->Close());
  state_->file.commit();
}

int64_t ParquetFileWriter::num_rows() const {
  return state_->num_rows;
}

}  // namespace prefusion::data
