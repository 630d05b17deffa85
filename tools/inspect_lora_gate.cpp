#include "core/atomic_file.h"
#include "core/error.h"
#include "core/json_config.h"
#include "nn/lora_gate.h"
#include "tools/inspection.h"
#include "unet/denoiser.h"

namespace prefusion::tools {
namespace fs = std::filesystem;

Inspection inspect_lora_gate(const fs::path& file, const fs::path& model) {
  Inspection inspection{.path = file.string(), .kind = "gated LoRA"};
  try {
    Metadata metadata;
    const TensorMap tensors = read_safetensors(file, &metadata);
    inspection.facts["file"] = file.string();
    inspection.facts["experts"] = nn::expert_names(metadata, file.string());
    inspection.facts.update(tensor_facts(tensors, file.string(), inspection));
    if (model.empty()) return inspection;
    check_input(fs::is_directory(model), model.string(), ": no such model folder");
    const fs::path config = unet::denoiser_folder(model) / "config.json";
    const auto denoiser = unet::make_denoiser(read_file(config), config.string());
    const auto gate = nn::LoraGate::load(*denoiser, file, 1.0);
    inspection.facts["model"] = model.string();
    inspection.facts["layers"] = gate->layers().size();
  } catch (const Error& error) {
    inspection.problems.push_back(error.what());
  }
  return inspection;
}

}  // namespace prefusion::tools
