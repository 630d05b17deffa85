#include "data/filters/group_writer.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/json_config.h"
#include "data/filters/parquet_columns.h"
#include "data/parquet_file_writer.h"
#include "images/image_decode.h"

namespace prefusion::data::filters {
namespace {

constexpr int64_t kMaxRows = 256;
constexpr int64_t kMaxBytes = int64_t{64} << 20;

// What the kept groups have, and so the columns of their file.
struct Carried {
  bool weights = false;
  bool users = false;
  bool item_prompts = false;
  bool masks = false;
  bool users_are_numbers = true;
  std::vector<size_t> scores;  // numbers of those that occur

  Carried(const GroupSet& set, std::span<const int64_t> kept) : masks(set.has_masks) {
    std::vector<bool> has_score(set.score_names.size());
    for (const int64_t index : kept) {
      const Group& group = set.groups[index];
      weights |= !std::isnan(group.weight);
      users |= group.user != 0;
      users_are_numbers &= group.user == 0 || is_number(set.user(group));
      for (const Item& item : group.items) {
        item_prompts |= item.prompt >= 0;
        for (size_t i = 0; i < item.scores.size(); ++i) has_score[i] = has_score[i] || !std::isnan(item.scores[i]);
      }
    }
    for (size_t i = 0; i < has_score.size(); ++i) {
      if (has_score[i]) scores.push_back(i);
    }
  }

  // A whole number that a column of integers holds, written as they are.
  static bool is_number(const std::string& user) {
    if (user.empty() || user.size() > 18 || (user[0] == '0' && user.size() > 1)) return false;
    return std::all_of(user.begin(), user.end(), [](char c) { return c >= '0' && c <= '9'; });
  }
};

// The user, the weight and the further columns of a group; null where it has none.
void common_columns(const GroupSet& set, const Carried& carried, const Group& group, ColumnSink& sink) {
  const std::string& user = set.user(group);
  if (carried.users && carried.users_are_numbers) {
    sink.integer("user_id", user.empty() ? std::nullopt : std::optional<int64_t>(std::stoll(user)));
  } else if (carried.users) {
    sink.text("user_id", user.empty() ? std::nullopt : std::optional<std::string_view>(user));
  }
  if (carried.weights) sink.number("weight", group.weight);
  for (size_t i = 0; i < set.columns.size(); ++i) sink.number(set.columns[i], group.numbers[i]);
}

class PairWriter : public GroupWriter {
 public:
  PairWriter(const GroupSet& set, std::span<const int64_t> kept, const std::filesystem::path& path)
      : set_(set), carried_(set, kept) {
    for (const int64_t index : kept) ++groups_of_prompt_[set.groups[index].prompt];
    SchemaSink schema(path);
    const Group& any = set.groups[kept.front()];
    columns(any, {PreferenceItem{}, PreferenceItem{}}, schema);
    file_ = std::make_unique<ParquetFileWriter>(path, schema.schema(), kMaxRows, kMaxBytes);
  }

  void add(const Group& group) override {
    const std::vector<PreferenceItem> items = {set_.read(group.items[0]), set_.read(group.items[1])};
    RowSink row(file_->builder());
    columns(group, items, row);
    ++ranking_id_;
    file_->end_row(static_cast<int64_t>(items[0].encoded.size() + items[1].encoded.size()));
  }

  void finish() override { file_->finish(); }

 private:
  static double label_0(const Group& pair) {
    if (pair.labels_are_probabilities) return pair.items[0].label;
    const double difference = pair.items[1].rank - pair.items[0].rank;
    return difference > 0 ? 1.0 : difference < 0 ? 0.0 : 0.5;
  }

  void columns(const Group& group, const std::vector<PreferenceItem>& items, ColumnSink& sink) const {
    const double label = label_0(group);
    const std::string uids[] = {hash_content(items[0].encoded).hex(), hash_content(items[1].encoded).hex()};
    sink.boolean("are_different", uids[0] != uids[1]);
    sink.text("best_image_uid", label == 0.5 ? "tie" : label > 0.5 ? uids[0] : uids[1]);
    sink.text("caption", set_.prompt(group));
    sink.boolean("has_label", true);
    sink.number("label_0", label);
    sink.number("label_1", 1 - label);
    sink.integer("ranking_id", ranking_id_);
    const auto count = groups_of_prompt_.find(group.prompt);
    sink.integer("num_example_per_prompt", count == groups_of_prompt_.end() ? 0 : count->second);
    common_columns(set_, carried_, group, sink);
    for (size_t i = 0; i < 2; ++i) item_columns(group.items[i], items[i], uids[i], i, sink);
  }

  void item_columns(const Item& item, const PreferenceItem& read, const std::string& uid, size_t number,
                    ColumnSink& sink) const {
    const std::string n = std::to_string(number);
    sink.text("image_" + n + "_uid", uid);
    sink.bytes("jpg_" + n, read.encoded);
    sink.text("model_" + n, read.model);
    sink.integer("seed_" + n, read.seed);
    for (const size_t score : carried_.scores) sink.number(set_.score_names[score] + "_" + n, item.scores[score]);
    if (carried_.item_prompts) {
      sink.text("caption_" + n,
                item.prompt < 0 ? std::nullopt : std::optional<std::string_view>(set_.texts[item.prompt]));
    }
    if (carried_.masks) sink.bytes("mask_" + n, read.mask.value_or(""));
  }

