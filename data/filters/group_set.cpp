#include "data/filters/group_set.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/logging.h"
#include "data/group_rules.h"
#include "data/open_source.h"
#include "images/image_decode.h"

namespace prefusion::data::filters {
namespace {

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? "none" : text;
}

size_t find_name(const std::vector<std::string>& names, const std::string& name, const char* what) {
  const auto found = std::find(names.begin(), names.end(), name);
  check_input(found != names.end(), "the data has no ", what, " '", name, "'; found: ", joined(names));
  return static_cast<size_t>(found - names.begin());
}

// Collects rows; scores are by name until all names are known.
class SetBuilder {
 public:
  explicit SetBuilder(const OpenOptions& options) : options_(options) {
    set_.texts.emplace_back();  // nobody
    text_numbers_[""] = 0;
    set_.columns.assign(options.columns.begin(), options.columns.end());
    set_.summary.score_name = options.score_name;
  }

  void add(std::unique_ptr<PreferenceSource> source, const std::filesystem::path& file) {
    set_.sources.push_back(std::move(source));
    set_.files.push_back(file);
    const auto number = static_cast<uint32_t>(set_.sources.size() - 1);
    set_.sources.back()->scan([&](const ScannedRow& row) { add_row(number, row); });
    ++set_.summary.files;
  }

  void count_bad_file() { ++set_.summary.bad_files; }

  GroupSet finish(const std::string& where) {
    DatasetSummary& summary = set_.summary;
    const std::string last = last_problem_.empty() ? "" : "; the last malformed: " + last_problem_;
    check_input(!set_.groups.empty(), where, ": holds nothing usable: ", summary.text(), last);
    check_input(!options_.max_bad.is_exceeded(summary.malformed, summary.rows), where, ": ", summary.malformed,
                " rows that cannot be parsed among ", summary.rows, ", more than is allowed (--max-bad)", last);
    set_.score_names.assign(score_names_.begin(), score_names_.end());
    drop_empty_columns();
    for (size_t i = 0; i < set_.groups.size(); ++i) spread_scores(scores_[i], set_.groups[i]);
    set_.pictures.resize(static_cast<size_t>(num_pictures_));
    set_.has_masks = summary.mask_rows == summary.used_rows;
    return std::move(set_);
  }

 private:
  void add_row(uint32_t source, const ScannedRow& row) {
    DatasetSummary& summary = set_.summary;
    ++summary.rows;
    switch (row.status) {
      case RowStatus::kMissingLabel: ++summary.missing_labels; return;
      case RowStatus::kInconsistent: ++summary.inconsistent; return;
      case RowStatus::kMalformed: return skip(row, row.problem);
      case RowStatus::kUsable: break;
    }
    const std::vector<double> badness = badness_of(row);
    if (const std::string problem = row_problem(row); !problem.empty()) return skip(row, problem);
    if (!row.prompt && row.item_prompts.empty()) {
      ++summary.missing_prompts;
      return;
    }
    if (!options_.score_name.empty() && !row.scores.contains(options_.score_name)) {
      ++summary.missing_scores;
      return;
    }
    const bool is_labelled = !badness.empty() && std::all_of(badness.begin(), badness.end(),
                                                             [](double value) { return std::isfinite(value); });
    if (!is_labelled) {
      ++summary.missing_labels;
      return;
    }
    ++summary.used_rows;
    summary.mask_rows += row.has_masks;
    for (const auto& [name, values] : row.scores) score_names_.insert(name);
    set_.groups.push_back(group_of(source, row, badness));
    scores_.push_back(row.scores);
  }

  static std::string row_problem(const ScannedRow& row) {
    for (const auto& [name, values] : row.scores) {
      for (const double value : values) {
        if (!std::isfinite(value)) return concat("the score '", name, "' must be finite, found ", value);
      }
    }
    if (row.weight && !(std::isfinite(*row.weight) && *row.weight >= 0)) {
      return concat("the weight must be finite and not negative, found ", *row.weight);
    }
    return "";
  }

  void skip(const ScannedRow& row, const std::string& problem) {
    ++set_.summary.malformed;
    last_problem_ = concat(set_.sources.back()->row_id(row.row), ": ", problem);
    log_warn("skipped: ", last_problem_);
  }

