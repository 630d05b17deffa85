#include "training/report.h"

#include <algorithm>

#include "core/atomic_file.h"
#include "core/error.h"
#include "losses/registry.h"
#include "training/html.h"
#include "training/metrics_log.h"

namespace prefusion::training {
namespace fs = std::filesystem;
namespace {

Series series_of(const std::vector<Metrics>& rows, const std::string& key, const std::string& name) {
  Series series{name, {}};
  for (const auto& row : rows) {
    if (row.contains(key) && row.contains("step")) series.points.emplace_back(row.at("step"), row.at(key));
  }
  return series;
}

std::string alarm(const std::vector<Metrics>& rows, const std::string& key, const char* name) {
  std::string steps;
  for (const auto& row : rows) {
    if (row.contains(key) && row.at(key) > 0) steps += concat(steps.empty() ? "" : ", ", row.at("step"));
  }
  return steps.empty() ? "" : concat("<p class='alarm'>", name, " at step ", steps, "</p>\n");
}

// One series a band of timesteps, low noise first: KEY_band0, KEY_band1 ...
std::vector<Series> bands_of(const std::vector<Metrics>& rows, const std::string& key) {
  std::vector<Series> bands;
  for (int band = 0;; ++band) {
    Series series = series_of(rows, concat(key, "_band", band), concat("band ", band));
    if (series.points.empty()) break;
    bands.push_back(std::move(series));
  }
  if (bands.size() > 1) {
    bands.front().name += ", least noise";
    bands.back().name += ", most noise";
  }
  return bands;
}

std::string sample_pictures(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code ignored;
  for (const auto& entry : fs::recursive_directory_iterator(folder, ignored)) {
    if (entry.path().extension() == ".png") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  std::string html;
  for (const auto& file : files) html += inline_image(file, fs::relative(file, folder).string());
  return html.empty() ? "" : "<h2>Samples</h2>\n" + html;
}

std::string model_card(const AlignOptions& options, const losses::ObjectiveInfo& objective,
                       const losses::ObjectiveParams& params, int64_t num_steps) {
  const bool is_lora = options.adapter_kind() == AdapterKind::kLora;
  const bool is_full = options.adapter_kind() == AdapterKind::kFull;
  std::string card = concat("---\nlibrary_name: diffusers\ntags: [prefusion, preference-alignment, ", objective.name,
                            "]\n---\n\n", "# ", options.output.filename().string(), "\n\n",
                            is_lora   ? "A LoRA"
                            : is_full ? "A model"
                                      : "An adapter",
                            " aligned with ", objective.name, " (", objective.paper, ") by prefusion.\n\n");
  card += concat("- starting model: ", options.model.filename().string(),
                 "\n- objective: ", losses::describe_params(objective, params), "\n- steps: ", num_steps, ", ",
                 options.batch_size * options.accumulate, " groups a step, learning rate ", options.lr,
                 "\n- seed: ", options.seed, "\n\n## Use\n\n");
  if (is_lora || is_full) card += "```python\nfrom diffusers import DiffusionPipeline\n";
  if (!is_lora && !is_full) {
    const bool is_gate = options.adapter_kind() == AdapterKind::kGate;
    card += concat("```sh\nprefusion generate --model ", options.model.filename().string(),
                   is_gate ? " --lora gated_lora.safetensors" : " --user-adapter user_adapter.safetensors --user NAME",
                   " --prompt ... --output out.png\n```\n");
  } else if (is_lora) {
    card += concat("pipe = DiffusionPipeline.from_pretrained(\"", options.model.filename().string(),
                   "\")\npipe.load_lora_weights(\".\", weight_name=\"pytorch_lora_weights.safetensors\")\n```\n");
  } else {
    card += "pipe = DiffusionPipeline.from_pretrained(\".\")\n```\n";
  }
  return card +
         "\n`run.toml` holds the whole configuration, `metrics.jsonl` the measurements, `report.html` both to look "
         "at.\n";
}

}  // namespace

std::string metrics_charts(const std::vector<Metrics>& rows) {
  const auto of = [&](const char* key, const char* name) { return series_of(rows, key, name); };
  std::string html = alarm(rows, "eval/alarm", "Over-optimisation alarm") +
                     alarm(rows, "eval/alarm_displacement", "Likelihood displacement alarm");
  html += svg_chart("Loss", {of("loss", "training"), of("eval/loss", "held out")});
  html +=
      svg_chart("Preference accuracy", {of("accuracy", "training"), of("eval/accuracy", "held out"),
                                        of("eval/accuracy_low", "95 % low"), of("eval/accuracy_high", "95 % high")});
  html += svg_chart("Held-out errors", {of("eval/error_chosen", "chosen"), of("eval/error_rejected", "rejected"),
                                        of("eval/error_chosen_ref", "chosen, reference"),
                                        of("eval/error_rejected_ref", "rejected, reference")});
  html += svg_chart("Implicit reward margin", {of("margin", "training"), of("eval/margin", "held out")});
  html += svg_chart("Drift from the start", {of("eval/drift_chosen", "chosen"), of("eval/drift_rejected", "rejected")});
  html += svg_chart("Drift of the chosen pictures by timestep", bands_of(rows, "eval/drift_chosen"));
  html += svg_chart("Drift of the rejected pictures by timestep", bands_of(rows, "eval/drift_rejected"));
  html += svg_chart("Preference accuracy by timestep, held out", bands_of(rows, "eval/accuracy"));
  html += svg_chart("Ranking accuracy of lists", {of("eval/ranking_accuracy", "policy, held out"),
                                                  of("eval/ranking_accuracy_ref", "reference, held out")});
  html += svg_chart("Calibration error of the implicit reward", {of("eval/ece", "held out")});
  html += svg_chart("Share of chosen pictures that got worse",
                    {of("eval/displaced", "held out"), of("eval/displaced_low", "95 % low")});
  html += svg_chart("Gradient factor", {of("gradient_factor", "training"), of("eval/gradient_factor", "held out")});
  html += svg_chart("Gradient norm", {of("grad_norm", "before clipping")});
  html += svg_chart("Seconds a step", {of("seconds_per_step", "measured")});
  return html;
}

void write_report(const AlignOptions& options, const losses::ObjectiveInfo& objective,
                  const losses::ObjectiveParams& params, int64_t num_steps) {
  const auto rows = read_metrics(options.output / "metrics.jsonl");
  const std::string body = concat("<p>", html_escape(losses::describe_params(objective, params)), "; ", num_steps,
                                  " steps of ", options.batch_size * options.accumulate, " groups.</p>\n",
                                  metrics_charts(rows), sample_pictures(options.output / "samples"),
                                  "<h2>Configuration</h2><pre>", html_escape(options.resolved_config), "</pre>\n");
  write_file(options.output / "report.html", html_page("Alignment with " + objective.name, body));
  write_file(options.output / "README.md", model_card(options, objective, params, num_steps));
}

}  // namespace prefusion::training
