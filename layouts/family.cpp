#include "layouts/family.h"

#include <algorithm>

#include "core/error.h"

namespace prefusion::layouts {
namespace {

namespace fs = std::filesystem;

constexpr const char* kDenoiserPrefix = "model.diffusion_model.";

ComponentLayout clip(const char* folder, const char* prefix, bool has_projection) {
  return {folder,
          NetworkKind::kClip,
          {prefix},
          "transformers",
          has_projection ? "CLIPTextModelWithProjection" : "CLIPTextModel"};
}

ComponentLayout open_clip(const char* folder, const char* prefix, bool has_projection) {
  return {folder,
          NetworkKind::kOpenClip,
          {prefix},
          "transformers",
          has_projection ? "CLIPTextModelWithProjection" : "CLIPTextModel"};
}

std::vector<FamilyInfo> make_families() {
  const ComponentLayout unet = {"unet", NetworkKind::kUnet, {kDenoiserPrefix}, "diffusers", "UNet2DConditionModel"};
  const ComponentLayout vae = {
      "vae", NetworkKind::kAutoencoder, {"first_stage_model.", "vae."}, "diffusers", "AutoencoderKL"};
  // ComfyUI's complete files of FLUX have the second prefix first.
  const ComponentLayout flux_vae = {
      "vae", NetworkKind::kAutoencoder, {"vae.", "first_stage_model."}, "diffusers", "AutoencoderKL"};
  const ComponentLayout sd3 = {
      "transformer", NetworkKind::kSd3Transformer, {kDenoiserPrefix, ""}, "diffusers", "SD3Transformer2DModel"};
  const ComponentLayout flux = {
      "transformer", NetworkKind::kFluxTransformer, {kDenoiserPrefix, ""}, "diffusers", "FluxTransformer2DModel"};
  const auto t5 = [](const char* folder) {
    return ComponentLayout{
        folder, NetworkKind::kT5, {"text_encoders.t5xxl.transformer."}, "transformers", "T5EncoderModel"};
  };
  const char* clip_l = "text_encoders.clip_l.transformer.";
  return {
      {Family::kSd1,
       "Stable Diffusion 1.x",
       "StableDiffusionPipeline",
       {unet, vae, clip("text_encoder", "cond_stage_model.transformer.", false)},
       {{"tokenizer", "CLIPTokenizer"}}},
      {Family::kSd2,
       "Stable Diffusion 2.x",
       "StableDiffusionPipeline",
       {unet, vae, open_clip("text_encoder", "cond_stage_model.model.", false)},
       {{"tokenizer", "CLIPTokenizer"}}},
      {Family::kSdxl,
       "SDXL base",
       "StableDiffusionXLPipeline",
       {unet, vae, clip("text_encoder", "conditioner.embedders.0.transformer.", false),
        open_clip("text_encoder_2", "conditioner.embedders.1.model.", true)},
       {{"tokenizer", "CLIPTokenizer"}, {"tokenizer_2", "CLIPTokenizer"}}},
      {Family::kSdxlRefiner,
       "SDXL refiner",
       "StableDiffusionXLImg2ImgPipeline",
       {unet, vae, open_clip("text_encoder_2", "conditioner.embedders.0.model.", true)},
       {{"tokenizer_2", "CLIPTokenizer"}}},
      {Family::kSd3,
       "Stable Diffusion 3",
       "StableDiffusion3Pipeline",
       {sd3, vae, clip("text_encoder", clip_l, true), clip("text_encoder_2", "text_encoders.clip_g.transformer.", true),
        t5("text_encoder_3")},
       {{"tokenizer", "CLIPTokenizer"}, {"tokenizer_2", "CLIPTokenizer"}, {"tokenizer_3", "T5TokenizerFast"}}},
      {Family::kFlux,
       "FLUX.1",
       "FluxPipeline",
       {flux, flux_vae, clip("text_encoder", clip_l, false), t5("text_encoder_2")},
       {{"tokenizer", "CLIPTokenizer"}, {"tokenizer_2", "T5TokenizerFast"}}},
  };
}

bool has_prefix(const TensorSources& tensors, const std::string& prefix) {
  const auto entry = tensors.lower_bound(prefix);
  return entry != tensors.end() && entry->first.starts_with(prefix);
}

void refuse_other_architectures(const TensorSources& tensors, const std::string& where) {
  struct Sign {
    const char* prefix;
    const char* name;
  };
  constexpr Sign kSigns[] = {{"control_model.", "a ControlNet"},
                             {"edm_mean", "Playground 2.5"},
                             {"lora_unet_", "a LoRA (give it as --lora)"},
                             {"lora_te", "a LoRA (give it as --lora)"},
                             {"model.diffusion_model.double_layers.", "AuraFlow"},
                             {"model.diffusion_model.distilled_guidance_layer.", "Chroma"},
                             {"distilled_guidance_layer.", "Chroma"},
                             {"model.diffusion_model.label_emb.weight", "an upscaler"},
                             {"double_stream_modulation_img.", "FLUX.2"},
                             {"model.diffusion_model.double_stream_modulation_img.", "FLUX.2"},
                             {"scaled_fp8", "a model in scaled fp8, whose weights mean nothing without their scales"}};
  for (const auto& sign : kSigns) {
    check_input(!has_prefix(tensors, sign.prefix), where, ": holds ", sign.name, ", which is not converted");
  }
}

// Without a text encoder the width of what the UNet attends to tells.
Family family_of_context(const TensorSources& tensors, const std::string& where) {
  int64_t width = 0;
  for (const auto& [name, source] : tensors) {
    if (name.starts_with(kDenoiserPrefix) && name.ends_with("attn2.to_k.weight")) width = source.shape.back();
  }
  const bool is_xl = tensors.contains("model.diffusion_model.label_emb.0.0.weight");
  if (is_xl && width == 2048) return Family::kSdxl;
  if (is_xl && width == 1280) return Family::kSdxlRefiner;
  if (!is_xl && width == 768) return Family::kSd1;
  if (!is_xl && width == 1024) return Family::kSd2;
  fail_input(where, ": holds a UNet but no text encoder, and its cross-attention of width ", width,
             " fits no known family (768 SD 1, 1024 SD 2, 2048 SDXL, 1280 SDXL refiner)");
}

}  // namespace

const std::vector<FamilyInfo>& families() {
  static const std::vector<FamilyInfo> all = make_families();
  return all;
}

const FamilyInfo& family_info(Family family) {
  return *std::find_if(families().begin(), families().end(),
                       [family](const FamilyInfo& info) { return info.family == family; });
}

Family detect_family(const TensorSources& tensors, const std::string& where) {
  refuse_other_architectures(tensors, where);
  for (const std::string& prefix : {std::string(kDenoiserPrefix), std::string()}) {
    if (has_prefix(tensors, prefix + "double_blocks.")) return Family::kFlux;
    if (has_prefix(tensors, prefix + "joint_blocks.")) return Family::kSd3;
  }
  check_input(has_prefix(tensors, "model.diffusion_model.input_blocks."), where,
              ": is no single-file checkpoint of Stable Diffusion 1 to 3.5, SDXL or FLUX.1: among its ", tensors.size(),
              " tensors is none that begins with model.diffusion_model.input_blocks, joint_blocks or "
              "double_blocks");
  if (has_prefix(tensors, "conditioner.embedders.1.model.")) return Family::kSdxl;
  if (has_prefix(tensors, "conditioner.embedders.0.model.")) return Family::kSdxlRefiner;
  if (has_prefix(tensors, "cond_stage_model.model.")) return Family::kSd2;
  if (has_prefix(tensors, "cond_stage_model.")) return Family::kSd1;
  return family_of_context(tensors, where);
}

Family family_of_folder(const fs::path& folder) {
  const fs::path path = folder / "model_index.json";
  const Json index = read_json(path);
  const std::string name = index.is_object() ? index.value("_class_name", "") : "";
  const auto has = [&](const char* component) {
    const auto found = index.find(component);
    return found != index.end() && found->is_array() && found->size() == 2 && (*found)[1].is_string();
  };
  if (name.starts_with("StableDiffusionXL")) return has("text_encoder") ? Family::kSdxl : Family::kSdxlRefiner;
  if (name.starts_with("StableDiffusion3")) return Family::kSd3;
  if (name.starts_with("Flux") && !name.starts_with("Flux2")) return Family::kFlux;
  const bool is_sd = name == "StableDiffusionPipeline" || name == "StableDiffusionInpaintPipeline" ||
                     name == "StableDiffusionImg2ImgPipeline";
  check_input(is_sd, path.string(), ": pipeline class '", name,
              "' has no single-file layout here; known are Stable Diffusion 1 to 3.5, SDXL and FLUX.1");
  if (!fs::exists(folder / "text_encoder" / "config.json")) return Family::kSd1;
  const Json text = read_json(folder / "text_encoder" / "config.json");
  // OpenAI's CLIP was trained with the quick approximation, OpenCLIP's towers with the true one.
  return text.is_object() && text.value("hidden_act", "quick_gelu") == "gelu" ? Family::kSd2 : Family::kSd1;
}

const char* weight_stem(NetworkKind kind) {
  const bool is_text = kind == NetworkKind::kClip || kind == NetworkKind::kOpenClip || kind == NetworkKind::kT5;
  return is_text ? "model" : "diffusion_pytorch_model";
}

Json default_scheduler(Family family, const TensorSources& denoiser, const std::string& prediction_type) {
  if (family == Family::kSd3) {
    return {{"_class_name", "FlowMatchEulerDiscreteScheduler"}, {"num_train_timesteps", 1000}, {"shift", 3.0}};
  }
  if (family == Family::kFlux) {
    // Schnell is the one without a guidance embedding; it keeps its shift at any resolution.
    const bool is_dev = denoiser.contains("time_text_embed.guidance_embedder.linear_1.weight");
    return {{"_class_name", "FlowMatchEulerDiscreteScheduler"},
            {"base_image_seq_len", 256},
            {"base_shift", 0.5},
            {"max_image_seq_len", 4096},
            {"max_shift", 1.15},
            {"num_train_timesteps", 1000},
            {"shift", is_dev ? 3.0 : 1.0},
            {"use_dynamic_shifting", is_dev}};
  }
  Json config = {{"beta_end", 0.012},           {"beta_schedule", "scaled_linear"},
                 {"beta_start", 0.00085},       {"clip_sample", false},
                 {"num_train_timesteps", 1000}, {"set_alpha_to_one", false},
                 {"skip_prk_steps", true},      {"steps_offset", 1},
                 {"trained_betas", nullptr}};
  config["prediction_type"] = family == Family::kSd2 ? "v_prediction" : "epsilon";
  if (!prediction_type.empty()) config["prediction_type"] = prediction_type;
  if (family == Family::kSd1) {
    config["_class_name"] = "PNDMScheduler";
  } else if (family == Family::kSd2) {
    config["_class_name"] = "DDIMScheduler";
  } else {
    config["_class_name"] = "EulerDiscreteScheduler";
    config["interpolation_type"] = "linear";
    config["sample_max_value"] = 1.0;
    config["timestep_spacing"] = "leading";
    config["use_karras_sigmas"] = false;
  }
  return config;
}

}  // namespace prefusion::layouts
