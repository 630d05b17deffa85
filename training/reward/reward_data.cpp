#include "training/reward/reward_data.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "core/content_hash.h"
#include "core/error.h"
#include "core/logging.h"
#include "losses/reward_losses.h"

namespace prefusion::training {
namespace {

enum class Part { kTrain, kValidation, kTest };

data::DatasetOptions dataset_options(const TrainRewardOptions& options, const std::string& score_name) {
  const auto& loss = losses::find_reward_loss(options.loss);
  const bool takes_lists =
      options.groups == "lists" || (options.groups == "auto" && loss.groups == losses::RewardGroups::kLists);
  data::DatasetOptions result;
  result.group = takes_lists ? data::GroupKind::kList : data::GroupKind::kPair;
  result.keep_ties = !options.drop_ties;
  result.list_size = options.list_size;
  result.score_name = score_name;
  result.users = options.head == "pal";
  result.max_bad.fraction = options.max_bad;
  return result;
}

using Sources = std::vector<std::shared_ptr<const data::PreferenceDataset>>;

Sources open_sources(const TrainRewardOptions& options, const std::vector<std::filesystem::path>& paths,
                     const char* what) {
  Sources sources;
  std::vector<std::string> names = {options.score_name};
  names.insert(names.end(), options.aspects.begin(), options.aspects.end());
  for (const std::string& name : names) {
    sources.push_back(data::open_preference_data(paths, dataset_options(options, name)));
    log_info(what, sources.size() > 1 ? " (" + name + ")" : "", ": ", sources.back()->summary().text());
    check_input(sources.back()->group_size() == sources.front()->group_size(), paths.front().string(), ": groups of ",
                sources.back()->group_size(), " items by '", name, "', but of ", sources.front()->group_size(),
                " overall; --list-size makes them equal");
  }
  return sources;
}

// Which part a prompt belongs to: a function of the prompts and the seed alone.
std::unordered_map<std::string, Part> split_prompts(const Sources& sources, const TrainRewardOptions& options) {
  std::set<std::string> prompts;
  for (const auto& source : sources) {
    for (int64_t i = 0; i < source->size(); ++i) prompts.insert(source->prompt(i));
  }
  std::map<std::pair<ContentHash, std::string>, Part> ordered;
  for (const std::string& prompt : prompts) {
    ordered[{ContentHasher().add("reward split").add(options.seed).add(prompt).finish(), prompt}] = Part::kTrain;
  }
  const auto count = static_cast<int64_t>(prompts.size());
  const auto share = [&](double fraction) {
    return std::max<int64_t>(1, std::llround(fraction * static_cast<double>(count)));
  };
  const bool splits_test = options.test_data.empty() && options.test_fraction > 0;
  int64_t num_test = splits_test ? share(options.test_fraction) : 0;
  int64_t num_validation = options.eval_data.empty() ? share(options.eval_fraction) : 0;
  check_input(num_test + num_validation < count, options.data.front().string(), ": ", count,
              count == 1 ? " distinct prompt" : " distinct prompts",
              ", too few to hold some out for validation and test and train on the rest");
  for (auto& [key, part] : ordered) {
    if (num_test > 0) {
      part = Part::kTest;
      --num_test;
    } else if (num_validation > 0) {
      part = Part::kValidation;
      --num_validation;
    }
  }
  std::unordered_map<std::string, Part> parts;
  for (const auto& [key, part] : ordered) parts.emplace(key.second, part);
  return parts;
}

// 1 / (groups of the same prompt and column), as PickScore's num_example_per_prompt.
void weigh_by_prompt(const RewardData& data, std::vector<RewardGroup>& groups) {
  std::map<std::pair<int32_t, std::string>, double> counts;
  for (const RewardGroup& group : groups) counts[{group.source, data.prompt(group)}] += 1;
  for (RewardGroup& group : groups) group.weight /= counts[{group.source, data.prompt(group)}];
}

class Enrolment {
 public:
  Enrolment(const TrainRewardOptions& options, const std::vector<std::string>& known_users)
      : enrols_(options.head == "pal"), leaves_known_out_(options.training() == RewardTraining::kUsers) {
    known_.insert(known_users.begin(), known_users.end());
  }

  bool takes(const std::string& user) const { return !leaves_known_out_ || !known_.contains(user); }

  // The users of a run: known ones first, then those of the training groups in order of their names.
  void enrol(RewardData& data, const std::vector<std::string>& known_users) const {
    if (!enrols_) return;
    std::set<std::string> fresh;
    for (const RewardGroup& group : data.train) {
      const std::string user = data.source(group).user(group.index);
      if (!known_.contains(user)) fresh.insert(user);
    }
    data.users = known_users;
    data.users.insert(data.users.end(), fresh.begin(), fresh.end());
    std::unordered_map<std::string, int64_t> places;
    for (size_t i = 0; i < data.users.size(); ++i) places.emplace(data.users[i], static_cast<int64_t>(i));
    for (auto* groups : {&data.train, &data.validation, &data.test}) {
      for (RewardGroup& group : *groups) {
        const auto place = places.find(data.source(group).user(group.index));
        group.user = place == places.end() ? -1 : place->second;  // who was never trained on is judged by the mean
      }
    }
  }

