#include "tools/contender.h"

#include <algorithm>
#include <set>

#include "core/error.h"
#include "tools/generate_images.h"

namespace prefusion::tools {
namespace {

std::string last_name(const std::filesystem::path& path) {
  const std::filesystem::path normal = std::filesystem::absolute(path).lexically_normal();
  return normal.has_filename() ? normal.filename().string() : normal.parent_path().filename().string();
}

// What tells a model from others: its folder, or that of its last adapter.
std::string short_name(const Contender& model) {
  if (model.loras.empty()) return last_name(model.model);
  const std::filesystem::path lora = parse_lora_argument(model.loras.back()).path;
  const bool is_named_by_folder = lora.filename() == "pytorch_lora_weights.safetensors";
  return last_name(is_named_by_folder ? std::filesystem::absolute(lora).parent_path() : lora);
}

}  // namespace

std::vector<std::string> distinct_names(const std::vector<Contender>& models) {
  std::set<std::string> taken;
  std::vector<std::string> names;
  for (const Contender& model : models) {
    const std::string name = short_name(model);
    std::string candidate = name;
    for (int number = 2; !taken.insert(candidate).second; ++number) candidate = concat(name, "-", number);
    names.push_back(candidate);
  }
  return names;
}

Contender parse_contender(const std::string& text) {
  Contender contender;
  // The longest beginning that is there is the model folder.
  size_t end = text.size();
  while (end != std::string::npos && !std::filesystem::exists(text.substr(0, end))) {
    end = end == 0 ? std::string::npos : text.rfind('+', end - 1);
  }
  if (end == std::string::npos) end = std::min(text.find('+'), text.size());
  contender.model = text.substr(0, end);
  std::string adapters = text.substr(end);
  while (!adapters.empty()) {
    adapters.erase(0, 1);  // the plus
    const size_t next = std::min(adapters.find('+'), adapters.size());
    contender.loras.push_back(adapters.substr(0, next));
    check_usage(next > 0, "--model ", text, ": a LoRA's path should follow each '+'");
    adapters.erase(0, next);
  }
  return contender;
}

pipelines::TextToImage load_contender(const Contender& model, at::ScalarType dtype, at::Device device) {
  pipelines::TextToImage pipeline = pipelines::TextToImage::load(model.model, dtype, device);
  attach_loras(model.loras, pipeline.components());
  return pipeline;
}

at::Tensor attach_users(const Contender& model, const pipelines::TextToImage& pipeline) {
  if (model.user_adapter.empty()) return {};
  return attach_user_adapter(model.user_adapter, model.user, pipeline.components());
}

}  // namespace prefusion::tools
