#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "data/source.h"

namespace prefusion::data {

// Pairs as two folders, chosen/ and rejected/, whose images share a stem; the prompt is <stem>.txt beside either image,
// or in the folder above. Rows are the stems of chosen/ and rejected/ in order; one without its counterpart counts as
// malformed.
class FolderPairSource : public PreferenceSource {
 public:
  explicit FolderPairSource(std::filesystem::path folder) : folder_(std::move(folder)) {}

  static bool fits(const std::filesystem::path& folder);
  void scan(const std::function<void(const ScannedRow&)>& visit) override;
  Place place(int64_t row) const override;
  bool has_random_access() const override { return true; }
  std::vector<PreferenceItem> read_items(int64_t row, std::span<const uint16_t> items) const override;
  std::string row_id(int64_t row) const override;

 private:
  struct Pair {
    std::string stem;
    std::string chosen;  // file names; empty where one is missing
    std::string rejected;
  };

  std::filesystem::path folder_;
  std::vector<Pair> pairs_;
};

// Pictures of a folder, each with its prompt in <stem>.txt beside it; every one is a good one.
class PictureFolderSource : public PreferenceSource {
 public:
  explicit PictureFolderSource(std::filesystem::path folder) : folder_(std::move(folder)) {}

  static bool fits(const std::filesystem::path& folder);
  void scan(const std::function<void(const ScannedRow&)>& visit) override;
  Place place(int64_t row) const override;
  bool has_random_access() const override { return true; }
  std::vector<PreferenceItem> read_items(int64_t row, std::span<const uint16_t> items) const override;
  std::string row_id(int64_t row) const override;
  std::string item_name(int64_t row, uint16_t item) const override;

 private:
  std::filesystem::path folder_;
  std::vector<std::string> names_;  // of the picture files, sorted by stem
};

// True for the extensions .jpg, .jpeg, .png and .webp in any case.
bool has_image_extension(const std::filesystem::path& path);

}  // namespace prefusion::data
