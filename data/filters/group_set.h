#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/content_hash.h"
#include "data/bad_limit.h"
#include "data/dataset.h"
#include "data/source.h"

// Preference data as its curation sees it: the facts of every group, and pictures only when they are looked at. Rules
// (rule.h) and conversions (convert.h) are functions of these facts.
namespace prefusion::data::filters {

inline constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();

// One picture of a group.
struct Item {
  uint32_t source = 0;
  uint16_t item = 0;  // of its row
  int64_t row = 0;
  int64_t picture = 0;         // number of (source, row, item)
  double label = 0;            // higher is better
  double rank = 0;             // 0 best; ties share the mean of their places
  int64_t prompt = -1;         // number of the text of its own prompt, or -1
  std::vector<double> scores;  // by GroupSet::score_names; kMissing where it has none
};

struct Group {
  uint32_t prompt = 0;  // number of the text
  uint32_t user = 0;    // the same; the empty text where nobody is named
  double weight = kMissing;
  bool labels_are_probabilities = false;  // of a pair: the labels are those of its two items
  bool is_one_picture = false;            // the items are one picture under several prompts
  std::vector<Item> items;                // in the order of the data
  std::vector<double> numbers;            // by GroupSet::columns; kMissing where the row has none
};

// What looking at a picture shows.
struct PictureFacts {
  bool is_known = false;
  ContentHash content;
  uint64_t hash = 0;  // perceptual, picture_hash(); only where it was asked for
  int64_t width = 0;
  int64_t height = 0;
  std::string problem;  // of one that cannot be read
};

struct GroupSet {
  std::vector<Group> groups;
  std::vector<std::string> texts;        // prompts and users
  std::vector<std::string> score_names;  // sorted
  std::vector<std::string> columns;      // of the further numbers that were asked for those that occur
  std::vector<PictureFacts> pictures;    // by Item::picture
  std::vector<std::unique_ptr<PreferenceSource>> sources;
  std::vector<std::filesystem::path> files;  // of the sources
  DatasetSummary summary;                    // of reading
  bool has_masks = false;                    // of all rows; items are read with them then

  const std::string& prompt(const Group& group) const { return texts[group.prompt]; }
  const std::string& user(const Group& group) const { return texts[group.user]; }
  // Where a group comes from: the id of the row of its first item.
  std::string id(const Group& group) const { return sources[group.items[0].source]->row_id(group.items[0].row); }
  // Number of a score or column; input error that names those there are.
  size_t score(const std::string& name) const;
  size_t column(const std::string& name) const;
  // The item with its encoded bytes. Input error when it cannot be read.
  PreferenceItem read(const Item& item) const;
};

struct OpenOptions {
  std::string score_name;         // that labels rows nobody labelled, as in DatasetOptions
  std::set<std::string> columns;  // further numbers of a row
  BadLimit max_bad;
};

// Opens anything open_preference_data() does, every row as one group, with every score it has. Rows without a label or
// a prompt and rows that cannot be understood are counted in the summary. Input error when nothing usable is left.
GroupSet open_groups(const std::vector<std::filesystem::path>& paths, const OpenOptions& options);

// Indices of the best and the worst item; of ties the first of each.
struct Extremes {
  size_t best = 0;
  size_t worst = 0;
};
Extremes extremes(const Group& group);

// Whether nothing is preferred to anything: also of a single item.
bool is_tied(const Group& group);

}  // namespace prefusion::data::filters
