#include "tools/convert_model.h"

#include <algorithm>
#include <array>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/torch_file.h"
#include "layouts/infer_config.h"
#include "tools/convert_check.h"

namespace prefusion::tools {
namespace {

namespace fs = std::filesystem;
using layouts::ComponentLayout;
using layouts::Family;
using layouts::FamilyInfo;

constexpr std::array kNetworkFolders = {"unet",         "transformer",    "vae",
                                        "text_encoder", "text_encoder_2", "text_encoder_3"};

const ComponentLayout* find_layout(Family family, const std::string& folder) {
  for (const ComponentLayout& component : layouts::family_info(family).components) {
    if (folder == component.folder) return &component;
  }
  return nullptr;
}

std::string existing_stem(const fs::path& folder) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    if (entry.path().filename().string().starts_with("diffusion_pytorch_model.")) return "diffusion_pytorch_model";
  }
  return "model";
}

ModelPart read_part(const fs::path& model, const std::string& folder, std::optional<Family> family) {
  ModelPart part;
  part.folder = folder;
  part.config = read_json(model / folder / "config.json");
  part.stem = existing_stem(model / folder);
  part.weights = tensor_sources(read_weights(model / folder, part.stem));
  if (family) part.layout = find_layout(*family, folder);
  return part;
}

bool has_part(const fs::path& model, const std::string& folder) {
  return fs::exists(model / folder / "config.json");
}

// Pipelines without a single-file layout can still be merged into and mixed.
std::optional<Family> family_if_known(const fs::path& folder) {
  try {
    return layouts::family_of_folder(folder);
  } catch (const Error&) {
    return std::nullopt;
  }
}

ConvertibleModel read_folder(const fs::path& path) {
  ConvertibleModel model;
  model.source = path;
  model.is_folder = true;
  model.model_index = read_json(path / "model_index.json");
  model.family = family_if_known(path);
  for (const auto& entry : fs::directory_iterator(path)) {
    const std::string name = entry.path().filename().string();
    const bool is_network = std::find(kNetworkFolders.begin(), kNetworkFolders.end(), name) != kNetworkFolders.end();
    if (name.starts_with(".") || name == "model_index.json") continue;
    if (is_network && has_part(path, name)) {
      model.parts.push_back(read_part(path, name, model.family));
    } else if (entry.is_directory() || entry.path().extension() == ".md") {
      model.copies.emplace(name, entry.path());
    }
  }
  std::sort(model.parts.begin(), model.parts.end(),
            [](const ModelPart& a, const ModelPart& b) { return a.folder < b.folder; });
  check_input(!model.parts.empty(), path.string(), ": holds no network (unet, transformer, vae, text_encoder)");
  return model;
}

void check_config_fits(const fs::path& config, Family family) {
  const Family found = layouts::family_of_folder(config);
  // A folder without text encoder does not tell 1.x from 2.x.
  const bool both_sd =
      (found == Family::kSd1 || found == Family::kSd2) && (family == Family::kSd1 || family == Family::kSd2);
  check_input(found == family || (both_sd && !has_part(config, "text_encoder")), config.string(), ": is a ",
              layouts::family_info(found).name, " folder, but the checkpoint is ", layouts::family_info(family).name);
}

// Where the text encoder of SD 2 ends.
layouts::SplitOptions split_options(const ReadModelOptions& options) {
  layouts::SplitOptions split{.use_ema = options.use_ema};
  const fs::path text = options.config / "text_encoder" / "config.json";
  if (!options.config.empty() && fs::exists(text)) {
    split.sd2_text_layers = read_json(text).value("num_hidden_layers", split.sd2_text_layers);
  }
  return split;
}

std::string tokenizer_of(const std::string& text_encoder) {
  return "tokenizer" + text_encoder.substr(std::string("text_encoder").size());
}

