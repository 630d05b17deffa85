#include "tools/score_file.h"

#include <arrow/record_batch.h>

#include <algorithm>
#include <fstream>

#include "core/error.h"
#include "core/json_config.h"
#include "data/arrow_value.h"
#include "data/csv_reader.h"
#include "data/parquet_table.h"

namespace prefusion::tools {
namespace {

constexpr int64_t kSegmentBytes = int64_t{16} << 20;

class JsonlReader : public ScoreFileReader {
 public:
  JsonlReader(const std::filesystem::path& path, const ScoreLayout& layout)
      : path_(path), file_(path, std::ios::binary), layout_(layout) {
    check_input(std::filesystem::is_regular_file(path) && file_.good(), path.string(), ": cannot be opened");
  }

  bool next(ScoreRow& row) override {
    std::string line;
    if (!std::getline(file_, line)) return false;
    is_terminated_ = !file_.eof();
    ++number_;
    position_ += static_cast<int64_t>(line.size()) + (is_terminated_ ? 1 : 0);
    try {
      row = parse_jsonl_row(line, layout_);
    } catch (const Error& error) {
      if (!is_terminated_) return true;  // cut off: whoever asks was_terminated() does not want it
      fail_input(path_.string(), " line ", number_, ": ", error.what());
    }
    return true;
  }
  int64_t position() const override { return position_; }
  bool was_terminated() const override { return is_terminated_; }

 private:
  std::filesystem::path path_;
  std::ifstream file_;
  ScoreLayout layout_;
  int64_t position_ = 0;
  int64_t number_ = 0;
  bool is_terminated_ = true;
};

class CsvScoreReader : public ScoreFileReader {
 public:
  CsvScoreReader(const std::filesystem::path& path, const ScoreLayout& layout)
      : path_(path), reader_(path), layout_(layout) {
    if (!reader_.next(header_)) header_.clear();
  }

  bool next(ScoreRow& row) override {
    std::vector<std::string> fields;
    try {
      if (!reader_.next(fields)) return false;
    } catch (const Error&) {  // a quoted field that was cut off
      is_terminated_ = false;
      return true;
    }
    is_terminated_ = reader_.was_terminated();
    try {
      row = parse_csv_row(header_, fields, layout_);
    } catch (const Error& error) {
      if (!is_terminated_) return true;
      fail_input(path_.string(), " line ", reader_.line(), ": ", error.what());
    }
    return true;
  }
  int64_t position() const override { return reader_.position(); }
  bool was_terminated() const override { return is_terminated_; }

 private:
  std::filesystem::path path_;
  data::CsvReader reader_;
  ScoreLayout layout_;
  std::vector<std::string> header_;
  bool is_terminated_ = true;
};

class ParquetReader : public ScoreFileReader {
 public:
  ParquetReader(const std::filesystem::path& path, const ScoreLayout& layout)
      : table_(path, std::make_shared<data::SegmentCache>(2 * kSegmentBytes), kSegmentBytes), layout_(layout) {
    std::vector<std::string> wanted = {"image", "prompt"};
    wanted.insert(wanted.end(), layout.rewards.begin(), layout.rewards.end());
    for (const DetailColumn& detail : layout.details) wanted.push_back(detail.name);
    for (const std::string& name : wanted) {
      check_input(table_.has_column(name), path.string(), ": no column '", name, "', found: ", table_.column_names());
    }
  }

  bool next(ScoreRow& row) override {
    if (next_ >= table_.num_rows()) return false;
    const auto [batch, at] = table_.row(next_++);
    const auto text = [&, &batch = batch, at = at](const char* name) {
      const auto value = data::text_at(data::find_column(*batch, name), at);
      return value ? std::optional<std::string>(*value) : std::nullopt;
    };
    row = ScoreRow{.image = text("image").value_or(""), .prompt = text("prompt"), .error = text("error").value_or("")};
    for (const std::string& reward : layout_.rewards) {
      const auto value = data::number_at(data::find_column(*batch, reward), at);
      row.scores.push_back(value ? std::optional<float>(static_cast<float>(*value)) : std::nullopt);
    }
    for (const DetailColumn& detail : layout_.details) {
      const auto value = data::number_at(data::find_column(*batch, detail.name), at);
      row.details.push_back(value ? std::optional<int64_t>(static_cast<int64_t>(*value)) : std::nullopt);
    }
    return true;
  }

 private:
  data::ParquetTable table_;
  ScoreLayout layout_;
  int64_t next_ = 0;
};

std::vector<std::string> split_names(const std::string& text) {
  std::vector<std::string> names;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(", ", begin), text.size());
    names.push_back(text.substr(begin, end - begin));
    begin = end + 2;
  }
  return names;
}

}  // namespace

ScoreFormat score_format(const std::filesystem::path& path) {
  const std::string extension = path.extension().string();
  if (extension == ".jsonl") return ScoreFormat::kJsonl;
  if (extension == ".csv") return ScoreFormat::kCsv;
  check_usage(extension == ".parquet", path.string(), ": scores are kept as .jsonl, .csv or .parquet");
  return ScoreFormat::kParquet;
}

std::unique_ptr<ScoreFileReader> open_score_file(const std::filesystem::path& path, const ScoreLayout& layout) {
  return open_score_file(path, score_format(path), layout);
}

std::unique_ptr<ScoreFileReader> open_score_file(const std::filesystem::path& path, ScoreFormat format,
                                                 const ScoreLayout& layout) {
  if (format == ScoreFormat::kJsonl) return std::make_unique<JsonlReader>(path, layout);
  if (format == ScoreFormat::kCsv) return std::make_unique<CsvScoreReader>(path, layout);
  return std::make_unique<ParquetReader>(path, layout);
}

std::vector<std::string> score_file_columns(const std::filesystem::path& path) {
  const ScoreFormat format = score_format(path);
  std::vector<std::string> names;
  if (format == ScoreFormat::kParquet) {
    const data::ParquetTable table(path, std::make_shared<data::SegmentCache>(kSegmentBytes), kSegmentBytes);
    return split_names(table.column_names());
  }
  if (format == ScoreFormat::kCsv) {
    data::CsvReader(path).next(names);
    return names;
  }
  std::ifstream file(path, std::ios::binary);
  check_input(file.good() && !std::filesystem::is_directory(path), path.string(), ": cannot be opened");
  std::string line;
  if (!std::getline(file, line)) return names;
  const Json json = parse_json(line, path.string());
  check_input(json.is_object(), path.string(), ": the first row is no JSON object");
  for (const auto& [name, value] : json.items()) names.push_back(name);
  return names;
}

}  // namespace prefusion::tools
