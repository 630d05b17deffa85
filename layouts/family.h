#pragma once

#include <string>
#include <vector>

#include "core/json_config.h"
#include "core/tensor_source.h"

// The families of models that are passed around as single files.
namespace prefusion::layouts {

enum class Family { kSd1, kSd2, kSdxl, kSdxlRefiner, kSd3, kFlux };

enum class NetworkKind { kUnet, kSd3Transformer, kFluxTransformer, kAutoencoder, kClip, kOpenClip, kT5 };

// A network of a family: where a diffusers folder and a single file keep it.
struct ComponentLayout {
  const char* folder;
  NetworkKind kind;
  std::vector<const char*> prefixes;  // in a file; the first is the one that is written
  const char* library;                // of model_index.json
  const char* class_name;
};

struct FamilyInfo {
  Family family;
  const char* name;  // for people: "SDXL base"
  const char* pipeline_class;
  std::vector<ComponentLayout> components;                      // the denoiser first
  std::vector<std::pair<const char*, const char*>> tokenizers;  // folder, class
};

const std::vector<FamilyInfo>& families();
const FamilyInfo& family_info(Family family);

// The family of a single file, by its names. Input error for what is none: ControlNets, LoRAs, other architectures.
Family detect_family(const TensorSources& tensors, const std::string& where);

// The family of a diffusers folder, by its model_index.json and the activation of its text encoder.
Family family_of_folder(const std::filesystem::path& folder);

// The scheduler the family was published with. `prediction_type` is empty for the published one.
Json default_scheduler(Family family, const TensorSources& denoiser, const std::string& prediction_type);

// The stem of a component's weight file: "model" for text encoders, else "diffusion_pytorch_model".
const char* weight_stem(NetworkKind kind);

}  // namespace prefusion::layouts
