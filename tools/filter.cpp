#include <cstdio>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/logging.h"
#include "tools/command.h"
#include "tools/commands.h"
#include "tools/filter_data.h"
#include "tools/filter_report.h"

namespace prefusion::tools {
namespace {

struct FilterCommand : CommonOptions {
  FilterRequest request;
  bool dry_run = false;
};

void add_data_options(CLI::App& app, FilterRequest& o) {
  const std::string group = "Data";
  app.add_option("--input", o.inputs, "Preference data of any kind `align --data` reads; files or folders")
      ->group(group);
  app.add_option("--output", o.output,
                 "Parquet file for pairs and lists, .jsonl for single pictures (they go into STEM-pictures beside it); "
                 "the reports are OUTPUT.report.html and OUTPUT.report.json")
      ->group(group);
  app.add_option(
         "--scores", o.scores,
         "Scores of the pictures, as `prefusion score` wrote them (JSONL, CSV or Parquet); they join those of the data")
      ->group(group);
  app.add_option("--score-name", o.score_name, "Score that orders rows nobody labelled; rows without it are dropped")
      ->group(group);
  app.add_option("--max-bad", o.max_bad, "How many broken rows, files or pictures are skipped: a count or a share")
      ->capture_default_str()
      ->group(group);
}

void add_conversion_options(CLI::App& app, FilterRequest& o) {
  const std::string group = "Conversion, before any rule";
  app.add_option("--to", o.to, "pairs, lists or unpaired; by default the kind the data is of")
      ->check(CLI::IsMember({"pairs", "lists", "unpaired"}))
      ->group(group);
  app.add_option("--list-pairs", o.list_pairs,
                 "Which pairs a list gives: all, adjacent (neighbours by rank) or best-worst")
      ->check(CLI::IsMember({"all", "adjacent", "best-worst"}))
      ->capture_default_str()
      ->group(group);
  app.add_option("--ties", o.ties, "drop or keep groups in which nothing is preferred to anything")
      ->check(CLI::IsMember({"drop", "keep"}))
      ->capture_default_str()
      ->group(group);
  app.add_option("--unpaired-threshold", o.threshold,
                 "With --to unpaired: pictures are desirable from this value on, of a score (NAME=X) or the label (X); "
                 "by default the best of a group are, the worst are not, and those between are left out")
      ->group(group);
}

void add_rule_options(CLI::App& app, FilterRequest& o) {
  const std::string group = "Rules, applied in this order";
  app.add_option("--include", o.include, "Only prompts in which this regular expression occurs")->group(group);
  app.add_option("--exclude", o.exclude, "No prompts in which it occurs")->group(group);
  app.add_option("--require", o.require,
                 "COLUMN<=X (or <, >, >=, ==, !=): a number of the row, or a score that must hold for every picture")
      ->group(group);
  app.add_option("--min-margin", o.min_margin,
                 "NAME=X: the score of the best picture minus that of the worst, by the label's order, is at least X; "
                 "X alone is of the labels")
      ->group(group);
  app.add_option("--max-margin", o.max_margin, "The same, at most")->group(group);
  app.add_option("--agree", o.agree, "NAME,NAME...: all these scores order the pictures as the label does")
      ->delimiter(',')
      ->group(group);
  app.add_option("--min-agreement", o.min_agreement, "Share of the pairs in a group for which that must hold")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str()
      ->group(group);
  app.add_option("--flips", o.flips,
                 "Labels that all --flip-scores contradict strongly: keep, drop, or relabel (pairs; before the rules)")
      ->check(CLI::IsMember({"keep", "drop", "relabel"}))
      ->capture_default_str()
      ->group(group);
  app.add_option("--flip-scores", o.flip_scores, "NAME,NAME...")->delimiter(',')->group(group);
  app.add_option("--flip-strength", o.flip_strength,
                 "How strongly: the contradicting margin in units of the score's root mean square margin")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--min-size", o.min_size, "Pixels of the shorter side of every picture")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
  app.add_flag("--drop-same-pictures", o.drop_same_pictures, "No groups that hold two pictures that look the same")
      ->group(group);
  app.add_option("--duplicates", o.duplicates,
                 "keep; group: of groups of a prompt whose pictures all look the same, the first stays; picture: no "
                 "picture occurs in two groups")
      ->check(CLI::IsMember({"keep", "group", "picture"}))
      ->capture_default_str()
      ->group(group);
  app.add_option("--hash-distance", o.hash_distance,
                 "Bits of 64 in which perceptual hashes of pictures that look the same may differ")
      ->check(CLI::Range(0, 15))
      ->capture_default_str()
      ->group(group);
  app.add_option("--max-per-prompt", o.max_per_prompt, "Groups of one prompt, those of the highest score; 0 for all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(group);
}

void add_selection_options(CLI::App& app, FilterRequest& o) {
  const std::string group = "Selection, last";
  data::filters::ImportanceOptions& i = o.importance;
  app.add_option("--keep", o.keep, "N groups, or P% of those before the rules")->type_name("N|P%")->group(group);
  app.add_option("--select", o.select,
                 "top: of the highest score; greedy: one after the other, diversity measured among those chosen; "
                 "random: drawn by --seed, the control arm")
      ->check(CLI::IsMember({"top", "greedy", "random"}))
      ->capture_default_str()
      ->group(group);
  app.add_option("--margin-weight", i.margin_weight, "Weight of the margin in the score")
      ->capture_default_str()
      ->group(group);
  app.add_option("--quality-weight", i.quality_weight, "Weight of the prompt's quality")
      ->capture_default_str()
      ->group(group);
  app.add_option("--diversity-weight", i.diversity_weight,
                 "Weight of the log distance of the prompt to its --neighbours-th nearest")
      ->capture_default_str()
      ->group(group);
  app.add_option("--normalise", o.normalise, "Scale of each term: zscore, minmax, rank or none")
      ->check(CLI::IsMember({"zscore", "minmax", "rank", "none"}))
      ->capture_default_str()
      ->group(group);
  app.add_option("--neighbours", i.neighbours, "k of the nearest-neighbour estimate")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--margin-score", o.margin_score, "Score of the margin; by default the only one, else the label")
      ->group(group);
  app.add_flag("--absolute-margin", o.absolute_margin,
               "Without its sign: also groups whose score contradicts the label")
      ->group(group);
  app.add_option("--quality-column", o.quality_column,
                 "Number of the row that says how good its prompt is, such as a language model's rating; by default "
                 "length, letters and variety")
      ->group(group);
  app.add_option("--text-encoder", o.texts.text_encoder,
                 "CLIP folder, or diffusers model, that embeds prompts; by default hashed words and trigrams")
      ->group(group);
}

void add_options(CLI::App& app, FilterCommand& command) {
  add_data_options(app, command.request);
  add_conversion_options(app, command.request);
  add_rule_options(app, command.request);
  add_selection_options(app, command.request);
  app.add_flag("--dry-run", command.dry_run, "Print what each rule would do; write nothing")->group("Data");
  app.footer(
      "Examples, on the bundled pairs:\n"
      "  prefusion filter --input assets/shapes-preferences.parquet --keep 25% --output best.parquet\n"
      "  prefusion filter --input assets/shapes-preferences.parquet --keep 25% --select random --output "
      "control.parquet\n"
      "  prefusion filter --input assets/shapes-preferences.parquet --to unpaired --output shapes.jsonl\n"
      "What each rule and conversion does exactly: docs/curation.md");
}

void run(const FilterCommand& command, const CLI::App&) {
  FilterRequest request = command.request;
  request.texts.dtype = command.scalar_type();
  request.texts.device = command.torch_device();
  request.texts.progress = !command.quiet;
  request.progress = !command.quiet;
  request.seed = command.seed;
  request.importance.normalisation = data::filters::parse_normalisation(request.normalise);
  check_usage(command.dry_run || !request.output.empty(), "--output is required, or --dry-run");
  validate(request);

  FilterResult result = filter_data(request);
  if (!command.dry_run) write_groups(request, result);
  const auto report = filter_report(request, result);
  if (!command.dry_run) {
    write_file(request.output.string() + ".report.json", report.dump(2) + "\n");
    write_file(request.output.string() + ".report.html", filter_html(report));
  }
  std::fputs(filter_summary(report).c_str(), stdout);
}

}  // namespace

void add_filter(CLI::App& root) {
  add_command<FilterCommand>(root, "filter", "Selects and converts preference data", add_options, run);
}

}  // namespace prefusion::tools
