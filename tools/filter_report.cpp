#include "tools/filter_report.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <sstream>

#include "core/error.h"
#include "training/html.h"

namespace prefusion::tools {

using namespace data::filters;
using OrderedJson = nlohmann::ordered_json;
using training::html_escape;

namespace {

constexpr size_t kExamples = 5;
constexpr size_t kLargestPrompts = 10;
constexpr int kBins = 20;
constexpr double kChartWidth = 560;
constexpr double kChartHeight = 120;

OrderedJson examples_of(const GroupSet& set, const RuleOutcome& outcome) {
  OrderedJson examples = OrderedJson::array();
  for (size_t i = 0; i < std::min(kExamples, outcome.dropped.size()); ++i) {
    const Group& group = set.groups[outcome.dropped[i].group];
    examples.push_back({{"id", set.id(group)}, {"prompt", set.prompt(group)}, {"why", outcome.dropped[i].why}});
  }
  return examples;
}

OrderedJson rules_of(const FilterResult& result) {
  OrderedJson rules = OrderedJson::array();
  for (const RuleOutcome& outcome : result.rules) {
    const auto dropped = static_cast<int64_t>(outcome.dropped.size());
    rules.push_back({{"name", outcome.name},
                     {"keeps", outcome.says},
                     {"before", outcome.before},
                     {"dropped", dropped},
                     {"after", outcome.before - dropped},
                     {"examples", examples_of(result.set, outcome)}});
  }
  return rules;
}

std::vector<double> present(const std::vector<double>& values) {
  std::vector<double> out;
  std::copy_if(values.begin(), values.end(), std::back_inserter(out), [](double value) { return !std::isnan(value); });
  return out;
}

OrderedJson spread_of(const std::vector<double>& values) {
  if (values.empty()) return {{"count", 0}};
  double sum = 0;
  for (const double value : values) sum += value;
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  return {{"count", values.size()}, {"mean", sum / static_cast<double>(values.size())}, {"min", *low}, {"max", *high}};
}

std::vector<int64_t> histogram(const std::vector<double>& values, double low, double high) {
  std::vector<int64_t> counts(kBins);
  for (const double value : values) {
    const double place = high > low ? (value - low) / (high - low) * kBins : 0.0;
    ++counts[static_cast<size_t>(std::clamp(place, 0.0, kBins - 1.0))];
  }
  return counts;
}

// A quantity of all groups and of those that are kept.
OrderedJson comparison(const std::vector<double>& all, const std::vector<int64_t>& kept) {
  std::vector<double> chosen;
  for (const int64_t index : kept) chosen.push_back(all[index]);
  const std::vector<double> before = present(all);
  const std::vector<double> after = present(chosen);
  OrderedJson json = {{"before", spread_of(before)}, {"after", spread_of(after)}};
  if (before.empty()) return json;
  const auto [low, high] = std::minmax_element(before.begin(), before.end());
  json["histogram"] = {{"from", *low},
                       {"to", *high},
                       {"before", histogram(before, *low, *high)},
                       {"after", histogram(after, *low, *high)}};
  return json;
}

OrderedJson prompts_of(const FilterResult& result) {
  std::map<uint32_t, std::pair<int64_t, int64_t>> counts;  // groups of a prompt before and after
  for (const Group& group : result.set.groups) ++counts[group.prompt].first;
  for (const int64_t index : result.kept) ++counts[result.set.groups[index].prompt].second;
  std::vector<std::pair<uint32_t, std::pair<int64_t, int64_t>>> sorted(counts.begin(), counts.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.second.first > b.second.first; });
  const auto after = std::count_if(sorted.begin(), sorted.end(), [](const auto& entry) { return entry.second.second; });
  OrderedJson largest = OrderedJson::array();
  for (size_t i = 0; i < std::min(kLargestPrompts, sorted.size()); ++i) {
    largest.push_back({{"prompt", result.set.texts[sorted[i].first]},
                       {"before", sorted[i].second.first},
                       {"after", sorted[i].second.second}});
  }
  return {{"before", counts.size()}, {"after", after}, {"largest", largest}};
}

const char* shape_name(GroupShape shape) {
  return shape == GroupShape::kPairs ? "pairs" : shape == GroupShape::kLists ? "lists" : "unpaired";
}

std::string cell(const OrderedJson& value) {
  if (value.is_string()) return html_escape(value.get<std::string>());
  if (!value.is_number_float()) return value.dump();
  std::ostringstream out;
  out.precision(4);
  out << value.get<double>();
  return out.str();
}

std::string table(const std::vector<std::string>& header, const std::vector<std::vector<OrderedJson>>& rows) {
  std::string html = "<table><tr>";
  for (const std::string& name : header) html += "<th>" + html_escape(name) + "</th>";
  html += "</tr>";
  for (const auto& row : rows) {
    html += "<tr>";
    for (const OrderedJson& value : row) html += "<td>" + cell(value) + "</td>";
    html += "</tr>";
  }
  return html + "</table>";
}

// Bars of shares: grey before, coloured after, each by its own total, so that forms can be compared.
std::string bars(const OrderedJson& histogram) {
  const auto before = histogram["before"].get<std::vector<int64_t>>();
  const auto after = histogram["after"].get<std::vector<int64_t>>();
  const auto share = [](const std::vector<int64_t>& counts, size_t i) {
    double total = 0;
    for (const int64_t count : counts) total += static_cast<double>(count);
    return total > 0 ? static_cast<double>(counts[i]) / total : 0.0;
  };
  double highest = 1e-9;
  for (size_t i = 0; i < before.size(); ++i) highest = std::max({highest, share(before, i), share(after, i)});
  const double width = kChartWidth / static_cast<double>(before.size());
  std::string svg = concat("<svg viewBox='0 0 ", kChartWidth, " ", kChartHeight + 20, "' role='img'>");
  const auto bar = [&](double x, double bar_width, double value, const char* colour) {
    const double height = kChartHeight * value / highest;
    svg += concat("<rect x='", x, "' y='", kChartHeight - height, "' width='", bar_width, "' height='", height,
                  "' fill='", colour, "'/>");
  };
  for (size_t i = 0; i < before.size(); ++i) {
    const double x = static_cast<double>(i) * width;
    bar(x + 1, width - 2, share(before, i), "#bbb");
    bar(x + width / 4, width / 2, share(after, i), "#2563eb");
  }
  svg += concat("<text x='0' y='", kChartHeight + 15, "' font-size='12'>", cell(histogram["from"]), "</text>");
  svg += concat("<text x='", kChartWidth, "' y='", kChartHeight + 15, "' font-size='12' text-anchor='end'>",
                cell(histogram["to"]), "</text></svg>");
  return svg;
}

std::string quantity_section(const std::string& title, const OrderedJson& quantity) {
  std::string html = "<h2>" + html_escape(title) + "</h2>";
  std::vector<std::vector<OrderedJson>> rows;
  for (const char* when : {"before", "after"}) {
    const OrderedJson& spread = quantity[when];
    std::vector<OrderedJson> row = {when, spread["count"]};
    for (const char* key : {"mean", "min", "max"}) row.push_back(spread.value(key, OrderedJson("")));
    rows.push_back(row);
  }
  html += table({"", "groups", "mean", "least", "largest"}, rows);
  if (quantity.contains("histogram")) {
    html += "<p>Shares of the groups: grey before, blue after.</p>" + bars(quantity["histogram"]);
  }
  return html;
}

std::string rules_section(const OrderedJson& rules) {
  std::vector<std::vector<OrderedJson>> counts;
  std::vector<std::vector<OrderedJson>> examples;
  for (const OrderedJson& rule : rules) {
    counts.push_back({rule["name"], rule["keeps"], rule["before"], rule["dropped"], rule["after"]});
    for (const OrderedJson& example : rule["examples"]) {
      examples.push_back({rule["name"], example["id"], example["prompt"], example["why"]});
    }
  }
  std::string html = "<h2>Rules, in order</h2>" + table({"rule", "what stays", "before", "dropped", "after"}, counts);
  if (examples.empty()) return html;
  return html + "<h2>Examples of what left</h2>" + table({"rule", "group", "prompt", "why"}, examples);
}

}  // namespace

