#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <unordered_map>

#include "core/content_hash.h"
#include "core/error.h"
#include "data/dataset.h"
#include "data/mask.h"
#include "images/image_decode.h"
#include "tools/inspection.h"

namespace prefusion::tools {
namespace fs = std::filesystem;
namespace {

struct Opened {
  std::unique_ptr<data::PreferenceDataset> dataset;
  data::DatasetSummary summary;
  const char* kind = "";
};

// Opens the data as what it suits: lists of more than two, else pairs, else pairs of prompts for one picture, else
// single items with a label. Masks are read where every row has them.
Opened open_any(const fs::path& path) {
  data::DatasetOptions options;
  options.keep_ties = true;
  options.max_bad = {.count = std::numeric_limits<int64_t>::max(), .fraction = 1.0};
  std::string first_error;
  const auto open = [&](data::GroupKind group, const char* kind) -> Opened {
    options.group = group;
    try {
      auto dataset = data::open_preference_data({path}, options);
      const data::DatasetSummary summary = dataset->summary();
      if (summary.mask_rows == summary.used_rows) {
        data::DatasetOptions with_masks = options;
        with_masks.masks = true;
        dataset = data::open_preference_data({path}, with_masks);
      }
      return {std::move(dataset), summary, kind};
    } catch (const Error& error) {
      if (first_error.empty()) first_error = error.what();
      return {};
    }
  };
  Opened pairs = open(data::GroupKind::kPair, "pairs");
  Opened lists = open(data::GroupKind::kList, "lists");
  if (lists.dataset && lists.dataset->group_size() > 2) return lists;
  if (pairs.dataset) return pairs;
  options.item_prompts = true;
  Opened prompts = open(data::GroupKind::kPair, "pairs of prompts for one picture");
  if (prompts.dataset) return prompts;
  options.item_prompts = false;
  Opened unpaired = open(data::GroupKind::kUnpaired, "unpaired");
  check_input(unpaired.dataset != nullptr, first_error);
  return unpaired;
}

void add_counts(const data::DatasetSummary& summary, Inspection& inspection) {
  auto& facts = inspection.facts;
  facts["files"] = summary.files;
  facts["rows"] = summary.rows;
  facts["groups"] = summary.groups;
  facts["group_size"] = summary.group_size;
  facts["prompts"] = summary.prompts;
  facts["ties"] = summary.ties;
  facts["missing_labels"] = summary.missing_labels;
  facts["missing_prompts"] = summary.missing_prompts;
  if (!summary.score_rows.empty()) facts["rows_with_score"] = summary.score_rows;
  if (!summary.other_scores.empty()) facts["further_score_columns"] = summary.other_scores;
  const auto optional = [&](const char* name, int64_t rows) {
    if (rows > 0) facts[name] = rows;
  };
  optional("rows_with_weight", summary.weighted_rows);
  optional("rows_with_item_prompts", summary.item_prompt_rows);
  optional("rows_with_masks", summary.mask_rows);
  facts["inconsistent_labels"] = summary.inconsistent;
  facts["short_lists"] = summary.short_lists;
  facts["malformed_rows"] = summary.malformed;
  facts["bad_files"] = summary.bad_files;
  const auto problem = [&](int64_t count, const char* what) {
    if (count > 0) inspection.problems.push_back(concat(inspection.path, ": ", count, " ", what));
  };
  problem(summary.bad_files, "files cannot be read");
  problem(summary.malformed, "rows cannot be parsed");
  problem(summary.inconsistent, "rows have labels that contradict each other");
}

// What reading the images of some groups shows.
struct ImageScan {
  int64_t groups = 0;
  int64_t images = 0;
  int64_t bytes = 0;
  int64_t identical_pairs = 0;  // groups in which two items are the same picture
  std::map<std::string, int64_t> sizes;
  std::map<std::string, int64_t> generators;
  std::unordered_map<ContentHash, int64_t, ContentHashHasher> hashes;
  std::vector<std::string> corrupt;
};

void scan_record(const data::PreferenceRecord& record, ImageScan& scan) {
  std::set<ContentHash> in_group;
  bool has_twin = false;
  for (const auto& item : record.items) {
    ++scan.images;
    scan.bytes += static_cast<int64_t>(item.encoded.size());
    if (!item.model.empty()) ++scan.generators[item.model];
    const ContentHash hash = hash_content(item.encoded);
    ++scan.hashes[hash];
    has_twin |= !in_group.insert(hash).second;
    const at::Tensor image = images::decode_image(item.encoded);
    if (item.mask) data::decode_mask(*item.mask, image);
    ++scan.sizes[concat(image.size(1), "x", image.size(0))];
  }
  scan.identical_pairs += has_twin;
}

ImageScan scan_images(const data::PreferenceDataset& dataset, int64_t max_groups) {
  const int64_t wanted = max_groups > 0 ? std::min(max_groups, dataset.size()) : dataset.size();
  ImageScan scan;
  for (int64_t i = 0; i < wanted; ++i) {
    const int64_t index = i * dataset.size() / wanted;
    ++scan.groups;
    try {
      scan_record(dataset.read(index), scan);
    } catch (const Error& error) {
      const std::string id = dataset.id(index);
      const std::string message = error.what();
      scan.corrupt.push_back(message.find(id) == std::string::npos ? id + ": " + message : message);
    }
  }
  return scan;
}

// The most frequent entries, the others summed up.
OrderedJson most_frequent(const std::map<std::string, int64_t>& counts) {
  constexpr size_t kShown = 12;
  std::vector<std::pair<std::string, int64_t>> sorted(counts.begin(), counts.end());
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  OrderedJson json = OrderedJson::object();
  int64_t others = 0;
  for (size_t i = 0; i < sorted.size(); ++i) {
    if (i < kShown) {
      json[sorted[i].first] = sorted[i].second;
    } else {
      others += sorted[i].second;
    }
  }
  if (others > 0) json["others"] = others;
  return json;
}

void add_images(const ImageScan& scan, int64_t num_groups, Inspection& inspection) {
  constexpr size_t kShown = 10;
  int64_t duplicates = 0;
  for (const auto& [hash, count] : scan.hashes) duplicates += count - 1;
  auto& facts = inspection.facts;
  facts["groups_read"] = scan.groups;
  facts["images_read"] = scan.images;
  facts["image_bytes"] = scan.bytes;
  facts["image_sizes"] = most_frequent(scan.sizes);
  facts["generators"] = most_frequent(scan.generators);
  facts["duplicate_images"] = duplicates;
  facts["groups_of_identical_images"] = scan.identical_pairs;
  facts["corrupt_groups"] = scan.corrupt.size();
  for (size_t i = 0; i < std::min(kShown, scan.corrupt.size()); ++i) inspection.problems.push_back(scan.corrupt[i]);
  if (scan.corrupt.size() > kShown) {
    inspection.problems.push_back(concat(scan.corrupt.size() - kShown, " more groups have broken images"));
  }
  if (scan.groups < num_groups) {
    inspection.notes.push_back(
        concat("images of ", scan.groups, " of ", num_groups, " groups were read; --max-groups 0 reads all"));
  }
  if (scan.identical_pairs > 0) {
    inspection.notes.push_back(concat(scan.identical_pairs, " groups hold the same picture twice"));
  }
}

void add_labels(const data::PreferenceDataset& dataset, Inspection& inspection) {
  int64_t ties = 0;
  double lowest = std::numeric_limits<double>::infinity();
  double highest = -lowest;
  for (int64_t index = 0; index < dataset.size(); ++index) {
    const std::vector<double> labels = dataset.labels(index);
    for (const double label : labels) {
      lowest = std::min(lowest, label);
      highest = std::max(highest, label);
    }
    ties += labels.size() > 1 && std::all_of(labels.begin(), labels.end(), [&](double v) { return v == labels[0]; });
  }
  if (dataset.size() > 0) inspection.facts["label_range"] = {lowest, highest};
  inspection.facts["groups_all_tied"] = ties;
}

}  // namespace

Inspection inspect_dataset(const fs::path& path, int64_t max_groups) {
  Inspection inspection{.path = path.string(), .kind = "dataset"};
  try {
    const Opened opened = open_any(path);
    inspection.facts["holds"] = opened.kind;
    add_counts(opened.summary, inspection);
    add_labels(*opened.dataset, inspection);
    add_images(scan_images(*opened.dataset, max_groups), opened.dataset->size(), inspection);
  } catch (const Error& error) {
    inspection.problems.push_back(error.what());
  }
  return inspection;
}

}  // namespace prefusion::tools
