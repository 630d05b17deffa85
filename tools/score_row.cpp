#include "tools/score_row.h"

#include <algorithm>
#include <charconv>

#include "core/error.h"
#include "core/json_config.h"
#include "data/csv_reader.h"

namespace prefusion::tools {
namespace {

std::string json_text(const std::string& text) {
  return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string detail_text(const DetailColumn& column, std::optional<int64_t> value, const char* missing) {
  if (!value) return missing;
  if (column.is_flag) return *value ? "true" : "false";
  return std::to_string(*value);
}

template <typename Number>
Number parse_number(const std::string& text, const std::string& column) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  check_input(error == std::errc() && end == text.data() + text.size(), "column ", column, " holds '",
              text.substr(0, 40), "', expected a number");
  return value;
}

const Json& member(const Json& json, const std::string& name) {
  const auto found = json.find(name);
  check_input(found != json.end(), "there is no '", name, "'");
  return *found;
}

std::optional<int64_t> json_detail(const Json& value) {
  if (value.is_boolean()) return value.get<bool>() ? 1 : 0;
  if (value.is_number_integer()) return value.get<int64_t>();
  return std::nullopt;
}

}  // namespace

std::string score_text(float value) {
  char text[32];
  return std::string(text, std::to_chars(text, text + sizeof text, value).ptr);
}

std::string valid_text(const std::string& text) {
  return Json::parse(json_text(text)).get<std::string>();
}

std::string jsonl_line(const ScoreRow& row, const ScoreLayout& layout) {
  std::string line = "{\"image\": " + json_text(row.image);
  line += ", \"prompt\": " + (row.prompt ? json_text(*row.prompt) : std::string("null"));
  for (size_t i = 0; i < layout.rewards.size(); ++i) {
    line += ", " + json_text(layout.rewards[i]) + ": " + (row.scores[i] ? score_text(*row.scores[i]) : "null");
  }
  for (size_t i = 0; i < layout.details.size(); ++i) {
    line += ", " + json_text(layout.details[i].name) + ": " + detail_text(layout.details[i], row.details[i], "null");
  }
  if (!row.error.empty()) line += ", \"error\": " + json_text(row.error);
  return line + "}\n";
}

std::string csv_header(const ScoreLayout& layout) {
  std::string line = "image,prompt";
  for (const std::string& reward : layout.rewards) line += ',' + data::csv_field(reward);
  for (const DetailColumn& detail : layout.details) line += ',' + data::csv_field(detail.name);
  return line + ",error\n";
}

std::string csv_line(const ScoreRow& row, const ScoreLayout& layout) {
  std::string line =
      data::csv_field(valid_text(row.image)) + ',' + data::csv_field(valid_text(row.prompt.value_or("")));
  for (const auto& score : row.scores) line += ',' + (score ? score_text(*score) : "");
  for (size_t i = 0; i < layout.details.size(); ++i) line += ',' + detail_text(layout.details[i], row.details[i], "");
  return line + ',' + data::csv_field(valid_text(row.error)) + '\n';
}

ScoreRow parse_jsonl_row(const std::string& line, const ScoreLayout& layout) {
  const Json json = parse_json(line, "a row");
  check_input(json.is_object(), "a row is no JSON object");
  const auto text = [&](const Json& value) {
    check_input(value.is_string(), "text is expected, found ", value.dump().substr(0, 40));
    return value.get<std::string>();
  };
  ScoreRow row{.image = text(member(json, "image"))};
  if (const Json& prompt = member(json, "prompt"); !prompt.is_null()) row.prompt = text(prompt);
  for (const std::string& reward : layout.rewards) {
    const Json& value = member(json, reward);
    check_input(value.is_null() || value.is_number(), "'", reward, "' must be a number, found ",
                value.dump().substr(0, 40));
    row.scores.push_back(value.is_null() ? std::nullopt : std::optional<float>(value.get<float>()));
  }
  for (const DetailColumn& detail : layout.details) row.details.push_back(json_detail(member(json, detail.name)));
  if (json.contains("error") && !json["error"].is_null()) row.error = text(json["error"]);
  return row;
}

ScoreRow parse_csv_row(const std::vector<std::string>& header, const std::vector<std::string>& fields,
                       const ScoreLayout& layout) {
  check_input(fields.size() == header.size(), "a row has ", fields.size(), " fields, the header ", header.size());
  const auto field = [&](const std::string& name) -> const std::string& {
    const auto found = std::find(header.begin(), header.end(), name);
    check_input(found != header.end(), "there is no column '", name, "'");
    return fields[static_cast<size_t>(found - header.begin())];
  };
  ScoreRow row{.image = field("image"), .prompt = field("prompt")};
  if (std::find(header.begin(), header.end(), "error") != header.end()) row.error = field("error");
  for (const std::string& reward : layout.rewards) {
    const std::string& text = field(reward);
    row.scores.push_back(text.empty() ? std::nullopt : std::optional<float>(parse_number<float>(text, reward)));
  }
  for (const DetailColumn& detail : layout.details) {
    const std::string& text = field(detail.name);
    if (text.empty()) {
      row.details.push_back(std::nullopt);
    } else if (detail.is_flag) {
      row.details.push_back(text == "true" ? 1 : 0);
    } else {
      row.details.push_back(parse_number<int64_t>(text, detail.name));
    }
  }
  return row;
}

}  // namespace prefusion::tools
