#include <ATen/ATen.h>

#include <cinttypes>
#include <cstdio>
#include <map>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/interrupt.h"
#include "core/logging.h"
#include "core/progress.h"
#include "tools/convert_lora.h"
#include "tools/convert_merge.h"
#include "tools/convert_model.h"
#include "tools/convert_request.h"
#include "tools/convert_weights.h"
#include "unet/denoiser.h"

namespace prefusion::tools {
namespace {

constexpr int64_t kMegabyte = 1'000'000;

ConvertibleModel read_model(const std::filesystem::path& path, const ConvertCommand& command) {
  return read_convertible(path, {command.model_config, command.prediction_type, command.use_ema});
}

std::string dtypes_text(const TensorSources& weights) {
  std::map<std::string, int64_t> counts;
  for (const auto& [name, source] : weights) ++counts[safetensors_dtype_name(source.dtype)];
  std::string text;
  for (const auto& [name, count] : counts) text += (text.empty() ? "" : ", ") + name;
  return text;
}

std::string family_name(const ConvertibleModel& model) {
  if (model.family) return layouts::family_info(*model.family).name;
  return model.model_index.value("_class_name", "unknown pipeline");
}

// The listing of --dry-run.
void print_plan(const ConvertibleModel& model, const ConvertCommand& command) {
  std::printf("model: %s (%s)\n", model.source.c_str(), family_name(model).c_str());
  for (const ModelPart& part : model.parts) {
    int64_t parameters = 0;
    for (const auto& [name, source] : part.weights) parameters += source.numel();
    std::printf("%s: %zu tensors, %" PRId64 " parameters, %s\n", part.folder.c_str(), part.weights.size(), parameters,
                dtypes_text(part.weights).c_str());
    if (part.is_config_inferred) std::printf("  config read off its shapes: %s\n", part.config.dump().c_str());
  }
  if (!model.scheduler.is_null()) std::printf("scheduler: %s\n", model.scheduler.dump().c_str());
  for (const auto& [name, from] : model.copies) std::printf("%s: copied from %s\n", name.c_str(), from.c_str());
  for (const auto& note : model.notes) std::printf("note: %s\n", note.c_str());
  const std::string output = command.output.empty() ? "no --output given" : command.output.string();
  std::printf("output: %s, %s layout, %.1f MB\n", output.c_str(),
              writes_single_file(command) ? "original" : "diffusers",
              static_cast<double>(model_bytes(model)) / kMegabyte);
}

void log_model(const ConvertibleModel& model) {
  log_info(model.source.string(), ": ", family_name(model));
  for (const ModelPart& part : model.parts) {
    if (part.is_config_inferred)
      log_info(part.folder, ": config read off the shapes of its ", part.weights.size(), " tensors");
  }
  for (const auto& note : model.notes) log_info(note);
}

void print_line(const ConvertCommand& command, const std::string& line) {
  command.dry_run ? void(std::printf("%s\n", line.c_str())) : log_info(line);
}

// "8: 128 layers, 4: 12 layers".
template <typename Value>
std::string counts_text(const std::map<Value, int64_t>& counts) {
  std::string text;
  for (const auto& [value, count] : counts) text += concat(text.empty() ? "" : ", ", value, " (", count, " layers)");
  return text;
}

std::string first_names(const std::vector<std::string>& names) {
  constexpr size_t kShown = 10;
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kShown); ++i) text += (i ? ", " : "") + names[i];
  if (names.size() > kShown) text += concat(" and ", names.size() - kShown, " more");
  return text;
}

void report_merge(const MergeReport& report, const ConvertCommand& command) {
  print_line(command, concat("LoRA ", report.file.string(), " (", report.dialect, "), scale ", report.scale, ": ",
                             report.matched.size(), " layers matched; rank ", counts_text(report.ranks), "; alpha ",
                             counts_text(report.alphas)));
  if (report.unmatched.empty()) return;
  log_warn(report.file.string(), ": ", report.unmatched.size(),
           " keys fit no layer and have no effect: ", first_names(report.unmatched));
}