 private:
  bool enrols_;
  bool leaves_known_out_;
  std::unordered_set<std::string> known_;
};

// Adds the groups of a file of their own to one part.
void add_part(const TrainRewardOptions& options, const std::filesystem::path& path, const char* what,
              const std::unordered_map<std::string, Part>& parts, RewardData& data, std::vector<RewardGroup>& groups) {
  const Sources sources = open_sources(options, {path}, what);
  check_input(sources.front()->group_size() == data.group_size, path.string(), ": groups of ",
              sources.front()->group_size(), " items, but of ", data.group_size, " in --data");
  int64_t known = 0;
  for (size_t column = 0; column < sources.size(); ++column) {
    const auto place = static_cast<int32_t>(data.sources.size());
    data.sources.push_back(sources[column]);
    for (int64_t i = 0; i < sources[column]->size(); ++i) {
      groups.push_back({.source = place, .column = static_cast<int32_t>(column), .index = i});
      known += parts.contains(sources[column]->prompt(i)) ? 1 : 0;
    }
  }
  if (known > 0) log_warn(what, ": ", known, " groups have prompts that occur in --data");
}

}  // namespace

std::vector<double> RewardData::labels(const RewardGroup& group) const {
  const data::PreferenceDataset& from = source(group);
  if (labels_are_ratings) {
    std::vector<double> ratings = from.scores(group.index);
    return ratings.empty() ? from.labels(group.index) : ratings;
  }
  if (group.column == 0) return from.labels(group.index);
  std::vector<double> values = from.scores(group.index);
  if (values.size() != 2) return values;
  if (values[0] == values[1]) return {0.5, 0.5};
  return values[0] > values[1] ? std::vector<double>{1, 0} : std::vector<double>{0, 1};
}

int64_t RewardData::num_ties(const std::vector<RewardGroup>& groups) const {
  return std::count_if(groups.begin(), groups.end(), [&](const RewardGroup& group) {
    const std::vector<double> values = labels(group);
    return values.size() == 2 && values[0] == values[1];
  });
}

int64_t RewardData::num_prompts(const std::vector<RewardGroup>& groups) const {
  std::unordered_set<std::string> prompts;
  for (const RewardGroup& group : groups) prompts.insert(prompt(group));
  return static_cast<int64_t>(prompts.size());
}

Json RewardData::facts(const TrainRewardOptions& options) const {
  const auto part = [&](const std::vector<RewardGroup>& groups) {
    return Json{{"groups", groups.size()}, {"ties", num_ties(groups)}, {"prompts", num_prompts(groups)}};
  };
  const data::DatasetSummary& summary = sources.front()->summary();
  return {{"rows", summary.rows},
          {"used_rows", summary.used_rows},
          {"ties_dropped", options.drop_ties},
          {"group_size", group_size},
          {"seed", options.seed},
          {"train", part(train)},
          {"validation", part(validation)},
          {"test", part(test)}};
}

RewardData open_reward_data(const TrainRewardOptions& options, const std::vector<std::string>& known_users) {
  RewardData data;
  data.sources = open_sources(options, options.data, "data");
  data.columns = {"overall"};
  data.columns.insert(data.columns.end(), options.aspects.begin(), options.aspects.end());
  data.group_size = data.sources.front()->group_size();
  data.labels_are_ratings = options.loss == "mse";
  const auto parts = split_prompts(data.sources, options);
  const Enrolment enrolment(options, known_users);
  for (size_t s = 0; s < data.columns.size(); ++s) {
    const auto& source = *data.sources[s];
    for (int64_t i = 0; i < source.size(); ++i) {
      if (!enrolment.takes(source.user(i))) continue;
      const RewardGroup group{.source = static_cast<int32_t>(s), .column = static_cast<int32_t>(s), .index = i};
      const Part part = parts.at(source.prompt(i));
      auto& groups = part == Part::kTrain ? data.train : part == Part::kTest ? data.test : data.validation;
      groups.push_back(group);
    }
  }
  if (!options.eval_data.empty()) {
    add_part(options, options.eval_data, "validation data", parts, data, data.validation);
  }
  if (!options.test_data.empty()) add_part(options, options.test_data, "test data", parts, data, data.test);
  check_input(!data.train.empty() && !data.validation.empty(), options.data.front().string(),
              ": nothing is left to train on, or nothing to validate with");
  enrolment.enrol(data, known_users);
  if (!options.no_prompt_weights) weigh_by_prompt(data, data.train);
  log_info("train ", data.train.size(), " groups of ", data.num_prompts(data.train), " prompts, validation ",
           data.validation.size(), " of ", data.num_prompts(data.validation), ", test ", data.test.size(), " of ",
           data.num_prompts(data.test));
  return data;
}

}  // namespace prefusion::training
