#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/named_scores.h"
#include "data/preference_record.h"

namespace prefusion::data {

// Why a row gives no group.
enum class RowStatus { kUsable, kMissingLabel, kInconsistent, kMalformed };

// One row as the scan at opening sees it: everything but the images.
struct ScannedRow {
  int64_t row = 0;
  RowStatus status = RowStatus::kUsable;
  std::optional<std::string_view> prompt;  // shared by the items
  std::vector<double> labels;              // per item, higher is better
  std::vector<double> ranks;               // per item, lower is better; empty: the labels give the order
  bool labels_are_probabilities = false;   // of two items: the labels are those of the pair, kept as they are
  NamedScores scores;
  std::optional<double> weight;           // of the row's groups in the loss
  std::string user;                       // who judged the row; empty where it does not say
  std::vector<std::string> item_prompts;  // one an item, or none
  bool is_one_picture = false;            // the items are one picture under several prompts
  bool has_masks = false;
  std::map<std::string, double> numbers;  // of the further columns that are asked for; missing ones are left out
  std::string problem;                    // of a malformed row, for messages
};

// One file (or pair of folders) of preference data: rows of items in file order.
class PreferenceSource {
 public:
  virtual ~PreferenceSource() = default;

  // Visits every row in order. Input error when the file as a whole cannot be read.
  virtual void scan(const std::function<void(const ScannedRow&)>& visit) = 0;

  // Rows that are read together, for streaming: rows of one (chunk, segment) are neighbours on disk, the segments of a
  // chunk are cheap to read in order only. num_bytes is the decoded size of the segment.
  struct Place {
    int64_t chunk = 0;
    int64_t segment = 0;
    int64_t num_bytes = 0;
  };
  virtual Place place(int64_t row) const = 0;
  // True when any order of rows is equally cheap (files of their own).
  virtual bool has_random_access() const = 0;

  // The named items of a row, with `encoded`, `model` and, where the data set wants it, `mask` filled in. Thread-safe.
  // Input error when unreadable.
  virtual std::vector<PreferenceItem> read_items(int64_t row, std::span<const uint16_t> items) const = 0;
  virtual std::string row_id(int64_t row) const = 0;
  // What the data itself calls an item's picture: its path as written; empty where it lies in the file.
  virtual std::string item_name(int64_t /*row*/, uint16_t /*item*/) const { return ""; }
  // Names under which further scores may lie that a row shows only when it is opened for one of them.
  virtual std::vector<std::string> other_scores() const { return {}; }
};

}  // namespace prefusion::data
