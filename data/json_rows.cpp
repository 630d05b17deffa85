#include "data/json_rows.h"

#include <algorithm>
#include <fstream>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/json_config.h"

namespace prefusion::data {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr size_t kPeekBytes = size_t{1} << 20;

bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

size_t skip_blanks(std::string_view text, size_t position) {
  while (position < text.size() && is_blank(text[position])) ++position;
  return position;
}

// Of the first character that is neither byte order mark nor blank.
size_t first_character(std::string_view text) {
  return skip_blanks(text, text.starts_with(kByteOrderMark) ? kByteOrderMark.size() : 0);
}

// End (exclusive) of the JSON value that begins at `begin`: brackets are counted outside strings.
size_t end_of_value(std::string_view text, size_t begin) {
  int64_t depth = 0;
  bool in_string = false;
  for (size_t i = begin; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
      continue;
    }
    if (c == '"') in_string = true;
    if (c == '{' || c == '[') ++depth;
    if (depth == 0 && (c == ',' || c == ']')) return i;
    if (c == '}' || c == ']') --depth;
  }
  return text.size();
}

}  // namespace

std::vector<JsonRows::Extent> JsonRows::find_lines(std::string_view text) const {
  std::vector<Extent> lines;
  size_t begin = 0;
  while (begin < text.size()) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(Extent{.begin = static_cast<int64_t>(begin), .size = static_cast<int64_t>(end - begin)});
    begin = end + 1;
  }
  return lines;
}

std::vector<JsonRows::Extent> JsonRows::find_elements(std::string_view text) const {
  std::vector<Extent> elements;
  size_t position = text.find('[') + 1;
  for (;;) {
    position = skip_blanks(text, position);
    check_input(position < text.size(), path_.string(), ": the JSON array is cut off after ", elements.size(), " rows");
    if (text[position] == ']') break;
    const size_t end = end_of_value(text, position);
    check_input(end < text.size() && end > position, path_.string(), ": the JSON array is cut off or malformed in row ",
                elements.size());
    elements.push_back(Extent{.begin = static_cast<int64_t>(position), .size = static_cast<int64_t>(end - position)});
    position = end + (text[end] == ',' ? 1 : 0);
  }
  return elements;
}

void JsonRows::scan(const std::function<void(int64_t row, std::string_view text)>& visit) {
  rows_.clear();
  line_numbers_.clear();
  const std::string text = read_file(path_);
  const size_t first = first_character(text);
  const bool is_array = first < text.size() && text[first] == '[';
  const std::vector<Extent> extents = is_array ? find_elements(text) : find_lines(text);
  for (size_t i = 0; i < extents.size(); ++i) {
    std::string_view row(text.data() + extents[i].begin, static_cast<size_t>(extents[i].size));
    if (!is_array && i == 0 && row.starts_with(kByteOrderMark)) row.remove_prefix(kByteOrderMark.size());
    if (std::all_of(row.begin(), row.end(), is_blank)) continue;
    rows_.push_back(Extent{.begin = row.data() - text.data(), .size = static_cast<int64_t>(row.size())});
    if (!is_array) line_numbers_.push_back(static_cast<int64_t>(i) + 1);
    visit(static_cast<int64_t>(rows_.size()) - 1, row);
  }
}

nlohmann::json JsonRows::parse(int64_t row) const {
  const Extent extent = rows_.at(row);
  std::ifstream file(path_, std::ios::binary);
  std::string text(static_cast<size_t>(extent.size), '\0');
  file.seekg(extent.begin);
  file.read(text.data(), extent.size);
  check_input(file.good(), path_.string(), ": cannot be read again; was it changed?");
  return parse_json(text, path_.string());
}

std::string JsonRows::row_id(int64_t row) const {
  const std::string name = path_.filename().string();
  return line_numbers_.empty() ? concat(name, " row ", row) : concat(name, " line ", line_numbers_.at(row));
}

std::filesystem::path JsonRows::find_file(const std::string& name) const {
  return find_named_file(path_, name);
}

std::filesystem::path find_named_file(const std::filesystem::path& path, const std::string& name) {
  const auto folder = path.parent_path();
  std::error_code error;
  const auto beside = folder / name;
  if (std::filesystem::exists(beside, error)) return beside;
  for (const auto& other : {folder / path.stem() / name, folder / ".." / name}) {
    if (std::filesystem::exists(other, error)) return other;
  }
  return beside;
}

std::optional<nlohmann::json> first_json_row(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(kPeekBytes, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  size_t begin = first_character(text);
  size_t end = text.find('\n', begin);
  if (begin < text.size() && text[begin] == '[') {
    begin = skip_blanks(text, begin + 1);
    end = end_of_value(text, begin);
  }
  const std::string row = text.substr(std::min(begin, text.size()), end == std::string::npos ? end : end - begin);
  try {
    return parse_json(row, path.string());
  } catch (const Error&) {
    return std::nullopt;  // whoever reads the file says what is wrong with it
  }
}

}  // namespace prefusion::data
