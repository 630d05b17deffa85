#include "data/dataset.h"

#include <algorithm>
#include <map>
#include <sstream>

#include "core/content_hash.h"
#include "core/error.h"
#include "core/logging.h"
#include "data/grouped_dataset.h"
#include "data/open_source.h"

namespace prefusion::data {
namespace {

// Some groups of another data set.
class SubsetDataset : public PreferenceDataset {
 public:
  SubsetDataset(std::shared_ptr<const PreferenceDataset> base, std::vector<int64_t> indices)
      : base_(std::move(base)),
        indices_(std::move(indices)),
        positions_(base_->size(), -1),
        summary_(base_->summary()) {
    std::map<std::string_view, bool> prompts;
    for (size_t i = 0; i < indices_.size(); ++i) {
      check_usage(indices_[i] >= 0 && indices_[i] < base_->size() && positions_[indices_[i]] < 0, "subset: group ",
                  indices_[i], " of ", base_->size(), " is out of range or named twice");
      positions_[indices_[i]] = static_cast<int64_t>(i);
      prompts[base_->prompt(indices_[i])] = true;
    }
    summary_.groups = size();
    summary_.prompts = static_cast<int64_t>(prompts.size());
  }

  int64_t size() const override { return static_cast<int64_t>(indices_.size()); }
  int64_t group_size() const override { return base_->group_size(); }
  const DatasetSummary& summary() const override { return summary_; }
  const std::string& prompt(int64_t index) const override { return base_->prompt(indices_.at(index)); }
  std::string id(int64_t index) const override { return base_->id(indices_.at(index)); }
  std::vector<double> labels(int64_t index) const override { return base_->labels(indices_.at(index)); }
  std::vector<double> scores(int64_t index) const override { return base_->scores(indices_.at(index)); }
  std::string user(int64_t index) const override { return base_->user(indices_.at(index)); }
  PreferenceRecord read(int64_t index) const override {
    PreferenceRecord record = base_->read(indices_.at(index));
    record.index = index;
    return record;
  }
  // The base's order without the other groups: it streams through the files as the base's does.
  std::vector<int64_t> epoch_order(uint64_t seed, uint64_t epoch) const override {
    std::vector<int64_t> order;
    order.reserve(indices_.size());
    for (const int64_t index : base_->epoch_order(seed, epoch)) {
      if (positions_[index] >= 0) order.push_back(positions_[index]);
    }
    return order;
  }

 private:
  std::shared_ptr<const PreferenceDataset> base_;
  std::vector<int64_t> indices_;
  std::vector<int64_t> positions_;  // place of a base group in indices_, or -1
  DatasetSummary summary_;
};

}  // namespace

namespace {

// Which score is taken, and why none is where there are some.
std::string score_text(const DatasetSummary& summary) {
  if (summary.groups == 0 || summary.score_rows.empty()) return "";
  if (!summary.score_name.empty()) return "; score: " + summary.score_name;
  std::string names;
  for (const auto& [name, rows] : summary.score_rows) names += (names.empty() ? "" : ", ") + name;
  if (summary.score_rows.size() > 1) {
    return concat("; scores: ", names, "; none of them is taken, --score-name chooses one");
  }
  return concat("; only ", summary.score_rows.at(names), " of the used rows have the score ", names,
                ": it is not taken, --score-name ", names, " drops the others");
}

}  // namespace

std::string DatasetSummary::text() const {
  std::ostringstream out;
  out << rows << " rows in " << files << (files == 1 ? " file, " : " files, ") << used_rows << " used";
  const auto part = [&](int64_t count, const char* what) {
    if (count > 0) out << ", " << count << ' ' << what;
  };
  part(ties, ties_are_kept ? "ties among them" : "ties dropped");
  part(missing_labels, "without a label dropped");
  part(inconsistent, "with inconsistent labels dropped");
  part(missing_prompts, "without a prompt dropped");
  if (missing_scores > 0) out << ", " << missing_scores << " without the score '" << score_name << "' dropped";
  part(missing_masks, "without a mask dropped");
  part(missing_users, "without a user dropped");
  part(short_lists, "with too few images dropped");
  part(malformed, "malformed rows skipped");
  part(bad_files, "unreadable files skipped");
  if (groups > 0) {
    out << "; " << groups << " groups of " << group_size << " for " << prompts
        << (prompts == 1 ? " prompt" : " prompts");
  }
  out << score_text(*this);
  return out.str();
}

std::unique_ptr<PreferenceDataset> open_preference_data(const std::vector<std::filesystem::path>& paths,
                                                        const DatasetOptions& options) {
  check_usage(!paths.empty(), "no preference data was given");
  check_usage(options.list_size == 0 || options.list_size >= 2, "a list has at least 2 items, not ", options.list_size);
  check_usage(options.window_bytes > 0, "the shuffle window needs a positive size, not ", options.window_bytes);
  auto dataset = std::make_unique<GroupedDataset>(options);
  const std::vector<std::filesystem::path> files = expand_paths(paths);
  const SourceFactory factory(options);
  int64_t num_bad = 0;
  for (const auto& file : files) {
    try {
      dataset->add(factory.open(file));
    } catch (const Error& error) {
      if (error.error_class() != ErrorClass::kInput) throw;
      if (options.max_bad.is_exceeded(++num_bad, static_cast<int64_t>(files.size()))) throw;
      log_warn("skipped: ", error.what());
      dataset->count_bad_file();
    }
  }
  std::string where;
  for (const auto& path : paths) where += (where.empty() ? "" : ", ") + path.string();
  dataset->finish(where);
  return dataset;
}

double preference_margin(const PreferenceDataset& dataset, int64_t index) {
  std::vector<double> values = dataset.scores(index);
  if (values.empty()) values = dataset.labels(index);
  return values.front() - values.back();
}

std::unique_ptr<PreferenceDataset> subset(std::shared_ptr<const PreferenceDataset> base, std::vector<int64_t> indices) {
  return std::make_unique<SubsetDataset>(std::move(base), std::move(indices));
}

DatasetSplit split_by_prompt(std::shared_ptr<const PreferenceDataset> dataset, double fraction, uint64_t seed) {
  check_usage(fraction > 0 && fraction < 1, "the held-out share must lie between 0 and 1, not ", fraction);
  std::map<std::pair<ContentHash, std::string_view>, bool> prompts;  // in the order of a keyed hash
  const auto key_of = [&](int64_t index) {
    const std::string& prompt = dataset->prompt(index);
    return std::pair(ContentHasher().add("split_by_prompt").add(seed).add(prompt).finish(), std::string_view(prompt));
  };
  std::vector<decltype(prompts)::iterator> prompt_of_group;
  for (int64_t i = 0; i < dataset->size(); ++i) prompt_of_group.push_back(prompts.try_emplace(key_of(i), false).first);
  check_input(prompts.size() >= 2, "a held-out share needs at least two distinct prompts, the data has ",
              prompts.size());
  const auto count = static_cast<int64_t>(prompts.size());
  int64_t held_out =
      std::clamp<int64_t>(static_cast<int64_t>(fraction * static_cast<double>(count) + 0.5), 1, count - 1);
  for (auto entry = prompts.begin(); held_out > 0; ++entry, --held_out) entry->second = true;
  std::vector<int64_t> train;
  std::vector<int64_t> eval;
  for (int64_t i = 0; i < dataset->size(); ++i) (prompt_of_group[i]->second ? eval : train).push_back(i);
  return DatasetSplit{.train = subset(dataset, std::move(train)), .eval = subset(dataset, std::move(eval))};
}

}  // namespace prefusion::data
