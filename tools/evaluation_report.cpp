#include "tools/evaluation_report.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdio>
#include <numeric>

#include "core/atomic_file.h"
#include "core/error.h"
#include "images/image_encode.h"
#include "tools/contact_sheet.h"
#include "tools/generate_images.h"
#include "training/html.h"
#include "training/metrics_log.h"
#include "training/report.h"

namespace prefusion::tools {
namespace fs = std::filesystem;
namespace {

constexpr size_t kGridPictures = 48;
constexpr int64_t kGridColumns = 8;
constexpr size_t kCasePairs = 12;
constexpr int64_t kCaseColumns = 6;           // three pairs a row
constexpr int64_t kSmallestPicture_px = 112;  // captions need a width; smaller pictures are enlarged

at::Tensor enlarged(const at::Tensor& image) {
  const int64_t factor = (kSmallestPicture_px + image.size(1) - 1) / image.size(1);
  if (factor <= 1) return image;
  return image.repeat_interleave(factor, 0).repeat_interleave(factor, 1).contiguous();
}

void write_grid(const fs::path& path, const Pictures& pictures, const std::vector<training::JudgedPair>& pairs) {
  std::vector<SheetCell> cells;
  for (size_t i = 0; i < std::min(pictures.size(), kGridPictures); ++i) {
    cells.push_back({enlarged(pictures[i]), pairs[i].prompt});
  }
  write_file(path, render_contact_sheet(cells, kGridColumns));
}

std::string scores_text(const std::vector<double>& scores, const training::EvaluationSummary& summary) {
  std::string text;
  for (size_t axis = 0; axis < std::min<size_t>(scores.size(), 2); ++axis) {
    char number[16];
    std::snprintf(number, sizeof number, "%.3g", scores[axis]);
    text += concat(text.empty() ? "" : ", ", summary.axes[axis].name, " ", number);
  }
  return text;
}

// Pairs of pictures, the baseline's on the left.
void write_cases(const fs::path& path, const Evaluation& evaluation, const std::vector<size_t>& cases) {
  std::vector<SheetCell> cells;
  for (const size_t i : cases) {
    const training::JudgedPair& pair = evaluation.pairs[i];
    cells.push_back({enlarged(evaluation.baseline_pictures[i]), pair.prompt});
    cells.push_back(
        {enlarged(evaluation.model_pictures[i]), concat("now: ", scores_text(pair.model, evaluation.summary),
                                                        " was: ", scores_text(pair.baseline, evaluation.summary))});
  }
  write_file(path, render_contact_sheet(cells, kCaseColumns));
}

// Pairs from the one the model wins most to the one it loses most.
std::vector<size_t> by_advantage(const std::vector<training::JudgedPair>& pairs) {
  std::vector<size_t> order(pairs.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return pairs[a].advantage > pairs[b].advantage; });
  return order;
}

void write_pictures(const fs::path& folder, const Evaluation& evaluation) {
  make_folder(folder);
  for (size_t i = 0; i < evaluation.pairs.size(); ++i) {
    char name[32];
    std::snprintf(name, sizeof name, "%05zu-", i);
    write_file(folder / concat(name, "baseline.png"), images::encode_png(evaluation.baseline_pictures[i]));
    write_file(folder / concat(name, "model.png"), images::encode_png(evaluation.model_pictures[i]));
  }
}

// Values of an axis in rising order over the share of pictures: the curves lie apart where the models do.
std::string axis_chart(const training::EvaluationSummary& summary, const std::vector<training::JudgedPair>& pairs,
                       size_t axis) {
  training::Series baseline{"baseline", {}}, model{"model", {}};
  std::vector<double> before, after;
  for (const auto& pair : pairs) {
    before.push_back(pair.baseline[axis]);
    after.push_back(pair.model[axis]);
  }
  std::sort(before.begin(), before.end());
  std::sort(after.begin(), after.end());
  for (size_t i = 0; i < pairs.size(); ++i) {
    const double share = (static_cast<double>(i) + 0.5) / static_cast<double>(pairs.size());
    baseline.points.emplace_back(share, before[i]);
    model.points.emplace_back(share, after[i]);
  }
  return training::svg_chart(summary.axes[axis].name + " over the share of pictures, sorted", {baseline, model});
}

// "shapes" or "pickscore=/models/PickScore_v1, hpsv2=..., with margin 0.1".
std::string judge_text(const EvaluateOptions& options) {
  std::string text;
  for (const std::string& reward : options.rewards) text += (text.empty() ? "" : ", ") + reward;
  return options.margin ? concat(text, " with margin ", *options.margin) : text;
}

// All models have the same user.
std::string user_text(const EvaluateOptions& options) {
  const Contender& model = options.models.front();
  if (model.user_adapter.empty()) return "";
  return concat(", for ", model.user.empty() ? "nobody in particular" : concat("user ", model.user));
}

std::string settings_line(const EvaluateOptions& options) {
  const pipelines::GenerateOptions& sampling = options.batches.sampling;
  return concat("<p>Sampler ", training::html_escape(sampling.scheduler), ", ", sampling.num_inference_steps,
                " steps, guidance ", sampling.guidance.scale, ", judge ",
                training::html_escape(judge_text(options) + user_text(options)), ", seeds from ", options.seed,
                ". A tie counts half a win.</p>\n");
}

std::string report_body(const EvaluateOptions& options, const Evaluation& evaluation, const fs::path& folder) {
  const auto& summary = evaluation.summary;
  std::string body =
      concat("<pre>", training::html_escape(training::summary_table(summary)), "</pre>\n", settings_line(options));
  body += "<h2>Before and after, same prompts and seeds</h2>\n" +
          training::inline_image(folder / "baseline.png", "baseline") +
          training::inline_image(folder / "model.png", "model");
  body += "<h2>Where the model gained most</h2>\n" +
          training::inline_image(folder / "best.png", "baseline on the left, model on the right") +
          "<h2>Where it lost most</h2>\n" +
          training::inline_image(folder / "worst.png", "baseline on the left, model on the right");
  body += "<h2>Distributions</h2>\n";
  for (size_t axis = 0; axis < summary.axes.size(); ++axis) {
    if (!summary.axes[axis].is_share) body += axis_chart(summary, evaluation.pairs, axis);
  }
  if (!options.run.empty()) {
    body += "<h2>The alignment run</h2>\n" +
            training::metrics_charts(training::read_metrics(options.run / "metrics.jsonl"));
  }
  return body;
}

nlohmann::ordered_json settings_json(const EvaluateOptions& options) {
  const pipelines::GenerateOptions& sampling = options.batches.sampling;
  nlohmann::ordered_json settings = {
      {"rewards", options.rewards},
      {"margin", options.margin ? nlohmann::ordered_json(*options.margin) : nlohmann::ordered_json()},
      {"steps", sampling.num_inference_steps},
      {"scheduler", sampling.scheduler},
      {"guidance_scale", sampling.guidance.scale},
      {"num_images", options.num_images},
      {"seed", options.seed},
      {"baseline_loras", options.baseline_loras.size()}};
  const Contender& model = options.models.front();
  if (!model.user_adapter.empty()) {
    const AdapterArgument adapter = parse_lora_argument(model.user_adapter, "--user-adapter");
    settings["user_adapter"] = {
        {"name", adapter.path.filename().string()}, {"scale", adapter.scale}, {"user", model.user}};
  }
  return settings;
}

}  // namespace

