#include "reward_models/open_clip_model.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/logging.h"
#include "core/torch_file.h"
#include "reward_models/open_clip_weights.h"
#include "text/open_clip_tokenizer.h"

namespace prefusion::reward_models {
namespace {

namespace fs = std::filesystem;

constexpr const char* kConfigName = "open_clip_config.json";

// Where the parts of a model are.
struct Files {
  fs::path weights;
  fs::path folder;  // of the weights
  fs::path config;  // empty where there is none
};

Files find_files(const fs::path& path) {
  check_input(fs::exists(path), path.string(), ": no such file or folder");
  Files files;
  const bool is_folder = fs::is_directory(path);
  files.weights = is_folder ? find_open_clip_weights(path) : path;
  files.folder = is_folder ? path : path.parent_path();
  if (fs::exists(files.folder / kConfigName)) files.config = files.folder / kConfigName;
  return files;
}

// The architecture by name; empty where the config file has it.
std::string architecture_name(const Files& files, const OpenClipOptions& options) {
  if (!options.architecture.empty() || !files.config.empty()) return options.architecture;
  check_usage(!options.default_architecture.empty(), files.weights.string(), ": has no ", kConfigName,
              " beside it, so that its architecture must be named: --reward-args ", options.kind,
              ".model=ViT-B-32, for example");
  return options.default_architecture;
}

// The two versions of HPS have the same layout but other scales; only the file's name tells them apart.
std::string version_note(const fs::path& weights) {
  const std::string name = weights.filename().string();
  if (name.starts_with("HPS_v2.1")) return ", HPSv2.1 by its name";
  if (name.starts_with("HPS_v2")) return ", HPSv2.0 by its name";
  return "";
}

PromptTokenizer prompt_tokenizer(const Files& files, const OpenClipOptions& options, int64_t context_length) {
  const fs::path place = options.tokenizer.empty() ? files.folder : options.tokenizer;
  const auto tokenizer = std::make_shared<text::OpenClipTokenizer>(
      text::OpenClipTokenizer::load(place, /*is_required=*/!options.tokenizer.empty()));
  return [tokenizer, context_length](const std::string& prompt) {
    const std::vector<int64_t> tokens = tokenizer->encode(prompt);
    const size_t kept = std::min(tokens.size(), static_cast<size_t>(context_length - 2));
    PromptTokens result{.ids = {tokenizer->start_id()}};
    result.ids.insert(result.ids.end(), tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(kept));
    result.ids.push_back(tokenizer->end_id());
    result.num_truncated = static_cast<int64_t>(tokens.size() - kept);
    return result;
  };
}

template <typename Model>
void load(Model& model, const TensorMap& weights, const Files& files, const RewardContext& context) {
  nn::load_module(model, weights, context.dtype, context.device, files.weights.string());
  model.eval();
}

}  // namespace

bool is_open_clip(const fs::path& path) {
  if (!fs::is_directory(path)) return fs::exists(path);
  return fs::exists(path / kConfigName) && !fs::exists(path / "config.json");
}

ClipParts load_open_clip(const fs::path& path, const OpenClipOptions& options, const RewardContext& context) {
  const Files files = find_files(path);
  const std::string name = architecture_name(files, options);
  OpenClipConfig config = name.empty() ? parse_open_clip_config(read_json(files.config), files.config.string())
                                       : open_clip_architecture(name);
  const std::string architecture = name.empty() ? files.config.string() : name;
  if (options.recipe) config.preparation.recipe = *options.recipe;
  config.preparation.antialias = options.antialias;
  const auto weights =
      std::make_shared<ClipWeights>(clip_weights(model_weights(read_tensors(files.weights)), files.weights.string()));
  const std::string where = files.weights.string();
  ClipParts parts;
  const auto scale = weights->rest.find("logit_scale");
  check_input(scale != weights->rest.end() && scale->second.numel() == 1, where,
              ": the weights have no logit_scale, so they are no whole CLIP model");
  parts.logit_scale = std::exp(scale->second.to(at::kDouble).item<double>());
  log_info(options.kind, ": ", architecture, ", weights ", where, version_note(files.weights));

  parts.pictures = [=] {
    // Bare files of one name under two architectures are two towers.
    const std::string key = concat("open_clip ", fs::canonical(files.weights).string(), ' ', architecture, ' ',
                                   c10::toString(context.dtype), ' ', config.preparation.key());
    const auto make = [&] {
      const auto model = std::make_shared<ClipVisionModel>(config.vision, architecture);
      load(*model, weights->pictures, files, context);
      return make_clip_tower(model, config.preparation, key);
    };
    return context.shared ? context.shared->towers.get(key, make) : make();
  };
  parts.prompts = [=] {
    const std::string key = concat("open_clip ", fs::canonical(files.weights).string(), ' ', architecture, ' ',
                                   c10::toString(context.dtype), ' ', options.tokenizer.string());
    const auto make = [&] {
      const auto model = std::make_shared<text::ClipTextModel>(config.text, architecture);
      load(*model, weights->prompts, files, context);
      return std::make_shared<ClipPromptEncoder>(prompt_tokenizer(files, options, config.text.max_position_embeddings),
                                                 model, key);
    };
    return context.shared ? context.shared->prompt_encoders.get(key, make) : make();
  };
  return parts;
}

}  // namespace prefusion::reward_models
