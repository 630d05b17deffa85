#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

namespace prefusion::pipelines {

// The kinds of models there are. They differ in text encoders, in what else the denoiser is told, and in details of
// their diffusers pipelines.
enum class ModelFamily {
  kStableDiffusion,
  kStableDiffusionXl,
  kStableDiffusion3,
  kFlux,
  kPixArtAlpha,
  kPixArtSigma,
  kDit,
};

// What model_index.json of a diffusers folder says about its pipeline.
struct ModelIndex {
  std::string class_name;  // "StableDiffusionPipeline"
  ModelFamily family = ModelFamily::kStableDiffusion;
  std::string scheduler_class;                // the class that is to read scheduler/scheduler_config.json; may be empty
  bool zeros_for_no_negative_prompt = false;  // SDXL: force_zeros_for_empty_prompt
  bool has_first_encoder = true;              // SDXL: its refiner has the second text encoder alone
  bool has_t5 = false;                        // SD3: its third text encoder may be left out
  std::map<std::string, int64_t> class_labels;  // DiT: id2label, numbers of classes by their names
  bool tells_aesthetic_score = false;           // SDXL's refiner: requires_aesthetics_score
};

// What a model is wanted for: pipelines that start from a picture make none from text alone.
enum class PipelineUse { kTextToImage, kAny };

// Reads and checks MODEL_DIR/model_index.json. Input error when it is missing or malformed, names a pipeline class of
// no such use, lacks a component, or has components prefusion does not know. The safety checker and the image encoder
// of adapters play no part in making a picture and are left out.
ModelIndex read_model_index(const std::filesystem::path& model_dir, PipelineUse use = PipelineUse::kTextToImage);

}  // namespace prefusion::pipelines
