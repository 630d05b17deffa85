#include <arrow/array/builder_binary.h>
#include <arrow/array/builder_primitive.h>
#include <arrow/io/file.h>
#include <arrow/record_batch.h>
#include <arrow/table_builder.h>
#include <arrow/type.h>
#include <parquet/arrow/writer.h>

#include "core/atomic_file.h"
#include "core/error.h"
#include "tools/score_file.h"

namespace prefusion::tools {
namespace {

constexpr int64_t kRowsInGroup = 65536;

void check_status(const arrow::Status& status) {
  check_run(status.ok(), "writing Parquet failed: ", status.message());
}

template <typename Value>
Value take(arrow::Result<Value> result) {
  check_status(result.status());
  return result.MoveValueUnsafe();
}

std::shared_ptr<arrow::Schema> schema_of(const ScoreLayout& layout) {
  arrow::FieldVector fields = {arrow::field("image", arrow::utf8()), arrow::field("prompt", arrow::utf8())};
  for (const std::string& reward : layout.rewards) fields.push_back(arrow::field(reward, arrow::float32()));
  for (const DetailColumn& detail : layout.details) {
    fields.push_back(arrow::field(detail.name, detail.is_flag ? arrow::boolean() : arrow::int64()));
  }
  fields.push_back(arrow::field("error", arrow::utf8()));
  return arrow::schema(fields);
}

template <typename Builder, typename Value>
void append(arrow::RecordBatchBuilder& builder, size_t index, const std::optional<Value>& value) {
  auto& column = *builder.GetFieldAs<Builder>(static_cast<int>(index));
  check_status(value ? column.Append(*value) : column.AppendNull());
}

}  // namespace

struct ScoreParquetWriter::State {
  State(const std::filesystem::path& path, const ScoreLayout& layout) : file(path), layout(layout) {
    const auto schema = schema_of(layout);
    builder = take(arrow::RecordBatchBuilder::Make(schema, arrow::default_memory_pool()));
    output = take(arrow::io::FileOutputStream::Open(file.temporary_path().string()));
    writer = take(parquet::arrow::FileWriter::Open(*schema, arrow::default_memory_pool(), output));
  }

  void flush() {
    if (rows == 0) return;
    const auto batch = take(builder->Flush());
    check_status(writer->NewBufferedRowGroup());
    check_status(writer->WriteRecordBatch(*batch));
    rows = 0;
  }

  AtomicFile file;
  ScoreLayout layout;
  int64_t rows = 0;
  std::unique_ptr<arrow::RecordBatchBuilder> builder;
  std::shared_ptr<arrow::io::FileOutputStream> output;
  std::unique_ptr<parquet::arrow::FileWriter> writer;
};

ScoreParquetWriter::ScoreParquetWriter(const std::filesystem::path& path, const ScoreLayout& layout)
    : state_(std::make_unique<State>(path, layout)) {}

ScoreParquetWriter::~ScoreParquetWriter() = default;

void ScoreParquetWriter::add(const ScoreRow& row) {
  arrow::RecordBatchBuilder& builder = *state_->builder;
  const std::optional<std::string> prompt =
      row.prompt ? std::optional<std::string>(valid_text(*row.prompt)) : std::nullopt;
  const std::optional<std::string> error =
      row.error.empty() ? std::nullopt : std::optional<std::string>(valid_text(row.error));
  size_t column = 0;
  append<arrow::StringBuilder>(builder, column++, std::optional<std::string>(valid_text(row.image)));
  append<arrow::StringBuilder>(builder, column++, prompt);
  for (const auto& score : row.scores) append<arrow::FloatBuilder>(builder, column++, score);
  for (size_t i = 0; i < row.details.size(); ++i) {
    if (state_->layout.details[i].is_flag) {
      const auto& flag = row.details[i];
      append<arrow::BooleanBuilder>(builder, column++, flag ? std::optional<bool>(*flag != 0) : std::nullopt);
    } else {
      append<arrow::Int64Builder>(builder, column++, row.details[i]);
    }
  }
  append<arrow::StringBuilder>(builder, column++, error);
  if (++state_->rows == kRowsInGroup) state_->flush();
}

void ScoreParquetWriter::finish() {
  state_->flush();
  check_status(state_->writer->Close());
  check_status(state_->output->Close());
  state_->file.commit();
}

}  // namespace prefusion::tools
