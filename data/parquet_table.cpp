#include "data/parquet_table.h"

#include <arrow/io/file.h>
#include <arrow/record_batch.h>
#include <arrow/util/byte_size.h>
#include <arrow/util/key_value_metadata.h>
#include <parquet/arrow/reader.h>
#include <parquet/file_reader.h>
#include <parquet/metadata.h>
#include <parquet/properties.h>
#include <parquet/schema.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <set>

#include "core/error.h"

namespace prefusion::data {
namespace {

constexpr int64_t kScanRows = 8192;
constexpr size_t kMaxCursors = 12;  // open row groups; a shuffle window reads eight side by side

// Arrow reports by status, the layer below it by exception: both become one input error with the file's name.
template <typename Action>
auto with_path(const std::filesystem::path& path, const Action& action) {
  try {
    return action();
  } catch (const Error& error) {
    throw Error(error.error_class(), concat(path.string(), ": ", error.what()));
  } catch (const std::exception& error) {
    std::string text = error.what();
    std::replace(text.begin(), text.end(), '\n', ' ');
    fail_input(path.string(), ": not a sound Parquet file (", text, ")");
  }
}

void check_status(const arrow::Status& status) {
  if (status.ok()) return;
  check_run(!status.IsOutOfMemory(), "out of memory while reading: ", status.message());
  throw std::runtime_error(status.ToString());
}

template <typename Value>
Value take(arrow::Result<Value> result) {
  check_status(result.status());
  return result.MoveValueUnsafe();
}

}  // namespace

struct ParquetTable::State {
  // A forward reader of one row group and the segment it gives next.
  struct Cursor {
    std::unique_ptr<arrow::RecordBatchReader> reader;
    int64_t next_segment = 0;
    std::shared_ptr<arrow::RecordBatch> rest;  // rows already decoded for the next segment
    uint64_t last_use = 0;
  };

  std::unique_ptr<parquet::arrow::FileReader> reader;
  std::vector<int64_t> first_rows;    // of each row group, and num_rows at the end
  std::vector<int64_t> segment_rows;  // rows of a segment in each row group
  std::vector<int64_t> row_bytes;     // mean decoded bytes of a row in each row group
  std::vector<std::vector<std::string>> leaves;
  std::vector<int> selected;
  int64_t segment_bytes = 0;
  std::mutex mutex;  // guards the reader and the cursors
  std::map<int, Cursor> cursors;
  uint64_t uses = 0;

  std::vector<int> select(const LeafFilter& wants) const {
    std::vector<int> indices;
    for (size_t i = 0; i < leaves.size(); ++i) {
      if (wants(leaves[i])) indices.push_back(static_cast<int>(i));
    }
    return indices;
  }

  int64_t rows_in(int row_group) const { return first_rows[row_group + 1] - first_rows[row_group]; }