Json single_file_index(const ConvertibleModel& model) {
  const FamilyInfo& info = layouts::family_info(*model.family);
  Json index = {{"_class_name", info.pipeline_class}};
  const bool is_sd = *model.family == Family::kSd1 || *model.family == Family::kSd2;
  for (const ComponentLayout& component : info.components)
    index[component.folder] = {component.library, component.class_name};
  for (const auto& [folder, class_name] : info.tokenizers) index[folder] = {"transformers", class_name};
  index["scheduler"] = {"diffusers", model.scheduler.value("_class_name", "")};
  if (is_sd) {
    index["safety_checker"] = index["feature_extractor"] = {nullptr, nullptr};
    index["requires_safety_checker"] = false;
  }
  if (*model.family == Family::kSdxl) index["force_zeros_for_empty_prompt"] = true;
  if (*model.family == Family::kSdxlRefiner) {
    index["text_encoder"] = index["tokenizer"] = {nullptr, nullptr};
    index["force_zeros_for_empty_prompt"] = false;
    index["requires_aesthetics_score"] = true;
  }
  const int64_t in_channels = model.parts.front().config.value("in_channels", int64_t{4});
  if (in_channels == 9 && model.parts.front().folder == "unet") {
    index["_class_name"] = is_sd ? "StableDiffusionInpaintPipeline" : "StableDiffusionXLInpaintPipeline";
  }
  if (*model.family == Family::kFlux && in_channels == 384) index["_class_name"] = "FluxFillPipeline";
  return index;
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

// "model_ema (686), alphas_cumprod (1)": what was left out, by the first part of the name.
std::string groups_of(const std::vector<std::string>& names) {
  std::map<std::string, int64_t> counts;
  for (const auto& name : names) ++counts[name.substr(0, name.find('.'))];
  std::vector<std::string> groups;
  for (const auto& [group, count] : counts) groups.push_back(concat(group, " (", count, ")"));
  constexpr size_t kShown = 8;
  if (groups.size() > kShown) groups.resize(kShown);
  return joined(groups);
}

// Whether a pipeline has the component: others are absent or [null, null].
bool is_listed(const Json& index, const std::string& component) {
  const auto entry = index.find(component);
  return entry != index.end() && entry->is_array() && entry->size() == 2 && (*entry)[1].is_string();
}

// Networks the file lacks come from --config, where it has their weights.
void complete(ConvertibleModel& model, const fs::path& config) {
  std::vector<std::string> missing, taken;
  for (const ComponentLayout& component : layouts::family_info(*model.family).components) {
    const std::string folder = component.folder;
    if (model.find(folder)) continue;
    if (!config.empty() && has_part(config, folder)) {
      model.parts.push_back(read_part(config, folder, model.family));
      taken.push_back(folder);
    } else if (folder != "text_encoder_3" && is_listed(model.model_index, folder)) {  // SD3 runs without its T5
      missing.push_back(folder);
    }
  }
  if (*model.family == Family::kSd3 && !model.find("text_encoder_3") && !model.model_index.is_null()) {
    for (const char* name : {"text_encoder_3", "tokenizer_3"}) {
      if (model.model_index.contains(name)) model.model_index[name] = {nullptr, nullptr};
    }
    model.copies.erase("tokenizer_3");
    model.notes.push_back("no T5 (text_encoder_3): the pipeline runs with its two CLIP encoders");
  }
  if (!taken.empty()) model.notes.push_back(joined(taken) + ": not in the file, taken from " + config.string());
  if (missing.empty()) return;
  model.model_index = nullptr;
  model.notes.push_back("the file has no " + joined(missing) +
                        ": a folder made of it holds networks alone, no pipeline; --config FOLDER completes it");
}

// Tokenizers, scheduler and what else a pipeline has beside its networks.
void take_from_config(ConvertibleModel& model, const ReadModelOptions& options) {
  model.model_index = read_json(options.config / "model_index.json");
  for (const auto& entry : fs::directory_iterator(options.config)) {
    const std::string name = entry.path().filename().string();
    const bool is_network = std::find(kNetworkFolders.begin(), kNetworkFolders.end(), name) != kNetworkFolders.end();
    if (entry.is_directory() && !is_network && !name.starts_with(".")) model.copies.emplace(name, entry.path());
  }
  const fs::path scheduler = options.config / "scheduler" / "scheduler_config.json";
  if (fs::exists(scheduler)) {
    model.scheduler = read_json(scheduler);
    if (!options.prediction_type.empty()) model.scheduler["prediction_type"] = options.prediction_type;
    model.copies.erase("scheduler");
  }
}

// Files of SDXL that predict v say so with an empty tensor.
std::string prediction_type_of(const TensorSources& tensors, const ReadModelOptions& options) {
  if (!options.prediction_type.empty()) return options.prediction_type;
  return tensors.contains("v_pred") ? "v_prediction" : "";
}

void refuse_prediction_of_flow(Family family, const std::string& prediction_type) {
  const bool is_flow = family == Family::kSd3 || family == Family::kFlux;
  check_usage(!is_flow || prediction_type.empty(), "--prediction-type ", prediction_type, ": ",
              layouts::family_info(family).name, " predicts the flow, nothing else");
}

ConvertibleModel read_file(const fs::path& path, const ReadModelOptions& options) {
  const TensorSources tensors = open_tensors(path);
  layouts::SingleFile file = layouts::split_single_file(tensors, split_options(options), path.string());
  ConvertibleModel model;
  model.source = path;
  model.family = file.family;
  const std::string prediction_type = prediction_type_of(tensors, options);
  refuse_prediction_of_flow(file.family, options.prediction_type);
  if (!options.config.empty()) check_config_fits(options.config, file.family);
  for (auto& component : file.components) {
    ModelPart part;
    part.folder = component.layout->folder;
    part.layout = component.layout;
    part.stem = layouts::weight_stem(component.layout->kind);
    part.weights = std::move(component.weights);
    const fs::path config = options.config / part.folder / "config.json";
    part.is_config_inferred = options.config.empty() || !fs::exists(config);
    // CLIP-L's projection in SD3 is the identity, and its files do without it.
    add_identity_projection(*model.family, part);
    part.config = part.is_config_inferred
                      ? layouts::infer_config(file.family, *part.layout, part.weights, prediction_type, path.string())
                      : read_json(config);
    check_part(part, path.string());
    model.parts.push_back(std::move(part));
  }
  model.scheduler = layouts::default_scheduler(file.family, model.parts.front().weights, prediction_type);
  if (tensors.contains("ztsnr")) model.scheduler["rescale_betas_zero_snr"] = true;
  model.model_index = single_file_index(model);
  if (!options.config.empty()) take_from_config(model, options);
  if (!file.left_out.empty()) {
    model.notes.push_back(concat("left out, no weights of the networks: ", groups_of(file.left_out)));
  }
  complete(model, options.config);
  return model;
}

}  // namespace

