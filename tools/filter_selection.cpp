#include "tools/filter_selection.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "core/error.h"
#include "data/filters/prompt_rules.h"
#include "data/filters/text_diversity.h"

namespace prefusion::tools {

using namespace data::filters;

namespace {

// The prompts of some groups: each once, and its number for every group.
struct Prompts {
  std::vector<std::string> texts;
  std::vector<int64_t> of_group;
  Prompts(const GroupSet& set, const std::vector<int64_t>& groups) {
    std::map<uint32_t, int64_t> numbers;
    for (const int64_t index : groups) {
      const auto [entry, is_new] = numbers.try_emplace(set.groups[index].prompt, static_cast<int64_t>(texts.size()));
      if (is_new) texts.push_back(set.prompt(set.groups[index]));
      of_group.push_back(entry->second);
    }
  }
};

// Groups leave that lack a term of the score that is asked for.
Rule complete_terms_rule(const FilterRequest& request, const FilterResult& result) {
  const auto apply = [&request, &result](const GroupSet&, std::span<const int64_t> alive) {
    std::vector<Dropped> dropped;
    for (const int64_t index : alive) {
      if (request.importance.margin_weight != 0 && std::isnan(result.margins[index])) {
        dropped.push_back({.group = index, .why = concat("no margin by ", result.margin_name)});
      } else if (request.importance.quality_weight != 0 && std::isnan(result.qualities[index])) {
        dropped.push_back({.group = index, .why = concat("no ", result.quality_name)});
      }
    }
    return dropped;
  };
  return Rule{.name = "complete", .says = "groups that have every term of the score", .apply = apply};
}

// The groups that are left before selection, with what is known of each.
struct Candidates {
  std::vector<int64_t> groups;
  Prompts prompts;
  at::Tensor embeddings;  // of the prompts; undefined where diversity is not looked at
  ImportanceTerms terms;
  std::vector<double> values;  // the score
};

Candidates score_candidates(const FilterRequest& request, FilterResult& result) {
  Candidates found{.groups = result.kept, .prompts = Prompts(result.set, result.kept)};
  found.values.assign(found.groups.size(), 0.0);
  for (const int64_t index : found.groups) {
    found.terms.margin.push_back(result.margins[index]);
    found.terms.quality.push_back(result.qualities[index]);
  }
  found.terms.diversity.assign(found.groups.size(), 0.0);
  if (request.select == "random") return found;
  if (request.importance.diversity_weight != 0) {
    found.embeddings = embed_texts(found.prompts.texts, request.texts);
    const at::Tensor logs = knn_log_distances(found.embeddings, request.importance.neighbours);
    for (size_t i = 0; i < found.groups.size(); ++i) {
      found.terms.diversity[i] = logs.data_ptr<double>()[found.prompts.of_group[i]];
    }
    result.embedding = request.texts.text_encoder.empty() ? "hashed n-grams" : request.texts.text_encoder.string();
    result.diversity_before = logs.mean().item<double>();
  }
  found.values = importance(found.terms, request.importance);
  return found;
}

// Those of the candidates that are among `kept`, both in order; terms stay as they were measured among all.
Candidates only(const Candidates& all, const std::vector<int64_t>& kept) {
  Candidates left{.groups = kept, .prompts = all.prompts, .embeddings = all.embeddings};
  left.prompts.of_group.clear();
  for (size_t i = 0, j = 0; i < all.groups.size() && j < kept.size(); ++i) {
    if (all.groups[i] != kept[j]) continue;
    ++j;
    left.prompts.of_group.push_back(all.prompts.of_group[i]);
    left.terms.margin.push_back(all.terms.margin[i]);
    left.terms.quality.push_back(all.terms.quality[i]);
    left.terms.diversity.push_back(all.terms.diversity[i]);
    left.values.push_back(all.values[i]);
  }
  return left;
}

std::vector<int64_t> chosen_places(const FilterRequest& request, const Candidates& candidates, int64_t count) {
  if (request.select == "random") {
    return random_places(static_cast<int64_t>(candidates.groups.size()), count, request.seed);
  }
  if (request.select == "greedy") {
    return greedy(candidates.terms, candidates.prompts.of_group, candidates.embeddings, count, request.importance);
  }
  return top(candidates.values, count);
}

Rule keep_rule(const FilterRequest& request, Candidates candidates, int64_t count) {
  const bool is_random = request.select == "random";
  const char* how = is_random ? "by chance" : request.select == "greedy" ? "by greedy selection" : "by the score";
  const auto apply = [&request, candidates = std::move(candidates), count, is_random](const GroupSet&,
                                                                                      std::span<const int64_t>) {
    std::vector<bool> stays(candidates.groups.size());
    for (const int64_t place : chosen_places(request, candidates, count)) stays[place] = true;
    std::vector<Dropped> dropped;
    for (size_t i = 0; i < stays.size(); ++i) {
      if (stays[i]) continue;
      std::string why = is_random ? "not drawn" : concat("score ", candidates.values[i]);
      dropped.push_back({.group = candidates.groups[i], .why = std::move(why)});
    }
    return dropped;
  };
  return Rule{.name = "keep", .says = concat(request.keep, " ", how), .apply = apply};
}

// The same measure of the prompts that are kept, among themselves.
double diversity_among(const Candidates& all, const std::vector<int64_t>& kept, int64_t neighbours) {
  std::vector<int64_t> rows = only(all, kept).prompts.of_group;
  std::sort(rows.begin(), rows.end());
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  const at::Tensor embeddings = all.embeddings.index_select(0, at::tensor(rows, at::kLong));
  return knn_log_distances(embeddings, neighbours).mean().item<double>();
}

}  // namespace

void select_groups(const FilterRequest& request, int64_t num_read, FilterResult& result) {
  if (request.keep.empty() && request.max_per_prompt == 0) return;
  const GroupSet& set = result.set;
  if (request.select != "random") result.apply({complete_terms_rule(request, result)});
  if (result.kept.empty()) return;
  const Candidates candidates = score_candidates(request, result);
  if (request.max_per_prompt > 0) {
    std::vector<double> by_group(set.groups.size(), 0.0);
    for (size_t i = 0; i < candidates.groups.size(); ++i) by_group[candidates.groups[i]] = candidates.values[i];
    result.apply({per_prompt_rule(request.max_per_prompt, by_group)});
  }
  if (!request.keep.empty()) {
    const int64_t count = parse_keep(request.keep).of(num_read);
    result.apply({keep_rule(request, only(candidates, result.kept), count)});
  }
  if (candidates.embeddings.defined() && !result.kept.empty()) {
    result.diversity_after = diversity_among(candidates, result.kept, request.importance.neighbours);
  }
}

}  // namespace prefusion::tools
