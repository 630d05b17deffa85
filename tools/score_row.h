#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace prefusion::tools {

// A column of --details.
struct DetailColumn {
  std::string name;
  bool is_flag = false;  // true or false instead of a number
};

// What a score file's rows hold besides image, prompt and error.
struct ScoreLayout {
  std::vector<std::string> rewards;
  std::vector<DetailColumn> details;
};

// One row of a score file.
struct ScoreRow {
  std::string image;
  std::optional<std::string> prompt;
  std::vector<std::optional<float>> scores;     // one a reward; nothing where there is an error
  std::string error;                            // empty: none
  std::vector<std::optional<int64_t>> details;  // one a detail column
};

// `text` with what is no UTF-8 replaced, as every output format holds it.
std::string valid_text(const std::string& text);

// The fewest digits that read back as the same fp32.
std::string score_text(float value);

// The row as a line of JSONL or CSV, line end included.
std::string jsonl_line(const ScoreRow& row, const ScoreLayout& layout);
std::string csv_line(const ScoreRow& row, const ScoreLayout& layout);
std::string csv_header(const ScoreLayout& layout);

// Back from those. Input error when a column is missing or holds something else.
ScoreRow parse_jsonl_row(const std::string& line, const ScoreLayout& layout);
ScoreRow parse_csv_row(const std::vector<std::string>& header, const std::vector<std::string>& fields,
                       const ScoreLayout& layout);

}  // namespace prefusion::tools
