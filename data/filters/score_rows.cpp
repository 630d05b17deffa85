#include "data/filters/score_rows.h"

#include <arrow/record_batch.h>
#include <arrow/type.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <set>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/json_config.h"
#include "data/arrow_value.h"
#include "data/json_rows.h"
#include "data/parquet_table.h"

namespace prefusion::data::filters {
namespace {

constexpr int64_t kSegmentBytes = int64_t{16} << 20;

void read_json_rows(const std::filesystem::path& path, const std::function<void(const ScoreRow&)>& visit) {
  JsonRows rows(path);
  rows.scan([&](int64_t number, std::string_view text) {
    const std::string where = rows.row_id(number);
    const Json json = parse_json(text, where);
    check_input(json.is_object() && json.contains("image") && json["image"].is_string(), where,
                ": a row of scores must name its picture under 'image', found ", json.dump().substr(0, 60));
    ScoreRow row{.image = json["image"].get<std::string>()};
    for (const auto& [key, value] : json.items()) {
      if (key == "prompt" && value.is_string()) row.prompt = value.get<std::string>();
      if (key == "error") row.has_error = value.is_string() && !value.get<std::string>().empty();
      if (value.is_number() && std::isfinite(value.get<double>())) row.scores[key] = value.get<double>();
    }
    visit(row);
  });
}

void read_csv_rows(const std::filesystem::path& path, const std::function<void(const ScoreRow&)>& visit) {
  const auto records = parse_csv(read_file(path), path.string());
  check_input(!records.empty(), path.string(), ": is empty; expected the names of the columns in its first line");
  const std::vector<std::string>& names = records.front();
  check_input(std::find(names.begin(), names.end(), "image") != names.end(), path.string(),
              ": no column 'image' in its first line");
  for (size_t i = 1; i < records.size(); ++i) {
    check_input(records[i].size() == names.size(), path.string(), ": record ", i, " has ", records[i].size(),
                " fields, expected ", names.size());
    ScoreRow row;
    for (size_t j = 0; j < names.size(); ++j) {
      const std::string& value = records[i][j];
      if (names[j] == "image") {
        row.image = value;
      } else if (names[j] == "prompt") {
        row.prompt = value;
      } else if (names[j] == "error") {
        row.has_error = !value.empty();
      } else {
        char* end = nullptr;
        const double number = std::strtod(value.c_str(), &end);
        if (!value.empty() && *end == '\0' && std::isfinite(number)) row.scores[names[j]] = number;
      }
    }
    visit(row);
  }
}

void read_parquet_rows(const std::filesystem::path& path, const std::function<void(const ScoreRow&)>& visit) {
  ParquetTable table(path, std::make_shared<SegmentCache>(kSegmentBytes), kSegmentBytes);
  check_input(table.has_column("image"), path.string(), ": no column 'image' (columns found: ", table.column_names(),
              ")");
  const auto all = [](const std::vector<std::string>&) { return true; };
  table.scan(all, [&](int64_t, const arrow::RecordBatch& batch) {
    std::set<std::string> numbers;
    for (const std::string& name : batch.schema()->field_names()) {
      if (name != "image" && name != "prompt" && name != "error") numbers.insert(name);
    }
    for (int64_t i = 0; i < batch.num_rows(); ++i) {
      ScoreRow row{.image = std::string(text_at(find_column(batch, "image"), i).value_or("")),
                   .scores = named_numbers_at(batch, numbers, i)};
      if (const auto prompt = text_at(find_column(batch, "prompt"), i)) row.prompt = *prompt;
      row.has_error = !text_at(find_column(batch, "error"), i).value_or("").empty();
      visit(row);
    }
  });
}

}  // namespace

std::vector<std::vector<std::string>> parse_csv(const std::string& text, const std::string& where) {
  std::vector<std::vector<std::string>> records;
  std::vector<std::string> record;
  std::string value;
  bool in_quotes = false;
  bool has_content = false;  // of the record
  const auto end_record = [&] {
    record.push_back(std::move(value));
    value.clear();
    if (has_content) records.push_back(std::move(record));
    record.clear();
    has_content = false;
  };
  for (size_t i = text.starts_with("\xEF\xBB\xBF") ? 3 : 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_quotes) {
      const bool is_doubled = c == '"' && i + 1 < text.size() && text[i + 1] == '"';
      if (c != '"' || is_doubled) value += c;
      if (is_doubled) ++i;
      if (c == '"' && !is_doubled) in_quotes = false;
    } else if (c == '"') {
      in_quotes = has_content = true;
    } else if (c == ',') {
      record.push_back(std::move(value));
      value.clear();
      has_content = true;
    } else if (c == '\n') {
      end_record();
    } else if (c != '\r') {
      value += c;
      has_content = true;
    }
  }
  check_input(!in_quotes, where, ": a quote is never closed");
  end_record();
  return records;
}

void read_score_rows(const std::filesystem::path& path, const std::function<void(const ScoreRow&)>& visit) {
  const std::string extension = path.extension().string();
  if (extension == ".jsonl" || extension == ".json") return read_json_rows(path, visit);
  if (extension == ".csv") return read_csv_rows(path, visit);
  check_input(extension == ".parquet", path.string(),
              ": unknown kind of score file; expected .jsonl, .csv or .parquet");
  read_parquet_rows(path, visit);
}

}  // namespace prefusion::data::filters