  void measure(const std::vector<int>& columns);
  Cursor& cursor_at(int row_group, int64_t segment);
  Segment next_segment(Cursor& cursor, int64_t num_rows);
};

// Cuts the row groups into segments by the size of the chosen columns.
void ParquetTable::State::measure(const std::vector<int>& columns) {
  const auto metadata = reader->parquet_reader()->metadata();
  segment_rows.clear();
  row_bytes.clear();
  for (int group = 0; group < metadata->num_row_groups(); ++group) {
    int64_t bytes = 0;
    for (const int column : columns) {
      bytes += std::max<int64_t>(0, metadata->RowGroup(group)->ColumnChunk(column)->total_uncompressed_size());
    }
    const int64_t rows = std::max<int64_t>(1, rows_in(group));
    row_bytes.push_back(std::max<int64_t>(1, bytes / rows));
    segment_rows.push_back(std::clamp<int64_t>(segment_bytes / row_bytes.back(), 1, rows));
  }
}

// A cursor of the row group at or before the segment; one that is past it starts again.
ParquetTable::State::Cursor& ParquetTable::State::cursor_at(int row_group, int64_t segment) {
  auto found = cursors.find(row_group);
  if (found != cursors.end() && found->second.next_segment > segment) {
    cursors.erase(found);
    found = cursors.end();
  }
  if (found == cursors.end()) {
    if (cursors.size() >= kMaxCursors) {
      cursors.erase(std::min_element(cursors.begin(), cursors.end(), [](const auto& a, const auto& b) {
        return a.second.last_use < b.second.last_use;
      }));
    }
    reader->set_batch_size(segment_rows[row_group]);
    found =
        cursors.emplace(row_group, Cursor{.reader = take(reader->GetRecordBatchReader({row_group}, selected))}).first;
  }
  found->second.last_use = ++uses;
  return found->second;
}

Segment ParquetTable::State::next_segment(Cursor& cursor, int64_t num_rows) {
  Segment segment;
  while (num_rows > 0) {
    std::shared_ptr<arrow::RecordBatch> batch = std::exchange(cursor.rest, nullptr);
    if (!batch) check_status(cursor.reader->ReadNext(&batch));
    if (!batch) throw std::runtime_error("a row group holds fewer rows than it says");
    if (batch->num_rows() > num_rows) {
      cursor.rest = batch->Slice(num_rows);
      batch = batch->Slice(0, num_rows);
    }
    num_rows -= batch->num_rows();
    segment.num_bytes += arrow::util::TotalBufferSize(*batch);
    if (batch->num_rows() > 0) segment.batches.push_back(std::move(batch));
  }
  ++cursor.next_segment;
  return segment;
}

ParquetTable::ParquetTable(std::filesystem::path path, std::shared_ptr<SegmentCache> cache, int64_t segment_bytes)
    : path_(std::move(path)), cache_(std::move(cache)), state_(std::make_unique<State>()) {
  std::error_code error;
  check_input(std::filesystem::is_regular_file(path_, error), path_.string(), ": no such file");
  with_path(path_, [&] {
    parquet::ReaderProperties properties;
    properties.enable_buffered_stream();  // a column chunk is read page by page, never as a whole
    properties.set_buffer_size(int64_t{1} << 18);
    parquet::ArrowReaderProperties arrow_properties(/*use_threads=*/false);
    arrow_properties.set_pre_buffer(false);
    parquet::arrow::FileReaderBuilder builder;
    check_status(builder.Open(take(arrow::io::ReadableFile::Open(path_.string())), properties));
    builder.properties(arrow_properties);
    state_->reader = take(builder.Build());
    const auto metadata = state_->reader->parquet_reader()->metadata();
    state_->segment_bytes = segment_bytes;
    state_->first_rows.push_back(0);
    for (int group = 0; group < metadata->num_row_groups(); ++group) {
      const int64_t rows = metadata->RowGroup(group)->num_rows();
      check_input(rows >= 0, "row group ", group, " says it has ", rows, " rows");
      state_->first_rows.push_back(state_->first_rows.back() + rows);
    }
    for (int leaf = 0; leaf < metadata->num_columns(); ++leaf) {
      state_->leaves.push_back(metadata->schema()->Column(leaf)->path()->ToDotVector());
    }
    select([](const auto&) { return true; });
  });
}

ParquetTable::~ParquetTable() = default;

int64_t ParquetTable::num_rows() const {
  return state_->first_rows.back();
}

bool ParquetTable::has_column(const std::string& name) const {
  return std::any_of(state_->leaves.begin(), state_->leaves.end(),
                     [&](const auto& leaf) { return leaf.front() == name; });
}

std::vector<std::string> ParquetTable::float_columns() const {
  const auto* schema = state_->reader->parquet_reader()->metadata()->schema();
  std::vector<std::string> names;
  for (size_t i = 0; i < state_->leaves.size(); ++i) {
    const auto type = schema->Column(static_cast<int>(i))->physical_type();
    const bool is_float = type == parquet::Type::FLOAT || type == parquet::Type::DOUBLE;
    if (is_float && state_->leaves[i].size() == 1) names.push_back(state_->leaves[i].front());
  }
  return names;
}

std::string ParquetTable::column_names() const {
  std::string names;
  std::set<std::string> seen;
  for (const auto& leaf : state_->leaves) {
    if (seen.insert(leaf.front()).second) names += (names.empty() ? "" : ", ") + leaf.front();
  }
  return names;
}

void ParquetTable::scan(const LeafFilter& wants,
                        const std::function<void(int64_t first_row, const arrow::RecordBatch&)>& visit) {
  with_path(path_, [&] {
    state_->reader->set_batch_size(kScanRows);
    int64_t row = 0;
    const std::vector<int> columns = state_->select(wants);
    for (int group = 0; group + 1 < static_cast<int>(state_->first_rows.size()); ++group) {
      if (state_->rows_in(group) == 0) continue;
      auto batches = take(state_->reader->GetRecordBatchReader({group}, columns));
      for (std::shared_ptr<arrow::RecordBatch> batch;;) {
        check_status(batches->ReadNext(&batch));
        if (!batch) break;
        visit(row, *batch);
        row += batch->num_rows();
      }
    }
    check_input(row == num_rows(), "the file says it has ", num_rows(), " rows, ", row, " were found");
  });
}

void ParquetTable::select(const LeafFilter& wants) {
  const std::lock_guard lock(state_->mutex);
  state_->selected = state_->select(wants);
  state_->cursors.clear();
  state_->measure(state_->selected);
}

ParquetTable::Place ParquetTable::place(int64_t row) const {
  const auto& first_rows = state_->first_rows;
  check_input(row >= 0 && row < num_rows(), path_.string(), ": row ", row, " of ", num_rows(), " does not exist");
  const int group =
      static_cast<int>(std::upper_bound(first_rows.begin(), first_rows.end(), row) - first_rows.begin()) - 1;
  const int64_t rows = state_->segment_rows[group];
  return Place{
      .row_group = group, .segment = (row - first_rows[group]) / rows, .num_bytes = rows * state_->row_bytes[group]};
}

std::shared_ptr<const Segment> ParquetTable::load_segment(int row_group, int64_t segment) const {
  const SegmentCache::Key key{.table = this, .row_group = row_group, .segment = segment};
  if (auto found = cache_->find(key)) return found;
  const std::lock_guard lock(state_->mutex);
  if (auto found = cache_->find(key)) return found;  // another thread loaded it meanwhile
  const int64_t rows = state_->segment_rows[row_group];
  const int64_t rows_in_group = state_->rows_in(row_group);
  try {
    auto& cursor = state_->cursor_at(row_group, segment);
    std::shared_ptr<Segment> loaded;
    while (cursor.next_segment <= segment) {
      const int64_t begin = cursor.next_segment * rows;
      loaded = std::make_shared<Segment>(state_->next_segment(cursor, std::min(rows, rows_in_group - begin)));
    }
    if ((segment + 1) * rows >= rows_in_group) state_->cursors.erase(row_group);
    cache_->insert(key, loaded);
    return loaded;
  } catch (...) {
    state_->cursors.erase(row_group);  // its position is unknown now
    throw;
  }
}

ParquetTable::Row ParquetTable::row(int64_t row) const {
  return with_path(path_, [&] {
    const Place at = place(row);
    const auto segment = load_segment(at.row_group, at.segment);
    int64_t offset = (row - state_->first_rows[at.row_group]) % state_->segment_rows[at.row_group];
    for (const auto& batch : segment->batches) {
      if (offset < batch->num_rows()) return Row{.batch = batch, .row_in_batch = offset};
      offset -= batch->num_rows();
    }
    throw std::runtime_error("a row group holds fewer rows than it says");
  });
}

std::string read_parquet_metadata(const std::filesystem::path& path, const std::string& key) {
  return with_path(path, [&]() -> std::string {
    const auto file = take(arrow::io::ReadableFile::Open(path.string()));
    const auto notes = parquet::ParquetFileReader::Open(file)->metadata()->key_value_metadata();
    if (!notes) return "";
    const auto value = notes->Get(key);
    return value.ok() ? *value : "";
  });
}

}  // namespace prefusion::data
