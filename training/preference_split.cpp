#include "training/preference_split.h"

#include <algorithm>
#include <set>
#include <string_view>

#include "core/content_hash.h"
#include "core/error.h"
#include "core/logging.h"
#include "data/dataset.h"
#include "losses/registry.h"
#include "training/curriculum.h"
#include "training/own_samples.h"

namespace prefusion::training {

data::GroupKind group_kind(losses::DataKind kind) {
  switch (kind) {
    case losses::DataKind::kSingle:
    case losses::DataKind::kPair: return data::GroupKind::kPair;
    case losses::DataKind::kList: return data::GroupKind::kList;
    case losses::DataKind::kUnpaired: return data::GroupKind::kUnpaired;
    case losses::DataKind::kOnline: break;
  }
  fail_usage("--objective: an online objective makes its own data");
}

namespace {

// The groups whose only picture is a good one. A score is no verdict.
std::shared_ptr<const data::PreferenceDataset> desirable(std::shared_ptr<const data::PreferenceDataset> pictures,
                                                         const std::string& where) {
  std::vector<int64_t> kept;
  for (int64_t i = 0; i < pictures->size(); ++i) {
    const double label = pictures->labels(i).front();
    const std::vector<double> scores = pictures->scores(i);
    if (label >= 0.5 || (!scores.empty() && scores.front() == label)) kept.push_back(i);
  }
  check_input(!kept.empty(), where, ": holds no desirable picture");
  if (static_cast<int64_t>(kept.size()) == pictures->size()) return pictures;
  log_info(kept.size(), " of ", pictures->size(), " pictures are desirable");
  return data::subset(std::move(pictures), std::move(kept));
}

std::shared_ptr<const data::PreferenceDataset> open_data(const std::vector<std::filesystem::path>& paths,
                                                         const data::DatasetOptions& options, DataNeeds needs,
                                                         const char* what) {
  std::shared_ptr<const data::PreferenceDataset> dataset = data::open_preference_data(paths, options);
  log_info(what, ": ", dataset->summary().text());
  check_input(!needs.scores || !dataset->summary().score_name.empty(), paths.front().string(),
              ": the objective needs one reward score of every image: ", dataset->summary().text(),
              "; expected the field 'scores' (JSONL, ranked lists) or the columns 'score_0' and 'score_1'");
  return dataset;
}

// Whether every row gives one picture.
bool holds_pictures(const AlignOptions& options, data::DatasetOptions dataset_options) {
  dataset_options.group = data::GroupKind::kUnpaired;
  const auto dataset = data::open_preference_data(options.data, dataset_options);
  return dataset->summary().groups == dataset->summary().used_rows;
}

PreferenceSplit split_off_held_out(const AlignOptions& options, losses::DataKind kind, DataNeeds needs) {
  data::DatasetOptions dataset_options{.group = group_kind(kind),
                                       .keep_ties = options.keep_ties,
                                       .score_name = options.score_name,
                                       .item_prompts = needs.item_prompts,
                                       .masks = needs.masks,
                                       .users = needs.users};
  dataset_options.max_bad.fraction = options.max_bad;
  const bool learns_from_pictures =
      samples_rejected(losses::find_objective_info(options.objective)) && holds_pictures(options, dataset_options);
  if (learns_from_pictures) dataset_options.group = data::GroupKind::kUnpaired;
  const auto open = [&](const std::vector<std::filesystem::path>& paths, const char* what) {
    auto dataset = open_data(paths, dataset_options, needs, what);
    return learns_from_pictures ? desirable(std::move(dataset), paths.front().string()) : dataset;
  };
  const auto all = open(options.data, "data");
  const bool measures = options.eval_every > 0 && options.eval_groups > 0;
  if (measures && !options.eval_data.empty()) {
    return {all, open({options.eval_data}, "held-out data")};
  }
  if (!measures || options.eval_fraction <= 0 || all->summary().prompts < 2) return {all, nullptr};
  data::DatasetSplit split = data::split_by_prompt(all, options.eval_fraction, options.seed);
  log_info("held out ", split.eval->size(), " groups by prompt, ", split.train->size(), " train");
  return {std::move(split.train), std::move(split.eval)};
}

// Positions of the run's steps, without spare ones.
int64_t num_needed(const PreferenceSplit& split, const AlignOptions& options) {
  return resolve_num_steps(options, split.train->size()) * options.batch_size * options.accumulate;
}

}  // namespace

PreferenceSplit open_split(const AlignOptions& options, losses::DataKind kind, DataNeeds needs) {
  PreferenceSplit split = split_off_held_out(options, kind, needs);
  const Curriculum curriculum = Curriculum::parse(options.curriculum);
  check_usage(!curriculum.is_on() || split.train->group_size() > 1,
              "--curriculum: single pictures have no margin; it needs pairs or lists");
  if (curriculum.min_gap) {
    std::vector<int64_t> kept = groups_above_gap(*split.train, *curriculum.min_gap);
    log_info("curriculum: ", kept.size(), " of ", split.train->size(), " training groups have a margin above ",
             *curriculum.min_gap);
    split.train = data::subset(split.train, std::move(kept));
  }
  const int64_t num_chunks = curriculum.is_by_hardness() ? 1 : curriculum.num_chunks;
  split.chunks.assign(static_cast<size_t>(split.train->size()), 0);
  if (num_chunks > 1) {
    split.chunks = chunks_by_ease(margins_of(*split.train), num_chunks, "margin (of --score-name or soft labels)");
  }
  return split;
}

std::string records_key(const data::PreferenceDataset& dataset) {
  ContentHasher hash;
  const auto add = [&hash](const std::vector<double>& values) {
    hash.add(std::string_view(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(double)));
  };
  for (int64_t i = 0; i < dataset.size(); ++i) {
    hash.add(dataset.id(i)).add(dataset.prompt(i));
    add(dataset.labels(i));
    add(dataset.scores(i));
  }
  return hash.finish().hex();
}

GroupOrder train_order(const PreferenceSplit& split, const AlignOptions& options) {
  return {split.train, options.seed, split.chunks, num_needed(split, options), options.reference_draws};
}

std::vector<data::LoadRequest> train_requests(const PreferenceSplit& split, const AlignOptions& options, int64_t begin,
                                              int64_t end) {
  GroupOrder order = train_order(split, options);
  std::vector<data::LoadRequest> requests;
  for (int64_t position = begin; position < end; ++position) {
    const GroupRef group = order.at(position);
    requests.push_back({group.item, group.draw});
  }
  return requests;
}

int64_t num_positions(const PreferenceSplit& split, const AlignOptions& options) {
  const int64_t needed = num_needed(split, options);
  const auto spare = static_cast<int64_t>(static_cast<double>(needed) * options.max_bad * 2.0);
  return needed + spare + options.batch_size * options.accumulate;
}

std::vector<data::LoadRequest> distinct(const std::vector<data::LoadRequest>& requests) {
  std::set<std::pair<int64_t, uint64_t>> seen;
  std::vector<data::LoadRequest> kept;
  for (const auto& request : requests) {
    if (seen.emplace(request.index, request.draw).second) kept.push_back(request);
  }
  return kept;
}

std::vector<data::LoadRequest> all_draws(int64_t num_groups, int64_t num_draws) {
  std::vector<data::LoadRequest> requests;
  for (int64_t draw = 0; draw < num_draws; ++draw) {
    for (int64_t index = 0; index < num_groups; ++index) requests.push_back({index, static_cast<uint64_t>(draw)});
  }
  return requests;
}

std::vector<data::LoadRequest> held_out_requests(const PreferenceSplit& split, const AlignOptions& options) {
  std::vector<data::LoadRequest> requests;
  const int64_t count = split.held_out ? std::min(split.held_out->size(), options.eval_groups) : 0;
  for (int64_t index = 0; index < count; ++index) requests.push_back({index, 0});
  return requests;
}

}  // namespace prefusion::training