OrderedJson filter_report(const FilterRequest& request, const FilterResult& result) {
  OrderedJson inputs = OrderedJson::array();
  for (const auto& input : request.inputs) inputs.push_back(input.string());
  const data::DatasetSummary& summary = result.set.summary;
  OrderedJson report = {{"input", inputs},
                        {"output", request.output.string()},
                        {"shape", shape_name(result.shape)},
                        {"groups", result.set.groups.size()},
                        {"kept", result.kept.size()}};
  report["read"] = {{"files", summary.files},
                    {"rows", summary.rows},
                    {"used", summary.used_rows},
                    {"without_label", summary.missing_labels},
                    {"inconsistent_labels", summary.inconsistent},
                    {"without_prompt", summary.missing_prompts},
                    {"without_score", summary.missing_scores},
                    {"malformed", summary.malformed},
                    {"bad_files", summary.bad_files}};
  report["conversion"] = {{"to", request.to.empty() ? "none" : request.to},
                          {"ties_dropped", result.conversion.ties},
                          {"too_short", result.conversion.too_short},
                          {"unused_pictures", result.conversion.unused},
                          {"same_picture", result.conversion.same_picture}};
  if (result.scores) {
    report["scores"] = {{"file", request.scores.string()},          {"rows", result.scores->rows},
                        {"matched", result.scores->matched},        {"failed", result.scores->failed},
                        {"pictures_scored", result.scores->scored}, {"names", result.scores->names}};
  }
  report["relabelled"] = result.relabelled.size();
  report["rules"] = rules_of(result);
  report["margin"] = comparison(result.margins, result.kept);
  report["margin"]["of"] = result.margin_name;
  report["quality"] = comparison(result.qualities, result.kept);
  report["quality"]["of"] = result.quality_name;
  report["prompts"] = prompts_of(result);
  if (!result.embedding.empty()) {
    report["diversity"] = {{"embedding", result.embedding},
                           {"neighbours", request.importance.neighbours},
                           {"before", result.diversity_before},
                           {"after", result.diversity_after}};
  }
  return report;
}

