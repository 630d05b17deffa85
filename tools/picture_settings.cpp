#include "tools/picture_settings.h"

#include <sstream>

#include "core/content_hash.h"
#include "core/device.h"
#include "core/json_config.h"

namespace prefusion::tools {
namespace {

std::string model_name(const std::filesystem::path& model) {
  const std::filesystem::path normal = std::filesystem::absolute(model).lexically_normal();
  return normal.has_filename() ? normal.filename().string() : normal.parent_path().filename().string();
}

// Of a file that a picture was made from: another content under the same name is another setting.
nlohmann::ordered_json file_settings(const std::filesystem::path& file) {
  return {{"name", file.filename().string()}, {"content", hash_file(file).hex()}};
}

}  // namespace

std::string settings_json(const GenerateImagesOptions& options, const pipelines::ImageRequest& request,
                          pipelines::ImageSize size, const std::string& scheduler_name) {
  const pipelines::GenerateOptions& sampling = options.sampling;
  nlohmann::ordered_json settings = {
      {"prompt", request.prompt},
      {"negative_prompt", request.negative_prompt},
      {"steps", sampling.num_inference_steps},
      {"scheduler", scheduler_name},
      {"guidance_scale", sampling.guidance.scale},
      {"guidance_rescale", sampling.guidance.rescale},
      {"eta", sampling.eta},
      {"seed", request.seed},
      {"height", size.height_px},
      {"width", size.width_px},
      {"model", model_name(options.model)},
      {"clip_skip", options.text.clip_skip},
      {"dtype", dtype_name(options.dtype)},
      {"loras", nlohmann::ordered_json::array()},
  };
  for (const std::string& text : options.loras) {
    const AdapterArgument lora = parse_lora_argument(text);
    settings["loras"].push_back({{"name", model_name(lora.path)}, {"scale", lora.scale}});
  }
  for (const std::string& text : options.negative_loras) {
    const AdapterArgument lora = parse_lora_argument(text, "--negative-lora");
    settings["negative_loras"].push_back({{"name", model_name(lora.path)}, {"scale", lora.scale}});
  }
  if (!options.base.empty()) {
    settings["base"] = model_name(options.base);
    settings["alignment_strength"] = options.alignment_strength;
  }
  const auto& [begin, end] = sampling.guidance.interval;
  if (begin > 0 || end < 1) settings["guidance_interval"] = {begin, end};
  if (sampling.guidance.mimic_scale > 0) {
    settings["guidance_mimic"] = sampling.guidance.mimic_scale;
    settings["guidance_percentile"] = sampling.guidance.mimic_percentile;
  }
  if (options.text.syntax == text::PromptSyntax::kWeighted) settings["prompt_syntax"] = "weighted";
  if (options.tiling != vae::Tiling::kAuto) {
    settings["vae_tiling"] = options.tiling == vae::Tiling::kOn ? "on" : "off";
  }
  if (options.text.long_prompts != text::LongPrompts::kTruncate) {
    settings["long_prompts"] = text::long_prompts_name(options.text.long_prompts);
  }
  if (!options.start.init_image.empty()) {
    settings["init_image"] = file_settings(options.start.init_image);
    settings["strength"] = options.start.strength_or_default();
    if (options.start.has_mask()) settings["mask_image"] = file_settings(options.start.mask_image);
  }
  if (!options.user_adapter.empty()) {
    const AdapterArgument adapter = parse_lora_argument(options.user_adapter, "--user-adapter");
    settings["user_adapter"] = {{"name", model_name(adapter.path)}, {"scale", adapter.scale}, {"user", options.user}};
  }
  // Bytes that are no UTF-8 have been refused by the tokenizer already.
  return settings.dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::ordered_json::error_handler_t::replace);
}

std::string parameters_text(const std::string& settings) {
  const auto json = nlohmann::ordered_json::parse(settings);
  std::ostringstream out;
  out << json["prompt"].get<std::string>() << '\n';
  const auto negative = json["negative_prompt"].get<std::string>();
  if (!negative.empty()) out << "Negative prompt: " << negative << '\n';
  out << "Steps: " << json["steps"] << ", Sampler: " << json["scheduler"].get<std::string>()
      << ", CFG scale: " << json["guidance_scale"] << ", Seed: " << json["seed"] << ", Size: " << json["width"] << 'x'
      << json["height"] << ", Model: " << json["model"].get<std::string>();
  if (json["guidance_rescale"] != 0.0) out << ", CFG rescale: " << json["guidance_rescale"];
  if (json["eta"] != 0.0) out << ", Eta: " << json["eta"];
  if (json["clip_skip"] != 0) out << ", Clip skip: " << json["clip_skip"];
  if (json.contains("init_image")) {
    out << ", Init image: " << json["init_image"]["name"].get<std::string>()
        << ", Denoising strength: " << json["strength"];
  }
  if (json.contains("mask_image")) out << ", Mask: " << json["mask_image"]["name"].get<std::string>();
  for (const auto& lora : json["loras"]) {
    out << ", Lora: " << lora["name"].get<std::string>() << ':' << lora["scale"];
  }
  for (const auto& lora : json.value("negative_loras", nlohmann::ordered_json::array())) {
    out << ", Negative lora: " << lora["name"].get<std::string>() << ':' << lora["scale"];
  }
  if (json.contains("base")) {
    out << ", Base: " << json["base"].get<std::string>() << ", Alignment strength: " << json["alignment_strength"];
  }
  if (json.contains("guidance_interval")) {
    out << ", CFG interval: " << json["guidance_interval"][0] << '-' << json["guidance_interval"][1];
  }
  if (json.contains("guidance_mimic")) {
    out << ", CFG mimic scale: " << json["guidance_mimic"] << ", Threshold percentile: " << json["guidance_percentile"];
  }
  if (json.contains("prompt_syntax")) out << ", Prompt syntax: " << json["prompt_syntax"].get<std::string>();
  if (json.contains("long_prompts")) out << ", Long prompts: " << json["long_prompts"].get<std::string>();
  if (json.contains("user_adapter")) {
    const auto& adapter = json["user_adapter"];
    out << ", User adapter: " << adapter["name"].get<std::string>() << ':' << adapter["scale"];
    if (adapter["user"] != "") out << ", User: " << adapter["user"].get<std::string>();
  }
  return out.str();
}

}  // namespace prefusion::tools
