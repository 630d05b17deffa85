#include "tools/synthesis_summary.h"

#include <algorithm>
#include <cstdio>

namespace prefusion::tools {
namespace {

template <typename... Args>
std::string format(const char* pattern, Args... args) {
  char line[512];
  std::snprintf(line, sizeof line, pattern, args...);
  return line;
}

double percent(int64_t part, int64_t whole) {
  return whole == 0 ? 0.0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

// What the run would have taken at the same rate without pruning.
double full_seconds(const SamplingCounts& counts) {
  if (counts.evaluations == 0) return 0;
  return counts.sampling_seconds * static_cast<double>(counts.full_evaluations) /
         static_cast<double>(counts.evaluations);
}

std::string pruning_text(const SamplingCounts& counts) {
  std::string text =
      format("pruning: %lld of %lld denoiser evaluations (%.1f %%) and %lld previews",
             static_cast<long long>(counts.evaluations), static_cast<long long>(counts.full_evaluations),
             percent(counts.evaluations, counts.full_evaluations), static_cast<long long>(counts.previews));
  if (counts.checked_groups > 0) {
    return text + format("; the best picture is that of sampling all to the end in %.1f %% of %lld groups\n",
                         percent(counts.same_winner, counts.checked_groups),
                         static_cast<long long>(counts.checked_groups));
  }
  return text + format("; %.1f s of sampling and %.1f s of previews, about %.1f s without\n", counts.sampling_seconds,
                       counts.preview_seconds, full_seconds(counts));
}

}  // namespace

std::string summary_text(const ListsSummary& summary) {
  size_t width = 5;
  for (const ModelSummary& model : summary.models) width = std::max(width, model.name.size());
  std::string text = format("%-*s  pictures", static_cast<int>(width), "model");
  for (const auto& [column, unused] : summary.models.front().scores) text += format("  %12s", column.c_str());
  text += "     phi  best of list\n";
  for (const ModelSummary& model : summary.models) {
    text += format("%-*s  %8lld", static_cast<int>(width), model.name.c_str(), static_cast<long long>(model.pictures));
    for (const auto& [column, mean] : model.scores) {
      text += format("  %*.4f", std::max(12, static_cast<int>(column.size())), mean);
    }
    text += format("  %6.3f  %10.1f %%\n", model.phi, 100 * model.first_share);
  }
  text += format("%lld lists of %lld pictures by %s; %.1f %% of their pairs are ties\n",
                 static_cast<long long>(summary.lists), static_cast<long long>(summary.pictures),
                 summary.aggregate.c_str(), 100 * summary.tie_share);
  if (summary.statistics.size() > 1) {
    text +=
        format("rewards disagree by %.2f deviations; %.1f %% of the pairs that two of them order go opposite ways\n",
               summary.disagreement, 100 * summary.discordance.share());
  }
  if (summary.judgements > 0) {
    text += format("judgements: %lld lists; %lld of %lld lines are about pictures of the lists\n",
                   static_cast<long long>(summary.judged_lists), static_cast<long long>(summary.used_judgements),
                   static_cast<long long>(summary.judgements));
  }
  if (summary.is_pruned) text += pruning_text(summary.counts);
  return text;
}

Json summary_json(const ListsSummary& summary) {
  Json models = Json::array();
  for (const ModelSummary& model : summary.models) {
    models.push_back({{"name", model.name},
                      {"pictures", model.pictures},
                      {"scores", model.scores},
                      {"phi", model.phi},
                      {"first_share", model.first_share}});
  }
  Json statistics = Json::object();
  for (const auto& [column, of_column] : summary.statistics) {
    statistics[column] = {{"mean", of_column.first}, {"std", of_column.second}};
  }
  Json json = {{"lists", summary.lists},
               {"pictures", summary.pictures},
               {"aggregate", summary.aggregate},
               {"models", models},
               {"tie_share", summary.tie_share},
               {"disagreement", summary.disagreement},
               {"discordant_share", summary.discordance.share()},
               {"statistics", statistics}};
  if (summary.judgements > 0) {
    json["judgements"] = {
        {"lines", summary.judgements}, {"used", summary.used_judgements}, {"lists", summary.judged_lists}};
  }
  if (summary.is_pruned) json["pruning"] = to_json(summary.counts);
  return json;
}

}  // namespace prefusion::tools