std::string filter_summary(const OrderedJson& report) {
  std::ostringstream out;
  out << report["groups"] << " groups (" << report["shape"].get<std::string>() << ")";
  if (report["conversion"]["ties_dropped"] != 0) out << ", " << report["conversion"]["ties_dropped"] << " ties dropped";
  out << "\n";
  if (report["relabelled"] != 0) out << "  relabelled " << report["relabelled"] << "\n";
  for (const OrderedJson& rule : report["rules"]) {
    out << "  " << rule["name"].get<std::string>() << ": " << rule["before"] << " -> " << rule["after"] << "  ("
        << rule["keeps"].get<std::string>() << ")\n";
  }
  out << "kept " << report["kept"] << " groups, " << report["prompts"]["after"] << " of " << report["prompts"]["before"]
      << " prompts\n";
  return out.str();
}

std::string filter_html(const OrderedJson& report) {
  std::string body = "<p>" + cell(report["kept"]) + " of " + cell(report["groups"]) + " groups (" +
                     cell(report["shape"]) + ") were kept.</p>";
  std::vector<std::vector<OrderedJson>> read;
  for (const char* part : {"read", "conversion", "scores"}) {
    if (!report.contains(part)) continue;
    for (const auto& [key, value] : report[part].items()) read.push_back({concat(part, ": ", key), value});
  }
  body += "<h2>What was read</h2>" + table({"", ""}, read) + rules_section(report["rules"]);
  body += quantity_section("Margin by " + report["margin"]["of"].get<std::string>(), report["margin"]);
  body += quantity_section("Text quality: " + report["quality"]["of"].get<std::string>(), report["quality"]);
  if (report.contains("diversity")) {
    const OrderedJson& diversity = report["diversity"];
    body += "<h2>Text diversity</h2>" +
            table({"", "mean log distance to the neighbour"},
                  {{concat("before, by ", diversity["embedding"].get<std::string>()), diversity["before"]},
                   {"after, among the kept prompts", diversity["after"]}});
  }
  std::vector<std::vector<OrderedJson>> largest;
  for (const OrderedJson& prompt : report["prompts"]["largest"]) {
    largest.push_back({prompt["prompt"], prompt["before"], prompt["after"]});
  }
  body += "<h2>Prompts</h2><p>" + cell(report["prompts"]["after"]) + " of " + cell(report["prompts"]["before"]) +
          " prompts have groups that were kept. Those with the most groups:</p>" +
          table({"prompt", "groups before", "after"}, largest);
  return training::html_page("Curation", body);
}

}  // namespace prefusion::tools
