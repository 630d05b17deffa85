#include <ATen/ATen.h>

#include <array>
#include <map>
#include <set>
#include <string_view>

#include "core/atomic_file.h"
#include "core/error.h"
#include "nn/lora.h"
#include "nn/lora_file.h"
#include "nn/lora_metadata.h"
#include "text/clip_text_model.h"
#include "tools/inspection.h"
#include "unet/denoiser.h"

namespace prefusion::tools {
namespace fs = std::filesystem;
namespace {

// The last part of a layer's name, by which targets are usually given; kohya's names are cut at the ones there are.
std::string target_name(const std::string& name, bool is_kohya) {
  // A name that ends with another comes before it.
  constexpr std::array<std::string_view, 24> kKnown = {
      "add_q_proj", "add_k_proj", "add_v_proj",    "to_add_out",    "to_q",    "to_k",
      "to_v",       "to_out_0",   "ff_net_0_proj", "ff_net_2",      "proj_in", "proj_out",
      "q_proj",     "k_proj",     "v_proj",        "out_proj",      "fc1",     "fc2",
      "conv1",      "conv2",      "conv_shortcut", "time_emb_proj", "conv_in", "conv_out"};
  if (is_kohya) {
    for (const auto known : kKnown) {
      if (name.ends_with(known)) return std::string(known);
    }
    return name;
  }
  const size_t dot = name.rfind('.');
  if (dot == std::string::npos) return name;
  const bool is_index = name.find_first_not_of("0123456789", dot + 1) == std::string::npos;
  const size_t before = is_index && dot > 0 ? name.rfind('.', dot - 1) : dot;
  return before == std::string::npos ? name : name.substr(before + 1);
}

// {"4": 12, "8": 2} as a table of values and how many modules have them.
template <typename Value>
OrderedJson counts_json(const std::map<Value, int64_t>& counts) {
  OrderedJson json = OrderedJson::object();
  for (const auto& [value, count] : counts) json[concat(value)] = count;
  return json;
}

// The descriptions of the file's networks by component.
std::map<nn::LoraComponent, nn::LoraDescription> read_descriptions(const nn::LoraFile& file) {
  std::map<nn::LoraComponent, nn::LoraDescription> descriptions;
  for (const auto& module : file.modules) {
    if (descriptions.contains(module.component)) continue;
    descriptions.emplace(module.component, nn::description_of(file, module.component));
  }
  return descriptions;
}

void add_file_facts(const nn::LoraFile& file, Inspection& inspection) {
  std::map<int64_t, int64_t> ranks;
  std::map<double, int64_t> alphas;
  std::map<std::string, int64_t> components;
  std::set<std::string> targets;
  TensorMap tensors;
  int64_t untrained = 0;
  auto descriptions = read_descriptions(file);
  for (const auto& module : file.modules) {
    ++ranks[module.rank()];
    ++alphas[module.alpha ? *module.alpha : descriptions[module.component].alpha(module.name, module.rank())];
    ++components[nn::component_name(module.component)];
    targets.insert(target_name(module.name, file.dialect == nn::LoraDialect::kKohya));
    const std::string name = std::string(nn::component_name(module.component)) + "." + module.name;
    tensors.emplace(name + " A", module.A);
    tensors.emplace(name + " B", module.B);
    untrained += module.B.count_nonzero().item<int64_t>() == 0;
  }
  auto& facts = inspection.facts;
  facts["file"] = file.path.string();
  facts["dialect"] = nn::dialect_name(file.dialect);
  facts["modules"] = file.modules.size();
  facts["modules_by_network"] = counts_json(components);
  facts["ranks"] = counts_json(ranks);
  facts["alphas"] = counts_json(alphas);
  facts["target_modules"] = targets;
  facts.update(tensor_facts(tensors, file.path.string(), inspection));
  facts["has_adapter_metadata"] = !file.description.is_null();
  if (file.timestep_range) facts["timestep_range"] = file.timestep_range->text();
  for (const char* key : {"ss_network_module", "ss_base_model_version", "ss_network_dim", "ss_network_alpha"}) {
    const auto found = file.metadata.find(key);
    if (found != file.metadata.end()) facts[key] = found->second;
  }
  if (file.modules.empty()) inspection.problems.push_back("the file holds no LoRA weights");
  if (!file.other_keys.empty()) {
    inspection.notes.push_back(
        concat(file.other_keys.size(), " keys are no part of a LoRA, the first is '", file.other_keys.front(), "'"));
  }
  if (untrained == static_cast<int64_t>(file.modules.size()) && untrained > 0) {
    inspection.notes.push_back("every B is zero: the LoRA is untrained and has no effect");
  }
}

// The networks are made from their configs; a LoRA's fit does not depend on the weights.
std::shared_ptr<text::ClipTextModel> make_text_encoder(const fs::path& folder) {
  const fs::path config = folder / "config.json";
  if (!fs::exists(config)) return nullptr;
  return text::make_clip_text_model(read_file(config), config.string());
}

void match_model(const fs::path& file, const fs::path& model, Inspection& inspection) {
  check_input(fs::is_directory(model), model.string(), ": no such model folder");
  const fs::path config = unet::denoiser_folder(model) / "config.json";
  const auto denoiser = unet::make_denoiser(read_file(config), config.string());
  const auto text_encoder = make_text_encoder(model / "text_encoder");
  const auto text_encoder_2 = make_text_encoder(model / "text_encoder_2");
  const auto report = nn::load_lora(*denoiser, text_encoder.get(), file, 1.0, text_encoder_2.get());
  inspection.facts["model"] = model.string();
  inspection.facts["matched_modules"] = report.matched.size();
  inspection.facts["unmatched_keys"] = report.unmatched;
  if (!report.unmatched.empty()) {
    inspection.notes.push_back(
        concat(report.unmatched.size(), " keys fit no layer of ", model.string(), " and have no effect"));
  }
}

}  // namespace

Inspection inspect_lora(const fs::path& path, const fs::path& model) {
  Inspection inspection{.path = path.string(), .kind = "lora"};
  try {
    const nn::LoraFile file = nn::read_lora_file(path);
    add_file_facts(file, inspection);
    if (!model.empty() && !file.modules.empty()) match_model(file.path, model, inspection);
  } catch (const Error& error) {
    inspection.problems.push_back(error.what());
  }
  return inspection;
}

Inspection inspect_tensors(const fs::path& file) {
  Inspection inspection{.path = file.string(), .kind = "tensors"};
  try {
    Metadata metadata;
    const TensorMap tensors = read_safetensors(file, &metadata);
    inspection.facts = tensor_facts(tensors, file.string(), inspection);
    if (!metadata.empty()) inspection.facts["metadata"] = metadata;
  } catch (const Error& error) {
    inspection.problems.push_back(error.what());
  }
  return inspection;
}

}  // namespace prefusion::tools
