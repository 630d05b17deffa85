#include "data/open_source.h"

#include <algorithm>

#include "core/error.h"
#include "core/json_config.h"
#include "data/epoch_order.h"
#include "data/folder_source.h"
#include "data/json_rows.h"
#include "data/manifest_source.h"
#include "data/pickapic_source.h"
#include "data/ranked_list_source.h"
#include "data/rated_images_source.h"

namespace prefusion::data {
namespace {

std::vector<std::filesystem::path> files_below(const std::filesystem::path& folder, const std::string& extension) {
  std::vector<std::filesystem::path> files;
  constexpr auto kOptions = std::filesystem::directory_options::skip_permission_denied;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder, kOptions)) {
    if (entry.path().extension() == extension && entry.is_regular_file()) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::vector<std::filesystem::path> expand_folder(const std::filesystem::path& folder) {
  if (FolderPairSource::fits(folder)) return {folder};
  for (const char* extension : {".parquet", ".jsonl"}) {
    auto files = files_below(folder, extension);
    if (!files.empty()) return files;
  }
  if (PictureFolderSource::fits(folder)) return {folder};
  fail_input(folder.string(), ": holds no preference data; expected *.parquet or *.jsonl files below it, the folders ",
             "chosen and rejected, or pictures with their prompts in text files beside them");
}

std::unique_ptr<PreferenceSource> open_parquet(std::unique_ptr<ParquetTable> table, const DatasetOptions& options) {
  if (PickapicSource::fits(*table)) return std::make_unique<PickapicSource>(std::move(table), options);
  if (RankedListSource::fits(*table)) return std::make_unique<RankedListSource>(std::move(table), options);
  if (RatedImagesSource::fits(*table)) return std::make_unique<RatedImagesSource>(std::move(table), options);
  fail_input(table->path().string(),
             ": expected the columns jpg_0, jpg_1, label_0, caption (Pick-a-Pic), prompt, images (ranked lists) or ",
             "prompt_id, prompt, image_path (a row a picture), found: ", table->column_names());
}

}  // namespace

std::vector<std::filesystem::path> expand_paths(const std::vector<std::filesystem::path>& paths) {
  std::vector<std::filesystem::path> expanded;
  for (const auto& path : paths) {
    std::error_code error;
    check_input(std::filesystem::exists(path, error), path.string(), ": no such file or folder");
    if (std::filesystem::is_directory(path, error)) {
      const auto inside = expand_folder(path);
      expanded.insert(expanded.end(), inside.begin(), inside.end());
    } else {
      expanded.push_back(path);
    }
  }
  return expanded;
}

SourceFactory::SourceFactory(const DatasetOptions& options)
    : options_(options), cache_(std::make_shared<SegmentCache>(2 * options.window_bytes)) {}

std::unique_ptr<PreferenceSource> SourceFactory::open(const std::filesystem::path& path) const {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    if (FolderPairSource::fits(path)) return std::make_unique<FolderPairSource>(path);
    return std::make_unique<PictureFolderSource>(path);
  }
  const std::string extension = path.extension().string();
  if (extension == ".jsonl" || extension == ".json") {
    const auto first = first_json_row(path);
    if (first && RatedImagesSource::fits(*first)) return std::make_unique<RatedImagesSource>(path, options_);
    return std::make_unique<ManifestSource>(path, options_);
  }
  check_input(extension == ".parquet", path.string(),
              ": unknown kind of preference data; expected .parquet, .jsonl, .json or a folder");
  const int64_t segment_bytes = std::max<int64_t>(1, options_.window_bytes / (2 * kOpenChunks));
  return open_parquet(std::make_unique<ParquetTable>(path, cache_, segment_bytes), options_);
}

}  // namespace prefusion::data
