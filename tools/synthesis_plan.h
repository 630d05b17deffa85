#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/json_config.h"
#include "data/prompt_list.h"
#include "reward_models/reward_spec.h"
#include "tools/candidate_sampler.h"
#include "tools/contender.h"
#include "tools/picture_batches.h"
#include "tools/shard.h"

namespace prefusion::tools {

// What `prefusion synthesize` is asked for.
struct SynthesizeOptions {
  std::vector<Contender> models;
  std::filesystem::path prompts_file;
  std::string negative_prompt;
  int64_t per_model = 1;   // pictures of a prompt and model in the list
  int64_t candidates = 0;  // made of each, the best being kept; 0: per_model
  std::vector<PruneRule> prunes;
  bool checks_pruning = false;
  std::vector<reward_models::RewardSpec> rewards;
  std::string aggregate = "wins";
  std::vector<std::string> weights;       // COLUMN=WEIGHT
  std::filesystem::path statistics_file;  // of an earlier --summary; may be empty
  std::filesystem::path judgements_file;  // may be empty
  std::filesystem::path output;           // .parquet
  std::filesystem::path summary_file;     // .json; may be empty
  std::filesystem::path journal;          // folder; empty: OUTPUT.journal
  bool keeps_journal = false;
  bool resumes = false;
  Shard shard;
  int64_t block_size = 64;  // prompts
  PictureBatchOptions batches = {.sampling = {}, .batch_size = 8};
  std::string image_format = "png";  // or jpeg, webp
  int image_quality = 95;
  uint64_t seed = 0;
  bool shows_progress = true;
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kFloat;

  int64_t group_size() const { return candidates > 0 ? candidates : per_model; }
  std::filesystem::path journal_folder() const {
    return journal.empty() ? std::filesystem::path(output.string() + ".journal") : journal;
  }
};

// What follows from the options before any model is loaded.
struct SynthesisPlan {
  std::vector<data::PromptEntry> prompts;  // of the shard
  size_t first_prompt = 0;                 // number in the file of the first of them
  std::vector<std::string> model_names;    // different from each other
  std::vector<std::string> columns;        // of the rewards
};

// Usage or input error for whatever can be known to be wrong so far.
SynthesisPlan plan_synthesis(const SynthesizeOptions& options);

// The seed of picture k of a prompt and model: number k of the random stream of (seed, prompt, model), 32 bits; or S +
// k for a prompt whose line has the seed S of its own. Numbers count from 0, the prompt's in the whole file.
uint64_t picture_seed(const SynthesizeOptions& options, const SynthesisPlan& plan, size_t prompt, size_t model,
                      int64_t k);

// group_size() requests for each of the prompts [begin, end) of the plan under a model.
std::vector<pipelines::ImageRequest> plan_pictures(const SynthesizeOptions& options, const SynthesisPlan& plan,
                                                   size_t model, size_t begin, size_t end);

// Everything the pictures and their scores depend on: a journal goes on with these settings alone. Models, LoRAs and
// rewards stand there with a key of their files.
Json picture_settings(const SynthesizeOptions& options, const SynthesisPlan& plan);

// What turns them into lists besides.
Json list_settings(const SynthesizeOptions& options);

// A key of a file, or of all files below a folder, that reads samples of large ones: for telling one model from
// another, not for content that may be altered on purpose.
std::string sampled_files_key(const std::filesystem::path& path);

}  // namespace prefusion::tools