void write_evaluation(const EvaluateOptions& options, const Evaluation& evaluation, const fs::path& folder) {
  make_folder(folder);
  std::string rows;
  for (const auto& pair : evaluation.pairs) rows += training::pair_json(pair, evaluation.axes).dump() + "\n";
  write_file(folder / "results.jsonl", rows);
  nlohmann::ordered_json summary = training::summary_json(evaluation.summary);
  summary["settings"] = settings_json(options);
  write_file(folder / "summary.json", summary.dump(2) + "\n");

  write_grid(folder / "baseline.png", evaluation.baseline_pictures, evaluation.pairs);
  write_grid(folder / "model.png", evaluation.model_pictures, evaluation.pairs);
  const std::vector<size_t> order = by_advantage(evaluation.pairs);
  const auto count = static_cast<std::ptrdiff_t>(std::min(order.size(), kCasePairs));
  write_cases(folder / "best.png", evaluation, {order.begin(), order.begin() + count});
  write_cases(folder / "worst.png", evaluation, {order.rbegin(), order.rbegin() + count});
  if (options.save_pictures) write_pictures(folder / "pictures", evaluation);
  write_file(folder / "report.html",
             training::html_page("Evaluation against the baseline", report_body(options, evaluation, folder)));
}

std::string overview_table(const std::vector<ComparedModel>& models) {
  size_t width = 5;
  for (const auto& model : models) width = std::max(width, model.name.size());
  const std::string pad(width, ' ');
  const auto padded = [&](const std::string& name) { return name + pad.substr(name.size()); };
  std::string table = padded("model") + "  win rate              ";
  const auto& axes = models.front().summary.axes;
  const size_t num_axes = std::min<size_t>(axes.size(), 2);
  char text[128];
  for (size_t axis = 0; axis < num_axes; ++axis) {
    std::snprintf(text, sizeof text, "  %-30s", axes[axis].name.c_str());
    table += text;
  }
  table += "\n";
  for (const auto& model : models) {
    const shapes::WinRate& wins = model.summary.win_rate;
    std::snprintf(text, sizeof text, "  %5.1f %% [%.1f, %.1f]", 100 * wins.rate, 100 * wins.low, 100 * wins.high);
    std::string line = padded(model.name) + text;
    line.resize(std::max(line.size(), width + 24), ' ');
    for (size_t axis = 0; axis < num_axes; ++axis) {
      const training::AxisSummary& values = model.summary.axes[axis];
      const double scale = values.is_share ? 100 : 1;
      std::snprintf(text, sizeof text, "  %.*f -> %.*f (%+.*f)", values.is_share ? 1 : 3, scale * values.baseline.value,
                    values.is_share ? 1 : 3, scale * values.model.value, values.is_share ? 1 : 3,
                    scale * values.difference.value);
      std::string cell = text;
      cell.resize(std::max<size_t>(cell.size(), 32), ' ');
      line += cell;
    }
    while (line.ends_with(' ')) line.pop_back();
    table += line + "\n";
  }
  return table;
}

void write_overview(const EvaluateOptions& options, const std::vector<ComparedModel>& models) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  std::string links = "<ul>\n";
  for (const auto& model : models) {
    nlohmann::ordered_json entry = {{"name", model.name}};
    entry.update(training::summary_json(model.summary));
    list.push_back(std::move(entry));
    const std::string name = training::html_escape(model.name);
    links += concat("<li><a href=\"", name, "/report.html\">", name, "</a></li>\n");
  }
  write_file(options.output / "summary.json",
             nlohmann::ordered_json{{"models", list}, {"settings", settings_json(options)}}.dump(2) + "\n");
  write_file(options.output / "report.html",
             training::html_page("Models against one baseline",
                                 concat("<pre>", training::html_escape(overview_table(models)), "</pre>\n",
                                        settings_line(options), "<h2>Each model</h2>\n", links, "</ul>\n")));
}

}  // namespace prefusion::tools
