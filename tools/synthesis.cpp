#include "tools/synthesis.h"

#include <algorithm>
#include <functional>
#include <memory>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/interrupt.h"
#include "core/logging.h"
#include "core/progress.h"
#include "data/parquet_table.h"
#include "reward_models/scorer.h"
#include "tools/synthesis_journal.h"
#include "tools/synthesis_lists.h"
#include "tools/synthesis_ranking.h"
#include "training/run_fingerprint.h"

namespace prefusion::tools {
namespace {

StoredFormat parse_format(const std::string& name) {
  if (name == "png") return StoredFormat::kPng;
  if (name == "jpeg") return StoredFormat::kJpeg;
  check_usage(name == "webp", "--image-format ", name, " is not known; expected png, jpeg or webp");
  return StoredFormat::kWebp;
}

// What of the output of an earlier run differs from what this one would write; nothing when it is the same.
std::optional<std::string> changes_of(const std::filesystem::path& output, const Json& settings) {
  const std::string text = data::read_parquet_metadata(output, "prefusion");
  if (text.empty()) return "it does not say how it was made";
  const std::string changes = training::changed_keys(parse_json(text, output.string()), settings);
  return changes.empty() ? std::nullopt : std::optional<std::string>(changes);
}

std::unique_ptr<reward_models::Scorer> load_scorer(const SynthesizeOptions& options, const SynthesisPlan& plan) {
  auto scorer = std::make_unique<reward_models::Scorer>(
      options.rewards, reward_models::ScorerOptions{.dtype = options.dtype, .device = options.device});
  std::vector<std::string> prompts;
  for (const data::PromptEntry& entry : plan.prompts) prompts.push_back(entry.prompt);
  scorer->check_prompts(prompts);
  return scorer;
}

// Makes what the journal lacks.
class PictureMaker {
 public:
  PictureMaker(const SynthesizeOptions& options, const SynthesisPlan& plan, const ListRanking& ranking,
               SynthesisJournal& journal)
      : options_(options),
        plan_(plan),
        journal_(journal),
        candidate_options_{.sampling = options.batches.sampling,
                           .batch_size = options.batches.batch_size,
                           .group_size = static_cast<size_t>(options.group_size()),
                           .keep = static_cast<size_t>(options.per_model),
                           .prunes = options.prunes,
                           .checks_pruning = options.checks_pruning,
                           .ranking = ranking.of_group(),
                           .format = parse_format(options.image_format),
                           .quality = options.image_quality} {}

  void make_all() {
    const size_t block_size = static_cast<size_t>(options_.block_size);
    const size_t num_blocks = (plan_.prompts.size() + block_size - 1) / block_size;
    const size_t per_model = plan_.prompts.size() * candidate_options_.group_size;
    const auto pictures_in = [&](size_t blocks) {
      return std::min(blocks * block_size, plan_.prompts.size()) * candidate_options_.group_size;
    };
    size_t done = 0;
    for (size_t model = 0; model < plan_.model_names.size(); ++model) done += pictures_in(journal_.num_blocks(model));
    if (done == per_model * plan_.model_names.size()) return;
    if (done > 0) log_info("resuming: ", done, " of ", per_model * plan_.model_names.size(), " pictures are there");

    const auto scorer = load_scorer(options_, plan_);
    Progress progress("synthesize", static_cast<int64_t>(per_model * plan_.model_names.size()), "image",
                      options_.shows_progress);
    progress.set_start(static_cast<int64_t>(done));
    for (size_t model = 0; model < plan_.model_names.size(); ++model) {
      if (journal_.num_blocks(model) >= num_blocks) continue;
      pipelines::TextToImage pipeline = load_contender(options_.models[model], options_.dtype, options_.device);
      CandidateSampler sampler(pipeline, *scorer, candidate_options_);
      for (size_t block = journal_.num_blocks(model); block < num_blocks; ++block) {
        const size_t before = done;
        make_block(sampler, model, block * block_size, std::min((block + 1) * block_size, plan_.prompts.size()),
                   [&](size_t in_block) {
                     done = before + in_block;
                     progress.update(static_cast<int64_t>(done), plan_.model_names[model]);
                   });
      }
    }
  }

 private:
  void make_block(CandidateSampler& sampler, size_t model, size_t begin, size_t end,
                  const std::function<void(size_t)>& progress) {
    const auto requests = plan_pictures(options_, plan_, model, begin, end);
    SynthesisJournal::Block block;
    block.candidates = sampler.sample(requests, progress);
    block.counts = sampler.counts();
    for (const Candidate& candidate : block.candidates) {
      block.prompts.push_back(begin + candidate.request / candidate_options_.group_size);
      block.seeds.push_back(requests[candidate.request].seed);
    }
    journal_.add(model, block);
  }

  const SynthesizeOptions& options_;
  const SynthesisPlan& plan_;
  SynthesisJournal& journal_;
  CandidateOptions candidate_options_;
};

}  // namespace

std::optional<ListsSummary> synthesize(const SynthesizeOptions& options) {
  const SynthesisPlan plan = plan_synthesis(options);
  ListRanking ranking(options, plan.columns);
  const Json pictures = picture_settings(options, plan);
  Json settings = pictures;
  settings.update(list_settings(options));
  const std::filesystem::path folder = options.journal_folder();
  if (options.resumes && std::filesystem::exists(options.output) && !std::filesystem::exists(folder)) {
    const std::optional<std::string> changes = changes_of(options.output, settings);
    check_usage(!changes, options.output.string(), " is there, but of another run: ", changes.value_or(""),
                "; give another --output, or leave --resume out to write it anew");
    log_info(options.output.string(), " is there already, made with the same settings");
    return std::nullopt;
  }

  SynthesisJournal journal(folder, pictures, plan.model_names.size(), options.resumes);
  PictureMaker(options, plan, ranking, journal).make_all();
  const ListsSummary summary = write_lists(options, plan, ranking, journal, settings);
  if (!options.summary_file.empty()) write_file(options.summary_file, summary_json(summary).dump(2) + "\n");
  if (!options.keeps_journal) journal.remove();
  return summary;
}

}  // namespace prefusion::tools