ModelPart* ConvertibleModel::find(const std::string& folder) {
  for (ModelPart& part : parts) {
    if (part.folder == folder) return &part;
  }
  return nullptr;
}

ConvertibleModel read_convertible(const fs::path& path, const ReadModelOptions& options) {
  check_input(fs::exists(path), path.string(), ": no such model file or folder");
  if (fs::is_directory(path)) return read_folder(path);
  return read_file(path, options);
}

size_t model_bytes(const ConvertibleModel& model) {
  size_t bytes = 0;
  for (const ModelPart& part : model.parts) {
    for (const auto& [name, source] : part.weights) bytes += source.numel() * c10::elementSize(source.dtype);
  }
  return bytes;
}

void check_can_be_folder(const ConvertibleModel& model) {
  if (model.is_folder) return;
  for (const ModelPart& part : model.parts) {
    if (!part.folder.starts_with("text_encoder")) continue;
    const std::string tokenizer = tokenizer_of(part.folder);
    check_input(model.copies.contains(tokenizer), model.source.string(), ": a single file holds no ", tokenizer,
                "/ files; give --config FOLDER, a diffusers folder of the same family that has them");
  }
}

TensorSources single_file_tensors(const ConvertibleModel& model) {
  check_input(model.family.has_value(), model.source.string(), ": pipeline class ",
              model.model_index.value("_class_name", Json()).dump(),
              " has no single-file layout here; known are Stable Diffusion 1 to 3.5, SDXL and FLUX.1");
  std::vector<layouts::ComponentWeights> components;
  for (const ModelPart& part : model.parts) {
    if (part.layout) components.push_back({part.layout, part.weights});
  }
  return layouts::join_single_file(*model.family, components, model.source.string());
}

void write_model_file(const ConvertibleModel& model, const fs::path& output, const WriteProgress& on_written) {
  write_safetensors(output, single_file_tensors(model), {{"format", "pt"}}, on_written);
}

}  // namespace prefusion::tools
