#include "data/score_source.h"

#include <algorithm>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/interrupt.h"
#include "data/folder_source.h"
#include "data/score_sources.h"

namespace prefusion::data {
namespace {

constexpr size_t kMaxImageBytes = size_t{256} << 20;

bool is_file(const std::filesystem::path& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(path, error);
}

std::vector<std::filesystem::path> files_in(const std::filesystem::path& folder, bool recursive) {
  std::vector<std::filesystem::path> files;
  constexpr auto kOptions = std::filesystem::directory_options::skip_permission_denied;
  if (recursive) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder, kOptions)) {
      if (entry.is_regular_file()) files.push_back(entry.path());
    }
  } else {
    for (const auto& entry : std::filesystem::directory_iterator(folder, kOptions)) {
      if (entry.is_regular_file()) files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

// A folder of pictures stands for itself, one of shards or tables for the files in it.
std::vector<std::filesystem::path> expand_folder(const std::filesystem::path& folder, bool recursive) {
  const bool has_listing =
      is_file(folder / "prompts.jsonl") || is_file(folder / "metadata.jsonl") || is_file(folder / "metadata.csv");
  const auto files = files_in(folder, recursive);
  if (has_listing || std::any_of(files.begin(), files.end(), has_image_extension)) return {folder};
  for (const char* extension : {".tar", ".parquet", ".jsonl", ".csv"}) {
    std::vector<std::filesystem::path> chosen;
    std::copy_if(files.begin(), files.end(), std::back_inserter(chosen),
                 [&](const auto& file) { return file.extension() == extension; });
    if (!chosen.empty()) return chosen;
  }
  fail_input(folder.string(), ": holds no pictures (.jpg, .jpeg, .png, .webp), shards (.tar) or tables (.parquet, ",
             ".jsonl, .csv)", recursive ? "" : "; --recursive also looks into the folders below");
}

std::unique_ptr<ScoreSource> open_source(const std::filesystem::path& path, bool recursive) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return open_picture_folder(path, recursive);
  const std::string extension = path.extension().string();
  if (extension == ".jsonl") return open_jsonl_manifest(path);
  if (extension == ".csv") return open_csv_manifest(path);
  if (extension == ".parquet") return open_parquet_pictures(path);
  return open_tar_shard(path);
}

}  // namespace

ScoreInputs::ScoreInputs(const std::vector<std::filesystem::path>& paths, const Options& options) : options_(options) {
  for (const auto& path : paths) {
    std::error_code error;
    check_input(std::filesystem::exists(path, error), path.string(), ": no such file or folder");
    if (std::filesystem::is_directory(path, error)) {
      const auto inside = expand_folder(path, options.recursive);
      files_.insert(files_.end(), inside.begin(), inside.end());
      continue;
    }
    const std::string extension = path.extension().string();
    const bool is_known =
        extension == ".jsonl" || extension == ".csv" || extension == ".parquet" || extension == ".tar";
    check_input(is_known, path.string(),
                ": unknown kind of input; expected a folder, .jsonl, .csv, .parquet or .tar (a single picture is "
                "--image FILE --prompt TEXT)");
    files_.push_back(path);
  }
}

bool ScoreInputs::next(ScoreItem& item, bool wants_picture) {
  for (;;) {
    if (!current_) {
      if (next_file_ == files_.size()) return false;
      current_ = open_source(files_[next_file_++], options_.recursive);
    }
    if (current_->next(item, wants_picture)) return true;
    current_.reset();
  }
}

int64_t ScoreInputs::count() {
  int64_t count = 0;
  ScoreItem item;
  next_file_ = 0;
  current_.reset();
  while (next(item, /*wants_picture=*/false)) {
    throw_if_interrupted();
    ++count;
  }
  next_file_ = 0;
  return count;
}

std::string read_picture(ScoreItem& item) {
  if (item.path.empty()) return std::move(item.encoded);
  return read_file(item.path, kMaxImageBytes);
}

}  // namespace prefusion::data
