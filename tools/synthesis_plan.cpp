#include "tools/synthesis_plan.h"

#include <algorithm>
#include <fstream>

#include "core/atomic_file.h"
#include "core/content_hash.h"
#include "core/device.h"
#include "core/error.h"
#include "core/rng.h"
#include "nn/lora_file.h"
#include "pipelines/model_index.h"
#include "reward_models/registry.h"
#include "tools/generate_images.h"

namespace prefusion::tools {
namespace {

constexpr uint64_t kPieceBytes = 4096;
constexpr uint64_t kNumPieces = 64;

// Size and evenly spread pieces; the header of a safetensors file is in the first.
void add_sample(const std::filesystem::path& file, ContentHasher& hash) {
  std::ifstream stream(file, std::ios::binary);
  check_input(stream.good(), file.string(), ": cannot be read");
  const uint64_t size = std::filesystem::file_size(file);
  hash.add(size);
  const uint64_t step = std::max(kPieceBytes, size / kNumPieces);
  std::string piece(kPieceBytes, '\0');
  for (uint64_t offset = 0; offset < size; offset += step) {
    stream.seekg(static_cast<std::streamoff>(offset));
    stream.read(piece.data(), static_cast<std::streamsize>(std::min(kPieceBytes, size - offset)));
    hash.add(std::string_view(piece).substr(0, static_cast<size_t>(stream.gcount())));
  }
}

void check_counts(const SynthesizeOptions& options) {
  check_usage(!options.models.empty(), "--model is missing: nothing to make pictures with");
  check_usage(!options.rewards.empty(),
              "--reward is missing: nothing to rank pictures by (prefusion score "
              "--list-rewards)");
  const auto in_list = static_cast<int64_t>(options.models.size()) * options.per_model;
  check_usage(in_list >= 2, "a list of one picture ranks nothing; raise --per-model or give another --model");
  check_usage(options.candidates == 0 || options.candidates >= options.per_model, "--candidates ", options.candidates,
              " is less than the --per-model ", options.per_model, " that are kept of them");
  check_usage(options.prunes.empty() || options.candidates > options.per_model,
              "--prune-at needs more --candidates than the --per-model ", options.per_model, " that are kept of them");
  check_usage(!options.checks_pruning || !options.prunes.empty(), "--prune-check needs --prune-at");
  for (size_t i = 1; i < options.prunes.size(); ++i) {
    check_usage(options.prunes[i - 1].call < options.prunes[i].call, "--prune-at ", options.prunes[i].call,
                " comes after --prune-at ", options.prunes[i - 1].call, "; give the steps in ascending order");
  }
}

void check_paths(const SynthesizeOptions& options) {
  check_usage(options.output.extension() == ".parquet", "--output ", options.output.string(),
              ": lists are written as Parquet; give a name that ends in .parquet");
  const std::filesystem::path folder = std::filesystem::absolute(options.output).parent_path();
  check_usage(std::filesystem::is_directory(folder), "--output ", options.output.string(), ": there is no folder ",
              folder.string());
  for (const Contender& model : options.models) {
    pipelines::read_model_index(model.model);
    for (const std::string& lora : model.loras) nn::find_lora_file(parse_lora_argument(lora).path);
  }
}

// Of the parts its index names: other files in the folder, an output perhaps, are none of the model.
std::string model_key(const std::filesystem::path& model_dir) {
  ContentHasher hash;
  const Json index = read_json(model_dir / "model_index.json");
  hash.add(index.dump());
  for (const auto& [part, unused] : index.items()) {
    if (std::filesystem::is_directory(model_dir / part)) hash.add(sampled_files_key(model_dir / part));
  }
  return hash.finish().hex();
}

}  // namespace

SynthesisPlan plan_synthesis(const SynthesizeOptions& options) {
  check_counts(options);
  const auto& kind = reward_models::aggregate_kind(options.aggregate);
  check_usage(!kind.needs_statistics || options.shard.count == 1 || !options.statistics_file.empty(), "--aggregate ",
              kind.name,
              " needs the statistics of the whole set, which a shard has not: give --score-statistics, the "
              "--summary of a run over all prompts or a sample of them");
  SynthesisPlan plan;
  for (const reward_models::RewardSpec& spec : options.rewards) plan.columns.push_back(spec.column);
  plan.model_names = distinct_names(options.models);
  std::vector<data::PromptEntry> all = data::read_prompts(options.prompts_file);
  const auto [first, last] = options.shard.range(all.size());
  plan.first_prompt = first;
  plan.prompts.assign(all.begin() + static_cast<std::ptrdiff_t>(first),
                      all.begin() + static_cast<std::ptrdiff_t>(last));
  check_usage(!plan.prompts.empty(), "--shard ", options.shard.index, "/", options.shard.count, " of the ", all.size(),
              " prompts is empty");
  for (const data::PromptEntry& entry : plan.prompts) {
    check_input(entry.seed.value_or(0) < (uint64_t{1} << 62), options.prompts_file.string(), ": the seed ",
                entry.seed.value_or(0), " is too large for the lists' column of seeds");
  }
  check_paths(options);
  return plan;
}

uint64_t picture_seed(const SynthesizeOptions& options, const SynthesisPlan& plan, size_t prompt, size_t model,
                      int64_t k) {
  const std::optional<uint64_t> own = plan.prompts.at(prompt).seed;
  if (own) return *own + static_cast<uint64_t>(k);
  CounterRng rng({.seed = options.seed, .item = plan.first_prompt + prompt, .draw = model}, RandomPurpose::kNoise);
  uint32_t bits = rng.bits();
  for (int64_t i = 0; i < k; ++i) bits = rng.bits();
  return bits;
}

std::vector<pipelines::ImageRequest> plan_pictures(const SynthesizeOptions& options, const SynthesisPlan& plan,
                                                   size_t model, size_t begin, size_t end) {
  std::vector<pipelines::ImageRequest> requests;
  for (size_t prompt = begin; prompt < end; ++prompt) {
    const data::PromptEntry& entry = plan.prompts[prompt];
    for (int64_t k = 0; k < options.group_size(); ++k) {
      requests.push_back({.prompt = entry.prompt,
                          .negative_prompt = entry.negative_prompt.value_or(options.negative_prompt),
                          .seed = picture_seed(options, plan, prompt, model, k)});
    }
  }
  return requests;
}

std::string sampled_files_key(const std::filesystem::path& path) {
  std::vector<std::filesystem::path> files;
  if (std::filesystem::is_directory(path)) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(path)) {
      if (entry.is_regular_file()) files.push_back(entry.path());
    }
  } else {
    files.push_back(path);
  }
  std::sort(files.begin(), files.end());
  ContentHasher hash;
  for (const auto& file : files) {
    hash.add(file.lexically_relative(path).string());
    add_sample(file, hash);
  }
  return hash.finish().hex();
}

