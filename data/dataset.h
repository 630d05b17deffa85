#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "data/bad_limit.h"
#include "data/preference_record.h"

namespace prefusion::data {

// What a group is to the objective.
enum class GroupKind { kPair, kList, kUnpaired };

// Which pairs a list of more than two items gives.
enum class ListPairs { kBestWorst, kAdjacent };

struct DatasetOptions {
  GroupKind group = GroupKind::kPair;
  ListPairs list_pairs = ListPairs::kBestWorst;
  // Pairs labelled 0.5 stay, with labels {0.5, 0.5}; otherwise they are dropped and counted.
  bool keep_ties = false;
  // Items in a list group. Longer lists are thinned evenly, best and worst staying; shorter ones are dropped and
  // counted. 0 takes the size of the shortest list.
  int64_t list_size = 0;
  // The reward score that is taken, by name; rows without it are dropped and counted. It orders and labels rows that no
  // human labelled. Empty: the only score there is, where every row has it, else none; several scores then give the
  // share of pairwise wins over all of them as labels.
  std::string score_name;
  // Every item comes with a prompt of its own, every item with a mask; rows without are dropped and counted.
  bool item_prompts = false;
  bool masks = false;
  // Every group comes with the user who judged it; rows that do not name one are dropped and counted.
  bool users = false;
  // What sources read besides, for whoever looks at rows: every score a row has, not only the named one, and the
  // numbers of further columns or fields.
  bool all_scores = false;
  std::set<std::string> columns;
  // Images held in memory at once are about twice this many bytes; the shuffle mixes within one such window.
  int64_t window_bytes = int64_t{256} << 20;
  // Rows and files that cannot be parsed at opening.
  BadLimit max_bad;
};

// What was found at opening. Every row is in exactly one of the counts below `rows`.
struct DatasetSummary {
  int64_t files = 0;
  int64_t bad_files = 0;
  int64_t rows = 0;
  int64_t used_rows = 0;
  int64_t ties = 0;             // dropped, or used when keep_ties
  int64_t missing_labels = 0;   // has_label false, or no label
  int64_t inconsistent = 0;     // label_0 + label_1 is not 1, or outside [0, 1]
  int64_t missing_prompts = 0;  // without a prompt, or without one an item where those are asked for
  int64_t missing_masks = 0;    // where they are asked for
  int64_t missing_users = 0;    // the same
  int64_t missing_scores = 0;   // without the score that was asked for
  int64_t short_lists = 0;      // fewer items than the group needs
  int64_t malformed = 0;        // rows that cannot be parsed
  bool ties_are_kept = false;
  int64_t groups = 0;                         // usable groups; a list may give several pairs
  int64_t prompts = 0;                        // distinct prompts of the usable groups
  int64_t group_size = 0;                     // k
  int64_t weighted_rows = 0;                  // used rows with a weight
  int64_t item_prompt_rows = 0;               // with a prompt an item
  int64_t mask_rows = 0;                      // with masks
  int64_t user_rows = 0;                      // with the user who judged them
  std::map<std::string, int64_t> score_rows;  // used rows that have a score, by its name
  std::string score_name;                     // the score that is asked for, else taken; empty for none
  std::set<std::string> other_scores;         // further ones that were seen, in rows or as columns

  int64_t dropped() const { return rows - used_rows; }
  std::string text() const;  // one line for the log
};

// Preference data opened for reading. Everything but the images is known after opening; images are read on demand.
class PreferenceDataset {
 public:
  virtual ~PreferenceDataset() = default;

  virtual int64_t size() const = 0;        // usable groups
  virtual int64_t group_size() const = 0;  // k, the same for all groups
  virtual const DatasetSummary& summary() const = 0;
  virtual const std::string& prompt(int64_t index) const = 0;
  virtual std::string id(int64_t index) const = 0;
  // Labels of the k items, best first, without reading images.
  virtual std::vector<double> labels(int64_t index) const = 0;
  // Scores of the k items in the same order; empty when summary().score_name is.
  virtual std::vector<double> scores(int64_t index) const = 0;
  // The user who judged the group; empty unless opened for users.
  virtual std::string user(int64_t /*index*/) const { return ""; }
  // The group with its encoded images. Thread-safe. Input error with the row's id when it cannot be read.
  virtual PreferenceRecord read(int64_t index) const = 0;
  // All indices in the order of an epoch: a function of (seed, epoch) alone, close enough to the order on disk that
  // reading along it streams through the files. Row groups are permuted, then groups inside a window of several.
  virtual std::vector<int64_t> epoch_order(uint64_t seed, uint64_t epoch) const = 0;
};

// Opens any mix of: Pick-a-Pic and ranked-list Parquet files, JSONL manifests (lists, pairs, unpaired), HPDv2 JSON, and
// folders (all *.parquet below it, else a chosen/ and rejected/ pair of folders, else its *.jsonl files).
// Input error when a path is missing, of an unknown form, or nothing usable is left.
std::unique_ptr<PreferenceDataset> open_preference_data(const std::vector<std::filesystem::path>& paths,
                                                        const DatasetOptions& options = {});

// How clearly a group is decided: the gap of its best and worst item, of scores where the data has them (negative where
// they contradict the order), else of labels.
double preference_margin(const PreferenceDataset& dataset, int64_t index);

// The groups `indices` of `base`, renumbered from 0.
std::unique_ptr<PreferenceDataset> subset(std::shared_ptr<const PreferenceDataset> base, std::vector<int64_t> indices);

struct DatasetSplit {
  std::unique_ptr<PreferenceDataset> train;
  std::unique_ptr<PreferenceDataset> eval;
};

// Holds out about `fraction` of the distinct prompts (at least one, never all), with all their groups: no eval prompt
// occurs in train. Which ones is a function of the prompts and `seed` alone. Usage error unless 0 < fraction < 1, input
// error when there are fewer than two prompts.
DatasetSplit split_by_prompt(std::shared_ptr<const PreferenceDataset> dataset, double fraction, uint64_t seed);

}  // namespace prefusion::data