void report_loras(const std::vector<ScaledLora>& loras, const std::vector<nn::LoraFileModule>& modules,
                  const ConvertCommand& command) {
  for (const ScaledLora& lora : loras) {
    std::map<int64_t, int64_t> ranks;
    std::map<double, int64_t> alphas;
    for (const auto& module : lora.file.modules) {
      ++ranks[module.rank()];
      ++alphas[*module.alpha];
    }
    print_line(command, concat("LoRA ", lora.file.path.string(), " (", nn::dialect_name(lora.file.dialect), "), scale ",
                               lora.scale, ": ", lora.file.modules.size(), " layers; rank ", counts_text(ranks),
                               "; alpha ", counts_text(alphas)));
    if (lora.file.other_keys.empty()) continue;
    log_warn(lora.file.path.string(), ": ", lora.file.other_keys.size(),
             " keys are no part of a LoRA and are left out: ", first_names(lora.file.other_keys));
  }
  std::map<int64_t, int64_t> ranks;
  for (const auto& module : modules) ++ranks[module.rank()];
  print_line(command, concat("output: ", modules.size(), " layers in ", command.lora_format, " names; rank ",
                             counts_text(ranks)));
}

void check_is_new(const std::filesystem::path& path, const ConvertCommand& command) {
  check_usage(command.overwrite || !std::filesystem::exists(path), path.string(), ": exists already; see --overwrite");
}

// A file, or a folder with the name that diffusers or PEFT look for.
void write_lora(const LoraContent& content, const ConvertCommand& command) {
  const bool is_peft = command.lora_format == "peft";
  const bool is_file = command.output.extension() == ".safetensors";
  check_usage(!is_peft || !is_file, "--output ", command.output.string(),
              ": a PEFT adapter is a folder (adapter_model.safetensors and adapter_config.json)");
  std::filesystem::path file = command.output;
  if (!is_file) file /= is_peft ? "adapter_model.safetensors" : "pytorch_lora_weights.safetensors";
  check_is_new(file, command);
  if (file.has_parent_path()) make_folder(file.parent_path());
  if (is_peft) write_file(command.output / "adapter_config.json", content.adapter_config.dump(2) + "\n");
  write_safetensors(file, content.tensors, content.metadata);
  std::printf("%s\n", file.c_str());
}

}  // namespace

void convert_model(const ConvertCommand& command) {
  ConvertibleModel model = read_model(command.model, command);
  const bool to_file = writes_single_file(command);
  to_file ? void(single_file_tensors(model)) : check_can_be_folder(model);
  // What is computed is rounded once, to the dtype that is written.
  const bool computes = !command.base.empty() || !command.loras.empty();
  if (command.has_dtype && computes) cast_weights(model, at::kFloat);
  if (!command.base.empty()) interpolate(model, read_model(command.base, command), command.strength);
  for (const auto& report : merge_loras_into(model, command.loras)) report_merge(report, command);
  if (command.has_dtype) cast_weights(model, command.scalar_type());
  if (command.dry_run) return print_plan(model, command);
  check_is_new(command.output, command);
  log_model(model);
  Progress progress("convert", static_cast<int64_t>(model_bytes(model)) / kMegabyte, "MB", !command.quiet);
  const WriteProgress on_written = [&](size_t bytes) {
    throw_if_interrupted();
    progress.update(static_cast<int64_t>(bytes) / kMegabyte);
  };
  at::NoGradGuard no_grad;
  if (to_file) {
    write_model_file(model, command.output, on_written);
  } else {
    write_model_folder(model, command.output, command.overwrite, on_written);
  }
  std::printf("%s\n", command.output.c_str());
}

void convert_loras(const ConvertCommand& command) {
  Json denoiser_config;
  if (!command.model_config.empty()) {
    denoiser_config = read_json(unet::denoiser_folder(command.model_config) / "config.json");
  }
  std::vector<ScaledLora> loras;
  LoraOutput output{.format = command.lora_format,
                    .kohya_blocks = command.kohya_blocks,
                    .timestep_range = std::nullopt,
                    .dtype = std::nullopt,
                    .denoiser_config = denoiser_config};
  for (const auto& argument : command.loras) {
    loras.push_back(read_scaled_lora(argument, denoiser_config));
    const nn::LoraFile& file = loras.back().file;
    check_input(loras.size() == 1 || file.timestep_range.has_value() == output.timestep_range.has_value(),
                file.path.string(), ": acts at other timesteps than the LoRA before it; they cannot become one");
    check_input(
        loras.size() == 1 || !file.timestep_range || file.timestep_range->text() == output.timestep_range->text(),
        file.path.string(), ": acts at other timesteps than the LoRA before it; they cannot become one");
    output.timestep_range = file.timestep_range;
  }
  if (command.has_dtype) output.dtype = command.scalar_type();
  at::NoGradGuard no_grad;
  const std::vector<nn::LoraFileModule> modules = combine_loras(loras, command.rank);
  const LoraContent content = lora_content(modules, output);
  report_loras(loras, modules, command);
  if (command.dry_run) return;
  write_lora(content, command);
}

}  // namespace prefusion::tools