Json picture_settings(const SynthesizeOptions& options, const SynthesisPlan& plan) {
  Json models = Json::array();
  for (size_t i = 0; i < options.models.size(); ++i) {
    Json loras = Json::array();
    for (const std::string& text : options.models[i].loras) {
      const AdapterArgument lora = parse_lora_argument(text);
      loras.push_back({{"scale", lora.scale}, {"key", sampled_files_key(nn::find_lora_file(lora.path))}});
    }
    models.push_back({{"name", plan.model_names[i]}, {"key", model_key(options.models[i].model)}, {"loras", loras}});
  }
  Json rewards = Json::array();
  for (const reward_models::RewardSpec& spec : options.rewards) {
    const std::string key =
        spec.path.empty() || !std::filesystem::exists(spec.path) ? "" : sampled_files_key(spec.path);
    rewards.push_back({{"column", spec.column}, {"key", key}, {"arguments", spec.options}});
  }
  ContentHasher prompts;
  for (const data::PromptEntry& entry : plan.prompts) {
    prompts.add(entry.prompt).add(entry.negative_prompt.value_or(options.negative_prompt));
    prompts.add(entry.seed ? std::to_string(*entry.seed) : "");
  }
  Json prunes = Json::array();
  for (const PruneRule& rule : options.prunes) prunes.push_back({rule.call, rule.share});
  const pipelines::GenerateOptions& sampling = options.batches.sampling;
  Json settings = {{"models", models},
                   {"rewards", rewards},
                   {"prompts", prompts.finish().hex()},
                   {"num_prompts", plan.prompts.size()},
                   {"first_prompt", plan.first_prompt},
                   {"candidates", options.group_size()},
                   {"prune_at", prunes},
                   {"prune_check", options.checks_pruning},
                   {"seed", options.seed},
                   {"steps", sampling.num_inference_steps},
                   {"guidance_scale", sampling.guidance.scale},
                   {"guidance_rescale", sampling.guidance.rescale},
                   {"scheduler", sampling.scheduler},
                   {"eta", sampling.eta},
                   {"height", sampling.height_px},
                   {"width", sampling.width_px},
                   {"batch_size", options.batches.batch_size},
                   {"block_size", options.block_size},
                   {"image_format", options.image_format},
                   {"image_quality", options.image_format == "png" ? 0 : options.image_quality},
                   {"device", options.device.is_cpu() ? "cpu" : "cuda"},
                   {"dtype", dtype_name(options.dtype)}};
  if (!options.prunes.empty()) {
    // What survives depends on how candidates are compared.
    settings["prune_keep"] = options.per_model;
    settings["prune_by"] = {options.aggregate, options.weights};
    settings["prune_statistics"] =
        options.statistics_file.empty() ? "" : hash_content(read_file(options.statistics_file)).hex();
  }
  return settings;
}

Json list_settings(const SynthesizeOptions& options) {
  const auto key = [](const std::filesystem::path& file) {
    return file.empty() ? std::string() : hash_content(read_file(file)).hex();
  };
  return {{"per_model", options.per_model},
          {"aggregate", options.aggregate},
          {"reward_weights", options.weights},
          {"score_statistics", key(options.statistics_file)},
          {"judgements", key(options.judgements_file)}};
}

}  // namespace prefusion::tools
