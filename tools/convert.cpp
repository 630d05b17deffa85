#include <array>
#include <cmath>

#include "core/error.h"
#include "tools/commands.h"
#include "tools/convert_request.h"

namespace prefusion::tools {
namespace {

constexpr const char* kFooter = R"(Examples:
  prefusion convert --model v1-5-pruned.safetensors --config stable-diffusion-v1-5 --output sd15
  prefusion convert --model sd15 --output sd15.safetensors --dtype fp16
  prefusion convert --model sdxl.safetensors --lora runs/dpo:0.8 --output sdxl-dpo.safetensors
  prefusion convert --lora runs/dpo --lora-format kohya --output dpo-kohya.safetensors
  prefusion convert --lora style.safetensors --lora dpo:-0.5 --rank 16 --output both.safetensors
  prefusion convert --model aligned --base sd15 --strength 1.3 --output further)";

void add_options(CLI::App& app, ConvertCommand& c) {
  app.add_option(
      "--model", c.model,
      "Model: a folder in diffusers layout, or a single file (.safetensors, .ckpt, .pt) of Stable Diffusion 1 "
      "to 3.5, SDXL or FLUX.1. Without it the --lora files themselves are converted");
  app.add_option("--lora", c.loras,
                 "LoRA file or folder of any dialect, with its weight: PATH[:SCALE], negative to subtract; repeatable. "
                 "Merged into --model; without one, converted, several into a single one")
      ->allow_extra_args(false);
  app.add_option("--base", c.base,
                 "Model that --model was trained from: the result is BASE + STRENGTH (MODEL - BASE), of all networks");
  app.add_option("--strength", c.strength, "Between 0 (--base) and 1 (--model), or beyond to extrapolate")
      ->capture_default_str();
  app.add_option("--output", c.output, "FILE.safetensors (single file, or LoRA), or a folder (diffusers layout)");
  app.add_option("--format", c.format, "Layout of the model: diffusers or original; without, by the name of --output");
  app.add_option("--model-config", c.model_config,
                 "Diffusers folder whose configs, tokenizers and scheduler belong to a single-file --model, and whose "
                 "networks complete it; --config FOLDER means the same. Without it configs are read off the shapes");
  app.add_option("--prediction-type", c.prediction_type,
                 "What the model of a single file predicts: epsilon or v_prediction; without, as its family was "
                 "published (SD 2.x: v_prediction)");
  app.add_flag("--ema", c.use_ema, "Take the averaged weights (model_ema) of a single file that has both");
  app.add_option("--lora-format", c.lora_format,
                 "Dialect of a written LoRA: diffusers, peft (a folder with adapter_config.json), kohya, or comfyui "
                 "(diffusion_model. and the original layer names)")
      ->capture_default_str();
  app.add_option("--kohya-blocks", c.kohya_blocks,
                 "UNet block names of a kohya LoRA: diffusers (down_blocks_0), sgm (input_blocks_1), or auto: sgm for "
                 "SDXL, as kohya's trainer does")
      ->capture_default_str();
  app.add_option("--rank", c.rank,
                 "Rank of a written LoRA, by singular values of what it adds; 0 is exact: one LoRA keeps its rank, "
                 "several have the sum")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{0}, int64_t{100'000}));
  app.add_flag("--dry-run", c.dry_run, "Print what would be written, with the configs that were read off shapes");
  app.add_flag("--overwrite", c.overwrite, "Replace --output");
  app.footer(kFooter);
}

void run(const ConvertCommand& given, const CLI::App& app) {
  ConvertCommand command = given;
  command.has_dtype = app.count("--dtype") > 0;
  if (command.has_dtype) command.scalar_type();
  check_request(command);
  command.model.empty() ? convert_loras(command) : convert_model(command);
}

template <size_t N>
bool is_one_of(const std::string& value, const std::array<const char*, N>& known) {
  for (const char* name : known) {
    if (value == name) return true;
  }
  return false;
}

}  // namespace

bool writes_single_file(const ConvertCommand& command) {
  if (!command.format.empty()) return command.format == "original";
  return command.output.extension() == ".safetensors";
}

void check_request(const ConvertCommand& c) {
  check_usage(!c.model.empty() || !c.loras.empty(), "give --model, --lora, or both");
  check_usage(c.dry_run || !c.output.empty(), "--output is needed: FILE.safetensors or a folder");
  check_usage(c.format.empty() || is_one_of(c.format, std::array{"diffusers", "original"}), "--format ", c.format,
              ": expected diffusers or original");
  check_usage(is_one_of(c.lora_format, std::array{"diffusers", "peft", "kohya", "comfyui"}), "--lora-format ",
              c.lora_format, ": expected diffusers, peft, kohya or comfyui");
  check_usage(is_one_of(c.kohya_blocks, std::array{"auto", "diffusers", "sgm"}), "--kohya-blocks ", c.kohya_blocks,
              ": expected auto, diffusers or sgm");
  check_usage(
      c.prediction_type.empty() || is_one_of(c.prediction_type, std::array{"epsilon", "v_prediction", "sample"}),
      "--prediction-type ", c.prediction_type, ": expected epsilon, v_prediction or sample");
  check_usage(std::isfinite(c.strength), "--strength must be finite");
  check_usage(c.base.empty() ? c.strength == 1.0 : !c.model.empty(),
              "--strength is the distance from --base to --model: give both models");
  check_usage(!c.model.empty() || (c.format.empty() && c.prediction_type.empty() && !c.use_ema),
              "--format, --prediction-type and --ema are about a --model, and none is given");
  check_usage(c.model.empty() || c.rank == 0, "--rank is about a written LoRA; with --model it is merged");
  const bool reads_file =
      !std::filesystem::is_directory(c.model) || (!c.base.empty() && !std::filesystem::is_directory(c.base));
  check_usage(c.model.empty() || reads_file || (c.model_config.empty() && c.prediction_type.empty() && !c.use_ema),
              "--model-config, --prediction-type and --ema are about single files, and ", c.model.string(),
              " is a folder with configs of its own");
  const std::string extension = c.output.extension().string();
  check_usage(!is_one_of(extension, std::array{".ckpt", ".pt", ".pth", ".bin"}), "--output ", c.output.string(),
              ": pickles are read, not written; use FILE.safetensors");
  if (c.model.empty()) return;
  check_usage(c.format != "original" || extension == ".safetensors" || c.output.empty(), "--output ", c.output.string(),
              ": the original layout is one FILE.safetensors");
  check_usage(c.format != "diffusers" || extension != ".safetensors", "--output ", c.output.string(),
              ": diffusers' layout is a folder, not a file");
}

void add_convert(CLI::App& root) {
  add_command<ConvertCommand>(root, "convert", "Converts and merges: single files, diffusers folders, LoRA dialects",
                              add_options, run);
}

}  // namespace prefusion::tools
