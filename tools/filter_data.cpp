#include "tools/filter_data.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/interrupt.h"
#include "core/logging.h"
#include "core/progress.h"
#include "data/filters/picture_rules.h"
#include "data/filters/prompt_rules.h"
#include "tools/filter_selection.h"

namespace prefusion::tools {

using namespace data::filters;

namespace {

GroupSet open_set(const FilterRequest& request) {
  OpenOptions options{.score_name = request.score_name, .max_bad = data::parse_bad_limit(request.max_bad)};
  if (!request.quality_column.empty()) options.columns.insert(request.quality_column);
  for (const std::string& text : request.require) options.columns.insert(parse_requirement(text).column);
  return open_groups(request.inputs, options);
}

// What the groups are, all of them.
GroupShape shape_of(const GroupSet& set) {
  bool has_single = false;
  bool has_list = false;
  for (const Group& group : set.groups) {
    has_single |= group.items.size() == 1;
    has_list |= group.items.size() > 2;
  }
  const bool is_unpaired =
      std::all_of(set.groups.begin(), set.groups.end(), [](const Group& group) { return group.items.size() == 1; });
  check_usage(!has_single || is_unpaired,
              "the data mixes single pictures with pairs or lists: say by --to what is to be made of them");
  return is_unpaired ? GroupShape::kUnpaired : has_list ? GroupShape::kLists : GroupShape::kPairs;
}

PairRule parse_pair_rule(const std::string& name) {
  return name == "all" ? PairRule::kAll : name == "adjacent" ? PairRule::kAdjacent : PairRule::kBestWorst;
}

std::vector<int64_t> all_groups(const GroupSet& set) {
  std::vector<int64_t> indices(set.groups.size());
  std::iota(indices.begin(), indices.end(), int64_t{0});
  return indices;
}

void look(GroupSet& set, const std::vector<int64_t>& indices, bool with_hash, bool show_progress) {
  std::unique_ptr<Progress> progress;
  look_at_pictures(set, indices, with_hash, [&](int64_t done, int64_t total) {
    if (!progress) progress = std::make_unique<Progress>("pictures", total, "picture", show_progress);
    progress->update(done);
  });
}

// What readable_rule() took out is counted against --max-bad.
void check_unreadable(const FilterRequest& request, const RuleOutcome& outcome) {
  const auto bad = static_cast<int64_t>(outcome.dropped.size());
  for (const Dropped& dropped : outcome.dropped) log_warn("skipped: ", dropped.why);
  check_input(!data::parse_bad_limit(request.max_bad).is_exceeded(bad, outcome.before), bad, " groups of ",
              outcome.before, " have pictures that cannot be read, more than --max-bad ", request.max_bad,
              " allows; the first: ", bad > 0 ? outcome.dropped[0].why : "");
}

// Takes out the groups with a broken picture, which cannot be joined.
void drop_unreadable(GroupSet& set, const FilterRequest& request) {
  std::vector<int64_t> alive = all_groups(set);
  check_unreadable(request, apply_rules(set, {readable_rule()}, alive)[0]);
  std::vector<Group> readable;
  for (const int64_t index : alive) readable.push_back(std::move(set.groups[index]));
  set.groups = std::move(readable);
}

void convert(const FilterRequest& request, FilterResult& result) {
  GroupSet& set = result.set;
  const bool keep_ties = request.ties == "keep";
  const GroupShape own = request.to.empty() ? shape_of(set) : GroupShape::kPairs;
  if (request.to == "pairs") {
    result.shape = GroupShape::kPairs;
    result.conversion = to_pairs(set.groups, parse_pair_rule(request.list_pairs), keep_ties);
  } else if (request.to == "lists") {
    result.shape = GroupShape::kLists;
    if (!keep_ties) {
      result.conversion = without_ties(set.groups);
      set.groups = std::move(result.conversion.groups);
    }
    const int64_t ties = result.conversion.ties;
    look(set, all_groups(set), /*with_hash=*/false, request.progress);
    drop_unreadable(set, request);
    result.conversion = to_lists(set, set.groups);
    result.conversion.ties = ties;
  } else if (request.to == "unpaired") {
    result.shape = GroupShape::kUnpaired;
    result.conversion = to_unpaired(set, set.groups, parse_threshold(request.threshold), keep_ties);
  } else {
    result.shape = own;
    if (keep_ties) return;
    result.conversion = without_ties(set.groups);
  }
  set.groups = std::move(result.conversion.groups);
  check_input(!set.groups.empty(), "nothing is left after conversion: ", result.conversion.ties, " ties, ",
              result.conversion.too_short, " groups with too few pictures");
}

std::vector<Rule> fact_rules(const FilterRequest& request, const GroupSet& set) {
  std::vector<Rule> rules;
  for (const std::string& text : request.include) rules.push_back(include_rule(text));
  for (const std::string& text : request.exclude) rules.push_back(exclude_rule(text));
  for (const std::string& text : request.require) rules.push_back(require_rule(set, parse_requirement(text)));
  for (const std::string& text : request.min_margin) rules.push_back(min_margin_rule(set, parse_margin_bound(text)));
  for (const std::string& text : request.max_margin) rules.push_back(max_margin_rule(set, parse_margin_bound(text)));
  if (!request.agree.empty()) rules.push_back(agreement_rule(set, request.agree, request.min_agreement));
  if (request.flips == "drop") rules.push_back(drop_flips_rule(set, request.flip_scores, request.flip_strength));
  return rules;
}

std::vector<Rule> picture_rules(const FilterRequest& request) {
  std::vector<Rule> rules;
  if (request.min_size > 0) rules.push_back(min_size_rule(request.min_size));
  if (request.drop_same_pictures) rules.push_back(same_picture_rule(request.hash_distance));
  if (request.duplicates != "keep") {
    const auto kind = request.duplicates == "picture" ? DuplicateKind::kPicture : DuplicateKind::kGroup;
    rules.push_back(duplicate_rule(kind, request.hash_distance));
  }
  return rules;
}

// Margins by the named score, the only one, or the labels; qualities by the column or what can be seen.
void measure(const FilterRequest& request, FilterResult& result) {
  const GroupSet& set = result.set;
  std::optional<size_t> score;
  if (!request.margin_score.empty()) score = set.score(request.margin_score);
  if (request.margin_score.empty() && set.score_names.size() == 1) score = 0;
  result.margin_name = score ? set.score_names[*score] : "label";
  result.quality_name = request.quality_column.empty() ? "built-in" : request.quality_column;
  for (const Group& group : set.groups) {
    const double value = margin(group, score);
    result.margins.push_back(request.absolute_margin ? std::abs(value) : value);
    result.qualities.push_back(request.quality_column.empty() ? text_quality(set.prompt(group))
                                                              : group.numbers[set.column(request.quality_column)]);
  }
}

}  // namespace

void FilterResult::apply(const std::vector<Rule>& wanted) {
  for (RuleOutcome& outcome : apply_rules(set, wanted, kept)) rules.push_back(std::move(outcome));
}

FilterResult filter_data(const FilterRequest& request) {
  FilterResult result;
  result.set = open_set(request);
  log_info(result.set.summary.text());
  result.rows_read = static_cast<int64_t>(result.set.groups.size());
  if (!request.scores.empty()) {
    result.scores = join_scores(request.scores, result.set);
    log_info(request.scores.string(), ": ", result.scores->matched, " of ", result.scores->rows, " rows belong to ",
             result.scores->scored, " pictures of the data");
  }
  convert(request, result);
  GroupSet& set = result.set;
  const char* extension = result.shape == GroupShape::kUnpaired ? ".jsonl" : ".parquet";
  check_usage(request.output.empty() || request.output.extension() == extension, "--output ", request.output.string(),
              " must end in ", extension, ": the data is ",
              result.shape == GroupShape::kUnpaired ? "unpaired" : "pairs or lists");
  result.kept = all_groups(set);
  const auto num_read = static_cast<int64_t>(set.groups.size());
  if (request.flips == "relabel") {
    result.relabelled = relabel_flips(set, result.kept, request.flip_scores, request.flip_strength);
  }
  measure(request, result);
  result.apply(fact_rules(request, set));
  const std::vector<Rule> of_pictures = picture_rules(request);
  if (!of_pictures.empty()) {
    const bool with_hash = request.drop_same_pictures || request.duplicates != "keep";
    look(set, result.kept, with_hash, request.progress);
    result.apply({readable_rule()});
    check_unreadable(request, result.rules.back());
    result.apply(of_pictures);
  }
  select_groups(request, num_read, result);
  return result;
}

void write_groups(const FilterRequest& request, FilterResult& result) {
  check_input(!result.kept.empty(), "no group is left: the rule ", result.rules.empty() ? "" : result.rules.back().name,
              " took the last; --dry-run shows what each rule does");
  const auto writer = make_group_writer(result.set, result.kept, result.shape, request.output);
  Progress progress("write", static_cast<int64_t>(result.kept.size()), "group", request.progress);
  RuleOutcome unreadable{
      .name = "readable", .says = "pictures that can be read", .before = static_cast<int64_t>(result.kept.size())};
  std::vector<int64_t> written;
  for (const int64_t index : result.kept) {
    throw_if_interrupted();
    try {
      writer->add(result.set.groups[index]);
      written.push_back(index);
    } catch (const Error& error) {
      if (error.error_class() != ErrorClass::kInput) throw;
      unreadable.dropped.push_back({.group = index, .why = error.what()});
    }
    progress.update(static_cast<int64_t>(written.size()));
  }
  check_unreadable(request, unreadable);
  writer->finish();
  if (!unreadable.dropped.empty()) result.rules.push_back(std::move(unreadable));
  result.kept = std::move(written);
}

}  // namespace prefusion::tools
