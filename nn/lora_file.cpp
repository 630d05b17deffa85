#include "nn/lora_file.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "core/error.h"
#include "nn/lora_original.h"

namespace prefusion::nn {
namespace {

namespace fs = std::filesystem;

double read_alpha(const at::Tensor& tensor, const std::string& key, const std::string& where) {
  check_input(tensor.numel() == 1, where, ": '", key, "' must be a single number, found shape ",
              shape_text(tensor.sizes()));
  const double alpha = tensor.to(at::kDouble).item<double>();
  check_input(std::isfinite(alpha), where, ": '", key, "' is not finite");
  return alpha;
}

void add_key(const std::string& key, const LoraKey& parsed, const at::Tensor& tensor, LoraFileModule& module,
             const std::string& where) {
  module.component = parsed.component;
  module.name = parsed.module;
  module.keys.push_back(key);
  if (parsed.part == LoraPart::kAlpha) {
    module.alpha = read_alpha(tensor, key, where);
    return;
  }
  check_input(at::isFloatingType(tensor.scalar_type()), where, ": '", key, "' has type ",
              safetensors_dtype_name(tensor.scalar_type()), ", expected a floating type");
  check_input(tensor.dim() == 2 || tensor.dim() == 4, where, ": '", key,
              "' must have 2 dimensions (linear) or 4 (convolution), found shape ", shape_text(tensor.sizes()));
  check_input(tensor.numel() > 0, where, ": '", key, "' is empty, shape ", shape_text(tensor.sizes()));
  at::Tensor& slot = parsed.part == LoraPart::kA ? module.A : module.B;
  check_input(!slot.defined(), where, ": '", key, "' comes a second time under another name: the file holds more than ",
              "one adapter");
  slot = tensor;
}

void check_pair(const LoraFileModule& module, const std::string& where) {
  check_input(module.A.defined() || module.B.defined(), where, ": '", module.keys.front(),
              "' has an alpha but no weights");
  check_input(module.A.defined() && module.B.defined(), where, ": '", module.keys.back(), "' comes without its ",
              module.A.defined() ? "B (up) half" : "A (down) half");
  check_input(module.A.size(0) == module.B.size(1), where, ": the halves of '", module.name,
              "' disagree on the rank: A ", shape_text(module.A.sizes()), ", B ", shape_text(module.B.sizes()));
}

std::vector<fs::path> safetensors_in(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& item : fs::directory_iterator(folder)) {
    if (item.path().extension() == ".safetensors") files.push_back(item.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

void read_description(LoraFile& file) {
  const std::string where = file.path.string();
  const auto header = file.metadata.find(kLoraMetadataKey);
  if (header != file.metadata.end()) {
    file.description = parse_json(header->second, where + ": " + kLoraMetadataKey);
    return;
  }
  const fs::path config = file.path.parent_path() / "adapter_config.json";
  if (file.path.filename() == "adapter_model.safetensors" && fs::exists(config)) {
    file.description = read_json(config);
    file.description_has_prefixes = false;
  }
}

}  // namespace

fs::path find_lora_file(const fs::path& path) {
  check_input(fs::exists(path), path.string(), ": no such LoRA file or folder");
  if (!fs::is_directory(path)) {
    check_input(path.extension() != ".bin" && path.extension() != ".pt" && path.extension() != ".ckpt", path.string(),
                ": pickled LoRA files are not read; convert it to safetensors");
    return path;
  }
  for (const char* name : {"pytorch_lora_weights.safetensors", "adapter_model.safetensors"}) {
    if (fs::exists(path / name)) return path / name;
  }
  const std::vector<fs::path> files = safetensors_in(path);
  check_input(files.size() == 1, path.string(),
              ": expected pytorch_lora_weights.safetensors or one *.safetensors, found ", files.size());
  return files.front();
}

LoraComponent denoiser_component(const LoraFile& file) {
  for (const LoraFileModule& module : file.modules) {
    if (module.component == LoraComponent::kTransformer) return LoraComponent::kTransformer;
  }
  return LoraComponent::kUnet;
}

LoraDescription description_of(const LoraFile& file, LoraComponent component) {
  // An adapter_config.json describes one network, and PEFT's files are of the denoiser.
  if (file.description.is_null() || (!file.description_has_prefixes && !is_denoiser(component))) return {};
  const std::string prefix = file.description_has_prefixes ? component_name(component) : "";
  return LoraDescription(file.description, prefix, file.path.string());
}

LoraFile read_lora_file(const fs::path& path) {
  LoraFile file;
  file.path = find_lora_file(path);
  const std::string where = file.path.string();
  const SafetensorsFile tensors = SafetensorsFile::open(file.path);
  file.metadata = tensors.metadata();
  std::map<std::pair<LoraComponent, std::string>, LoraFileModule> modules;
  for (const auto& [key, entry] : tensors.entries()) {
    const std::optional<LoraKey> parsed = parse_lora_key(key, where);
    if (!parsed) {
      file.other_keys.push_back(key);
      continue;
    }
    file.dialect = std::max(file.dialect, parsed->dialect);
    add_key(key, *parsed, tensors.tensor(key), modules[{parsed->component, parsed->module}], where);
  }
  for (auto& [name, module] : modules) {
    check_pair(module, where);
    file.modules.push_back(std::move(module));
  }
  expand_original_modules(file);
  read_description(file);
  const auto range = file.metadata.find(kTimestepRangeKey);
  if (range != file.metadata.end()) {
    file.timestep_range = parse_timestep_range(range->second);
    check_input(file.timestep_range.has_value(), where, ": ", kTimestepRangeKey, " is '", range->second,
                "', expected LOW:HIGH");
  }
  return file;
}

}  // namespace prefusion::nn