  const GroupSet& set_;
  Carried carried_;
  std::map<uint32_t, int64_t> groups_of_prompt_;
  int64_t ranking_id_ = 0;
  std::unique_ptr<ParquetFileWriter> file_;
};

class ListWriter : public GroupWriter {
 public:
  ListWriter(const GroupSet& set, std::span<const int64_t> kept, const std::filesystem::path& path)
      : set_(set), carried_(set, kept) {
    SchemaSink schema(path);
    columns(set.groups[kept.front()], {}, schema);
    file_ = std::make_unique<ParquetFileWriter>(path, schema.schema(), kMaxRows, kMaxBytes);
  }

  void add(const Group& group) override {
    std::vector<RankedItem> items;
    int64_t bytes = 0;
    for (const Item& item : group.items) {
      PreferenceItem read = set_.read(item);
      bytes += static_cast<int64_t>(read.encoded.size());
      RankedItem ranked{.image = std::move(read.encoded), .model = read.model, .seed = read.seed, .rank = item.rank};
      for (const size_t score : carried_.scores) {
        if (!std::isnan(item.scores[score])) ranked.scores[set_.score_names[score]] = item.scores[score];
      }
      items.push_back(std::move(ranked));
    }
    RowSink row(file_->builder());
    columns(group, items, row);
    file_->end_row(bytes);
  }

  void finish() override { file_->finish(); }

 private:
  void columns(const Group& group, const std::vector<RankedItem>& items, ColumnSink& sink) const {
    sink.text("prompt", set_.prompt(group));
    common_columns(set_, carried_, group, sink);
    sink.images("images", items);
  }

  const GroupSet& set_;
  Carried carried_;
  std::unique_ptr<ParquetFileWriter> file_;
};

class UnpairedWriter : public GroupWriter {
 public:
  UnpairedWriter(const GroupSet& set, std::span<const int64_t> kept, const std::filesystem::path& path)
      : set_(set),
        carried_(set, kept),
        folder_(path.parent_path() / (path.stem().string() + "-pictures")),
        file_(path) {
    for (const std::string& column : set.columns) {
      check_usage(!kFields.contains(column), path.string(), ": the column '", column,
                  "' has the name of a field of the format");
    }
    make_folder(folder_);
  }

  void add(const Group& group) override {
    const Item& item = group.items[0];
    const PreferenceItem read = set_.read(item);
    Json row = {{"prompt", set_.prompt(group)}, {"image", keep(read.encoded)}};
    if (group.labels_are_probabilities) row["label"] = item.label;
    if (group.user != 0) row["user"] = set_.user(group);
    if (!std::isnan(group.weight)) row["weight"] = group.weight;
    for (const size_t score : carried_.scores) {
      if (!std::isnan(item.scores[score])) row["scores"][set_.score_names[score]] = {item.scores[score]};
    }
    if (!read.model.empty()) row["model"] = read.model;
    if (read.seed) row["seed"] = *read.seed;
    if (read.mask) row["mask"] = keep(*read.mask);
    for (size_t i = 0; i < set_.columns.size(); ++i) {
      if (!std::isnan(group.numbers[i])) row[set_.columns[i]] = group.numbers[i];
    }
    file_.write(row.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
  }

  void finish() override { file_.commit(); }

 private:
  inline static const std::set<std::string> kFields = {"prompt", "image", "label", "user", "weight",
                                                       "scores", "model", "seed",  "mask"};

  // Writes a picture unless it is there; its path relative to the file.
  std::string keep(const std::string& encoded) const {
    const auto format = images::read_image_header(encoded).format;
    const char* extension = format == images::ImageFormat::kJpeg  ? ".jpg"
                            : format == images::ImageFormat::kPng ? ".png"
                                                                  : ".webp";
    const std::string name = hash_content(encoded).hex() + extension;
    if (!std::filesystem::exists(folder_ / name)) write_file(folder_ / name, encoded);
    return folder_.filename().string() + "/" + name;
  }

  const GroupSet& set_;
  Carried carried_;
  std::filesystem::path folder_;
  AtomicFile file_;
};

}  // namespace

std::unique_ptr<GroupWriter> make_group_writer(const GroupSet& set, std::span<const int64_t> kept, GroupShape shape,
                                               const std::filesystem::path& path) {
  check_input(!kept.empty(), "no group is left to be written");
  if (shape == GroupShape::kPairs) return std::make_unique<PairWriter>(set, kept, path);
  if (shape == GroupShape::kLists) return std::make_unique<ListWriter>(set, kept, path);
  return std::make_unique<UnpairedWriter>(set, kept, path);
}

}  // namespace prefusion::data::filters
