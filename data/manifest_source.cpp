#include "data/manifest_source.h"

#include <cctype>
#include <fstream>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/json_config.h"
#include "data/manifest_row.h"

namespace prefusion::data {
namespace {

constexpr size_t kMaxImageBytes = size_t{256} << 20;
constexpr int64_t kBytesPerRow = 512 << 10;  // what a row's image files are taken to weigh, for the shuffle window

bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

// End (exclusive) of the JSON value that begins at `begin`: brackets are counted outside strings.
size_t end_of_value(const std::string& text, size_t begin) {
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

ManifestSource::ManifestSource(std::filesystem::path path, DatasetOptions options)
    : path_(std::move(path)), options_(std::move(options)) {}

std::vector<ManifestSource::Extent> ManifestSource::find_lines(const std::string& text) const {
  std::vector<Extent> lines;
  size_t begin = 0;
  while (begin < text.size()) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(Extent{.begin = static_cast<int64_t>(begin), .size = static_cast<int64_t>(end - begin)});
    begin = end + 1;
  }
  return lines;
}

std::vector<ManifestSource::Extent> ManifestSource::find_elements(const std::string& text) const {
  std::vector<Extent> elements;
  size_t position = text.find('[') + 1;
  for (;;) {
    while (position < text.size() && is_blank(text[position])) ++position;
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

void ManifestSource::scan(const std::function<void(const ScannedRow&)>& visit) {
  const std::string text = read_file(path_);
  size_t first = text.starts_with("\xEF\xBB\xBF") ? 3 : 0;
  while (first < text.size() && is_blank(text[first])) ++first;
  const bool is_array = first < text.size() && text[first] == '[';
  const std::vector<Extent> extents = is_array ? find_elements(text) : find_lines(text);
  for (size_t i = 0; i < extents.size(); ++i) {
    std::string_view row_text(text.data() + extents[i].begin, static_cast<size_t>(extents[i].size));
    if (!is_array && i == 0 && row_text.starts_with("\xEF\xBB\xBF")) row_text.remove_prefix(3);
    if (std::all_of(row_text.begin(), row_text.end(), is_blank)) continue;
    rows_.push_back(Extent{.begin = row_text.data() - text.data(), .size = static_cast<int64_t>(row_text.size())});
    if (!is_array) line_numbers_.push_back(static_cast<int64_t>(i) + 1);
    ManifestRow row;
    try {
      row = parse_manifest_row(parse_json(row_text, "the row"), options_.score_name);
    } catch (const Error& error) {
      row.scanned = ScannedRow{.status = RowStatus::kMalformed, .problem = error.what()};
    }
    row.scanned.row = static_cast<int64_t>(rows_.size()) - 1;
    row.scanned.prompt = row.prompt;
    visit(row.scanned);
  }
}

PreferenceSource::Place ManifestSource::place(int64_t row) const {
  return Place{.segment = row, .num_bytes = kBytesPerRow};
}

nlohmann::json ManifestSource::parse_row(int64_t row) const {
  const Extent extent = rows_.at(row);
  std::ifstream file(path_, std::ios::binary);
  std::string text(static_cast<size_t>(extent.size), '\0');
  file.seekg(extent.begin);
  file.read(text.data(), extent.size);
  check_input(file.good(), path_.string(), ": cannot be read again; was it changed?");
  return parse_json(text, path_.string());
}

std::filesystem::path ManifestSource::find_image(const std::string& name) const {
  const auto folder = path_.parent_path();
  std::error_code error;
  const auto beside = folder / name;
  if (std::filesystem::exists(beside, error)) return beside;
  const auto below = folder / path_.stem() / name;
  return std::filesystem::exists(below, error) ? below : beside;
}

std::vector<PreferenceItem> ManifestSource::read_items(int64_t row, std::span<const uint16_t> items) const {
  const ManifestRow parsed = parse_manifest_row(parse_row(row), options_.score_name);
  std::vector<PreferenceItem> out;
  for (const uint16_t item : items) {
    check_input(item < parsed.images.size(), path_.string(), ": was changed while it was in use");
    out.push_back(PreferenceItem{.encoded = read_file(find_image(parsed.images[item]), kMaxImageBytes)});
    if (options_.masks) out.back().mask = read_file(find_image(parsed.masks.at(item)), kMaxImageBytes);
  }
  return out;
}

std::string ManifestSource::row_id(int64_t row) const {
  const std::string name = path_.filename().string();
  return line_numbers_.empty() ? concat(name, " row ", row) : concat(name, " line ", line_numbers_.at(row));
}

}  // namespace prefusion::data