  Group group_of(uint32_t source, const ScannedRow& row, const std::vector<double>& badness) {
    Group group{.weight = row.weight.value_or(kMissing),
                .labels_are_probabilities = row.labels_are_probabilities,
                .is_one_picture = row.is_one_picture};
    group.prompt = intern(row.prompt ? *row.prompt : row.item_prompts[0]);
    group.user = intern(row.user);
    const std::vector<double> ranks = average_ranks(badness);
    for (size_t i = 0; i < badness.size(); ++i) {
      group.items.push_back(Item{.source = source,
                                 .item = static_cast<uint16_t>(i),
                                 .row = row.row,
                                 .picture = num_pictures_++,
                                 .label = row.labels[i],
                                 .rank = ranks[i]});
      if (!row.item_prompts.empty()) group.items.back().prompt = intern(row.item_prompts[i]);
    }
    for (const std::string& column : set_.columns) {
      const auto found = row.numbers.find(column);
      group.numbers.push_back(found == row.numbers.end() ? kMissing : found->second);
    }
    return group;
  }

  void spread_scores(const NamedScores& scores, Group& group) const {
    for (size_t i = 0; i < group.items.size(); ++i) {
      for (const std::string& name : set_.score_names) {
        const auto found = scores.find(name);
        group.items[i].scores.push_back(found == scores.end() ? kMissing : found->second[i]);
      }
    }
  }

  // Of columns that were asked for only those stay that the data has.
  void drop_empty_columns() {
    for (size_t i = set_.columns.size(); i-- > 0;) {
      const bool occurs = std::any_of(set_.groups.begin(), set_.groups.end(),
                                      [i](const Group& group) { return !std::isnan(group.numbers[i]); });
      if (occurs) continue;
      set_.columns.erase(set_.columns.begin() + static_cast<int64_t>(i));
      for (Group& group : set_.groups) group.numbers.erase(group.numbers.begin() + static_cast<int64_t>(i));
    }
  }

  uint32_t intern(std::string_view text) {
    const auto [entry, is_new] = text_numbers_.try_emplace(std::string(text), set_.texts.size());
    if (is_new) set_.texts.emplace_back(text);
    return static_cast<uint32_t>(entry->second);
  }

  const OpenOptions& options_;
  GroupSet set_;
  std::vector<NamedScores> scores_;  // of each group
  std::set<std::string> score_names_;
  std::unordered_map<std::string, size_t> text_numbers_;
  int64_t num_pictures_ = 0;
  std::string last_problem_;
};

GroupSet open_once(const std::vector<std::filesystem::path>& paths, const OpenOptions& options, bool with_masks) {
  DatasetOptions reading{.score_name = options.score_name, .masks = with_masks, .max_bad = options.max_bad};
  reading.all_scores = true;
  reading.columns = options.columns;
  const std::vector<std::filesystem::path> files = expand_paths(paths);
  const SourceFactory factory(reading);
  SetBuilder builder(options);
  int64_t num_bad = 0;
  for (const auto& file : files) {
    try {
      builder.add(factory.open(file), file);
    } catch (const Error& error) {
      if (error.error_class() != ErrorClass::kInput) throw;
      if (options.max_bad.is_exceeded(++num_bad, static_cast<int64_t>(files.size()))) throw;
      log_warn("skipped: ", error.what());
      builder.count_bad_file();
    }
  }
  std::string where;
  for (const auto& path : paths) where += (where.empty() ? "" : ", ") + path.string();
  return builder.finish(where);
}

}  // namespace

size_t GroupSet::score(const std::string& name) const {
  return find_name(score_names, name, "score");
}

size_t GroupSet::column(const std::string& name) const {
  return find_name(columns, name, "column");
}

PreferenceItem GroupSet::read(const Item& item) const {
  const uint16_t number = item.item;
  try {
    PreferenceItem read = sources[item.source]->read_items(item.row, {&number, 1}).front();
    images::read_image_header(read.encoded);  // what is no picture at all is found here
    return read;
  } catch (const Error& error) {
    throw Error(error.error_class(), concat(sources[item.source]->row_id(item.row), ": ", error.what()));
  }
}

GroupSet open_groups(const std::vector<std::filesystem::path>& paths, const OpenOptions& options) {
  check_usage(!paths.empty(), "no preference data was given");
  GroupSet set = open_once(paths, options, /*with_masks=*/false);
  return set.has_masks ? open_once(paths, options, /*with_masks=*/true) : std::move(set);
}

Extremes extremes(const Group& group) {
  Extremes found;
  for (size_t i = 0; i < group.items.size(); ++i) {
    if (group.items[i].rank < group.items[found.best].rank) found.best = i;
    if (group.items[i].rank > group.items[found.worst].rank) found.worst = i;
  }
  return found;
}

bool is_tied(const Group& group) {
  const auto [best, worst] = extremes(group);
  return group.items[best].rank == group.items[worst].rank;
}

}  // namespace prefusion::data::filters
