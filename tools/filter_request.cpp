#include "tools/filter_request.h"

#include <cmath>

#include "core/error.h"
#include "data/bad_limit.h"
#include "data/filters/margin.h"
#include "data/filters/prompt_rules.h"

namespace prefusion::tools {

using namespace data::filters;

std::optional<Threshold> parse_threshold(const std::string& text) {
  if (text.empty()) return std::nullopt;
  const MarginBound bound = parse_margin_bound(text);
  return Threshold{.score = bound.score, .value = bound.value};
}

void validate(const FilterRequest& request) {
  std::string problems;
  const auto check = [&](bool holds, const std::string& problem) {
    if (!holds) problems += (problems.empty() ? "" : "; ") + problem;
  };
  const auto attempt = [&](const auto& parse) {
    try {
      parse();
    } catch (const Error& error) {
      check(false, error.what());
    }
  };
  check(!request.inputs.empty(), "--input is required");
  const std::string extension = request.output.extension().string();
  const bool wants_jsonl = request.to == "unpaired";
  check(request.output.empty() || request.to.empty() || extension == (wants_jsonl ? ".jsonl" : ".parquet"),
        concat("--output ", request.output.string(), " must end in ", wants_jsonl ? ".jsonl" : ".parquet", " for --to ",
               request.to));
  for (const auto& input : request.inputs) {
    std::error_code error;
    check(request.output.empty() || !std::filesystem::equivalent(input, request.output, error),
          concat("--output ", request.output.string(), " is the input"));
  }
  check(request.threshold.empty() || request.to == "unpaired", "--unpaired-threshold is for --to unpaired");
  check((request.flips == "keep") == request.flip_scores.empty(), "--flips drop or relabel goes with --flip-scores");
  const auto& weights = request.importance;
  check(std::isfinite(weights.margin_weight) && std::isfinite(weights.quality_weight) &&
            std::isfinite(weights.diversity_weight),
        "weights must be finite");
  const bool is_greedy = request.select == "greedy";
  check(!is_greedy || weights.diversity_weight != 0, "--select greedy without a --diversity-weight is --select top");
  check(!is_greedy || request.normalise != "rank", "--select greedy needs another --normalise than rank");
  check(request.select != "random" || !request.keep.empty(), "--select random needs --keep");
  attempt([&] { data::parse_bad_limit(request.max_bad); });
  attempt([&] {
    if (!request.keep.empty()) parse_keep(request.keep);
  });
  attempt([&] { parse_threshold(request.threshold); });
  for (const auto& text : request.include) attempt([&] { include_rule(text); });
  for (const auto& text : request.exclude) attempt([&] { exclude_rule(text); });
  for (const auto& text : request.require) attempt([&] { parse_requirement(text); });
  for (const auto& text : request.min_margin) attempt([&] { parse_margin_bound(text); });
  for (const auto& text : request.max_margin) attempt([&] { parse_margin_bound(text); });
  check_usage(problems.empty(), problems);
}

}  // namespace prefusion::tools
