#include "data/folder_source.h"

#include <algorithm>
#include <cctype>
#include <initializer_list>
#include <map>
#include <optional>

#include "core/atomic_file.h"
#include "core/error.h"

namespace prefusion::data {
namespace {

constexpr size_t kMaxImageBytes = size_t{256} << 20;
constexpr size_t kMaxPromptBytes = size_t{1} << 20;
constexpr int64_t kBytesPerRow = 512 << 10;

// stem -> file name of a folder's images; of two files with one stem the first by name.
std::map<std::string, std::string> images_in(const std::filesystem::path& folder) {
  std::map<std::string, std::string> images;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (!entry.is_regular_file() || !has_image_extension(entry.path())) continue;
    const std::string name = entry.path().filename().string();
    const auto [found, is_new] = images.try_emplace(entry.path().stem().string(), name);
    if (!is_new && name < found->second) found->second = name;
  }
  return images;
}

std::optional<std::string> find_prompt(const std::filesystem::path& folder, const std::string& stem,
                                       std::initializer_list<const char*> parts) {
  for (const char* part : parts) {
    const auto path = folder / part / (stem + ".txt");
    std::error_code error;
    if (!std::filesystem::is_regular_file(path, error)) continue;
    std::string text = read_file(path, kMaxPromptBytes);
    while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.pop_back();
    return text;
  }
  return std::nullopt;
}

}  // namespace

bool has_image_extension(const std::filesystem::path& path) {
  std::string extension = path.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return extension == ".jpg" || extension == ".jpeg" || extension == ".png" || extension == ".webp";
}

bool FolderPairSource::fits(const std::filesystem::path& folder) {
  std::error_code error;
  return std::filesystem::is_directory(folder / "chosen", error) &&
         std::filesystem::is_directory(folder / "rejected", error);
}

void FolderPairSource::scan(const std::function<void(const ScannedRow&)>& visit) {
  std::map<std::string, Pair> pairs;
  for (const auto& [stem, name] : images_in(folder_ / "chosen")) pairs[stem].chosen = name;
  for (const auto& [stem, name] : images_in(folder_ / "rejected")) pairs[stem].rejected = name;
  for (auto& [stem, pair] : pairs) {
    pair.stem = stem;
    ScannedRow row{.row = static_cast<int64_t>(pairs_.size()), .labels = {1.0, 0.0}, .labels_are_probabilities = true};
    const auto prompt = find_prompt(folder_, stem, {"chosen", "rejected", "."});
    if (prompt) row.prompt = *prompt;
    if (pair.chosen.empty() || pair.rejected.empty()) {
      row.problem = concat("there is no ", pair.chosen.empty() ? "chosen" : "rejected", " image of that name");
      row.status = RowStatus::kMalformed;
    }
    pairs_.push_back(std::move(pair));
    visit(row);
  }
}

PreferenceSource::Place FolderPairSource::place(int64_t row) const {
  return Place{.segment = row, .num_bytes = kBytesPerRow};
}

std::vector<PreferenceItem> FolderPairSource::read_items(int64_t row, std::span<const uint16_t> items) const {
  const Pair& pair = pairs_.at(row);
  std::vector<PreferenceItem> out;
  for (const uint16_t item : items) {
    const auto path = item == 0 ? folder_ / "chosen" / pair.chosen : folder_ / "rejected" / pair.rejected;
    out.push_back(PreferenceItem{.encoded = read_file(path, kMaxImageBytes)});
  }
  return out;
}

std::string FolderPairSource::row_id(int64_t row) const {
  return concat(folder_.filename().string(), "/", pairs_.at(row).stem);
}

bool PictureFolderSource::fits(const std::filesystem::path& folder) {
  return !images_in(folder).empty();
}

void PictureFolderSource::scan(const std::function<void(const ScannedRow&)>& visit) {
  for (const auto& [stem, name] : images_in(folder_)) {
    ScannedRow row{.row = static_cast<int64_t>(names_.size()), .labels = {1.0}, .labels_are_probabilities = true};
    const auto prompt = find_prompt(folder_, stem, {"."});
    if (prompt) row.prompt = *prompt;
    names_.push_back(name);
    visit(row);
  }
}

PreferenceSource::Place PictureFolderSource::place(int64_t row) const {
  return Place{.segment = row, .num_bytes = kBytesPerRow};
}

std::vector<PreferenceItem> PictureFolderSource::read_items(int64_t row, std::span<const uint16_t> items) const {
  return {items.size(), PreferenceItem{.encoded = read_file(folder_ / names_.at(row), kMaxImageBytes)}};
}

std::string PictureFolderSource::row_id(int64_t row) const {
  return concat(folder_.filename().string(), "/", names_.at(row));
}

std::string PictureFolderSource::item_name(int64_t row, uint16_t /*item*/) const {
  return names_.at(row);
}

}  // namespace prefusion::data
