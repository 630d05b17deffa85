#include <ATen/ATen.h>

#include <functional>
#include <optional>

#include "core/error.h"
#include "core/json_config.h"
#include "schedulers/scheduler.h"
#include "text/clip_text_model.h"
#include "text/clip_tokenizer.h"
#include "text/t5_encoder_model.h"
#include "text/t5_tokenizer.h"
#include "tools/inspection.h"
#include "unet/denoiser.h"
#include "vae/autoencoder_kl.h"

namespace prefusion::tools {
namespace fs = std::filesystem;
namespace {

// Makes the module of a component from its config and loads its weights strictly, in the dtype they have.
using Check = std::function<void(const fs::path& folder, at::ScalarType dtype)>;

struct ComponentClass {
  const char* name;
  const char* stem;  // of its weight files; null for components without weights
  Check check;
};

const std::vector<ComponentClass>& component_classes() {
  const Check text_encoder = [](const fs::path& folder, at::ScalarType dtype) {
    text::load_clip_text_model(folder, dtype, at::kCPU);
  };
  const Check t5_encoder = [](const fs::path& folder, at::ScalarType dtype) {
    text::load_t5_encoder_model(folder, dtype, at::kCPU);
  };
  const Check denoiser = [](const fs::path& folder, at::ScalarType dtype) {
    unet::load_denoiser(folder, dtype, at::kCPU);
  };
  const Check tokenizer = [](const fs::path& folder, at::ScalarType) { text::ClipTokenizer::load(folder); };
  const Check t5_tokenizer = [](const fs::path& folder, at::ScalarType) { text::T5Tokenizer::load(folder); };
  constexpr const char* kDiffusers = "diffusion_pytorch_model";
  static const std::vector<ComponentClass> classes = {
      {"UNet2DConditionModel", kDiffusers, denoiser},
      {"SD3Transformer2DModel", kDiffusers, denoiser},
      {"FluxTransformer2DModel", kDiffusers, denoiser},
      {"PixArtTransformer2DModel", kDiffusers, denoiser},
      {"DiTTransformer2DModel", kDiffusers, denoiser},
      {"Transformer2DModel", kDiffusers, denoiser},
      {"T5EncoderModel", "model", t5_encoder},
      {"T5Tokenizer", nullptr, t5_tokenizer},
      {"T5TokenizerFast", nullptr, t5_tokenizer},
      {"AutoencoderKL", kDiffusers,
       [](const fs::path& folder, at::ScalarType dtype) { vae::load_autoencoder(folder, dtype, at::kCPU); }},
      {"CLIPTextModel", "model", text_encoder},
      {"CLIPTextModelWithProjection", "model", text_encoder},
      {"CLIPTokenizer", nullptr, tokenizer},
      {"CLIPTokenizerFast", nullptr, tokenizer},
  };
  return classes;
}

const ComponentClass* find_class(const std::string& name) {
  for (const auto& entry : component_classes()) {
    if (name == entry.name) return &entry;
  }
  return nullptr;
}

at::ScalarType stored_dtype(const TensorMap& weights) {
  for (const auto& [name, tensor] : weights) {
    if (at::isFloatingType(tensor.scalar_type())) return tensor.scalar_type();
  }
  return at::kFloat;
}

// One row of the table of components. What is wrong goes into the inspection's problems.
OrderedJson check_component(const std::string& name, const std::string& class_name, const fs::path& folder,
                            Inspection& inspection) {
  OrderedJson row;
  row["name"] = name;
  row["class"] = class_name;
  const size_t problems_before = inspection.problems.size();
  const ComponentClass* entry = find_class(class_name);
  const bool is_scheduler = class_name.ends_with("Scheduler");
  if (!fs::is_directory(folder)) {
    inspection.problems.push_back(folder.string() + ": the folder is missing, model_index.json names a " + class_name);
  } else if (!entry && !is_scheduler) {
    inspection.notes.push_back(folder.string() + ": " + class_name + " is not used by prefusion and was not checked");
    row["state"] = "not checked";
    return row;
  } else {
    try {
      at::ScalarType dtype = at::kFloat;
      if (entry && entry->stem) {
        const TensorMap weights = read_weights(folder, entry->stem);
        dtype = stored_dtype(weights);
        row.update(tensor_facts(weights, folder.string(), inspection));
      }
      if (is_scheduler) {
        schedulers::make_scheduler("auto", schedulers::read_scheduler_config(folder.parent_path()));
      } else {
        entry->check(folder, dtype);
      }
    } catch (const Error& error) {
      inspection.problems.push_back(error.what());
    }
  }
  row["state"] = inspection.problems.size() == problems_before ? "ok" : "unsound";
  return row;
}

// The class a component folder says it is: diffusers' _class_name, or the architecture of transformers.
std::optional<std::string> class_of_config(const Json& config) {
  if (!config.is_object()) return std::nullopt;
  if (config.contains("_class_name") && config["_class_name"].is_string()) return config["_class_name"];
  if (config.contains("architectures") && config["architectures"].is_array() && !config["architectures"].empty() &&
      config["architectures"][0].is_string()) {
    return config["architectures"][0];
  }
  return std::nullopt;
}

void add_totals(Inspection& inspection) {
  int64_t parameters = 0;
  int64_t bytes = 0;
  for (const auto& row : inspection.facts["components"]) {
    parameters += row.value("parameters", int64_t{0});
    bytes += row.value("bytes", int64_t{0});
  }
  inspection.facts["parameters"] = parameters;
  inspection.facts["bytes"] = bytes;
}

}  // namespace

Inspection inspect_model(const fs::path& folder) {
  Inspection inspection{.path = folder.string(), .kind = "model"};
  inspection.facts["class"] = nullptr;
  inspection.facts["components"] = OrderedJson::array();
  try {
    const fs::path index_path = folder / "model_index.json";
    const Json index = read_json(index_path);
    check_input(index.is_object(), index_path.string(), ": expected a JSON object, found ", index.type_name());
    if (index.contains("_class_name")) inspection.facts["class"] = index["_class_name"];
    for (const auto& [name, value] : index.items()) {
      // Components are [library, class]; everything else is a setting of the pipeline. [null, null] is an absent one.
      if (!value.is_array() || value.size() != 2 || !value[1].is_string()) continue;
      inspection.facts["components"].push_back(
          check_component(name, value[1].get<std::string>(), folder / name, inspection));
    }
    check_input(!inspection.facts["components"].empty(), index_path.string(), ": names no component");
  } catch (const Error& error) {
    inspection.problems.push_back(error.what());
  }
  add_totals(inspection);
  return inspection;
}

Inspection inspect_component(const fs::path& folder) {
  Inspection inspection{.path = folder.string(), .kind = "component"};
  try {
    const Json config = read_json(folder / "config.json");
    const auto class_name = class_of_config(config);
    check_input(class_name.has_value(), (folder / "config.json").string(),
                ": names neither '_class_name' nor 'architectures'");
    inspection.facts = check_component(folder.filename().string(), *class_name, folder, inspection);
    inspection.facts.erase("name");
  } catch (const Error& error) {
    inspection.problems.push_back(error.what());
  }
  return inspection;
}

}  // namespace prefusion::tools
