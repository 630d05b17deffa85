#include <algorithm>
#include <set>

#include "core/atomic_file.h"
#include "core/error.h"
#include "data/folder_source.h"
#include "data/manifest_fields.h"
#include "data/score_sources.h"

namespace prefusion::data {
namespace {

constexpr size_t kMaxPromptBytes = size_t{1} << 20;

// Paths below the folder, sorted.
template <typename Iterator>
std::vector<std::string> pictures_in(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  constexpr auto kOptions = std::filesystem::directory_options::skip_permission_denied;
  for (const auto& entry : Iterator(folder, kOptions)) {
    if (!has_image_extension(entry.path()) || entry.path().filename().string().starts_with('.')) continue;
    if (entry.is_regular_file()) names.push_back(entry.path().lexically_relative(folder).string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::unique_ptr<ScoreSource> open_listing(const std::filesystem::path& folder) {
  for (const char* name : {"prompts.jsonl", "metadata.jsonl", "metadata.csv"}) {
    const std::filesystem::path file = folder / name;
    std::error_code error;
    if (!std::filesystem::is_regular_file(file, error)) continue;
    return file.extension() == ".csv" ? open_csv_manifest(file, folder) : open_jsonl_manifest(file, folder);
  }
  return nullptr;
}

class FolderScoreSource : public ScoreSource {
 public:
  FolderScoreSource(const std::filesystem::path& folder, bool recursive)
      : folder_(folder),
        names_(recursive ? pictures_in<std::filesystem::recursive_directory_iterator>(folder)
                         : pictures_in<std::filesystem::directory_iterator>(folder)),
        listing_(open_listing(folder)) {}

  bool next(ScoreItem& item, bool wants_picture) override {
    if (listing_ && listing_->next(item, wants_picture)) {
      listed_.insert(item.path.lexically_relative(folder_).lexically_normal().string());
      row_ = item.row + 1;
      return true;
    }
    listing_.reset();
    while (next_ < names_.size() && listed_.contains(names_[next_])) ++next_;
    if (next_ == names_.size()) return false;
    const std::filesystem::path path = folder_ / names_[next_++];
    item = ScoreItem{.image = path.string(), .row = row_++, .path = path};
    take_prompt(item);
    return true;
  }

 private:
  void take_prompt(ScoreItem& item) const {
    for (const char* extension : {".txt", ".caption"}) {
      std::filesystem::path path = item.path;
      path.replace_extension(extension);
      std::error_code error;
      if (!std::filesystem::is_regular_file(path, error)) continue;
      try {
        item.prompt = trimmed_prompt(read_file(path, kMaxPromptBytes));
      } catch (const Error& unreadable) {
        item.problem = unreadable.what();
      }
      return;
    }
  }

  std::filesystem::path folder_;
  std::vector<std::string> names_;
  std::unique_ptr<ScoreSource> listing_;
  std::set<std::string> listed_;
  size_t next_ = 0;
  int64_t row_ = 0;
};

}  // namespace

std::unique_ptr<ScoreSource> open_picture_folder(const std::filesystem::path& folder, bool recursive) {
  return std::make_unique<FolderScoreSource>(folder, recursive);
}

}  // namespace prefusion::data
