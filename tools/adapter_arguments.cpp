#include "tools/adapter_arguments.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <charconv>
#include <cmath>
#include <optional>
#include <sstream>

#include "core/error.h"
#include "core/logging.h"
#include "core/safetensors.h"
#include "nn/layers.h"
#include "nn/lora_file.h"
#include "nn/lora_gate.h"

namespace prefusion::tools {
namespace {

std::optional<double> finite_number(const std::string& text) {
  double value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool is_number = code == std::errc() && end == text.data() + text.size() && std::isfinite(value);
  return is_number ? std::optional<double>(value) : std::nullopt;
}

}  // namespace

AdapterArgument parse_lora_argument(const std::string& text, const char* flag) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos || std::filesystem::exists(text)) return {text, 1.0};
  const std::string number = text.substr(colon + 1);
  const std::optional<double> scale = finite_number(number);
  check_usage(scale.has_value(), flag, " ", text, ": expected PATH or PATH:SCALE, and '", number, "' is no number");
  return {text.substr(0, colon), *scale};
}

std::vector<nn::WeightedUser> parse_user_argument(const std::string& text) {
  std::vector<nn::WeightedUser> users;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    const size_t colon = part.rfind(':');
    const std::optional<double> weight =
        colon == std::string::npos ? std::nullopt : finite_number(part.substr(colon + 1));
    users.push_back(weight ? nn::WeightedUser{part.substr(0, colon), *weight} : nn::WeightedUser{part, 1.0});
    check_usage(!users.back().name.empty(), "--user ", text, ": a name is empty; expected ID[:WEIGHT],...");
  }
  return users;
}

at::Tensor attach_user_adapter(const std::string& adapter, const std::string& users,
                               const pipelines::PipelineComponents& components) {
  const AdapterArgument argument = parse_lora_argument(adapter, "--user-adapter");
  const auto loaded = nn::UserAdapter::load(*components.denoiser, argument.path);
  loaded->set_scale(argument.scale);
  log_info("user adapter ", argument.path.string(), ": ", loaded->users().size(), " users, scale ", argument.scale);
  if (users.empty()) return loaded->states({nn::UserAdapter::kEmptyUser})[0];
  return loaded->mixture(parse_user_argument(users));
}

namespace {

using Adapters = std::vector<std::shared_ptr<nn::LoraAdapter>>;

void attach_gate(const std::filesystem::path& file, double scale, unet::Denoiser& denoiser, Adapters& adapters) {
  const auto gate = nn::LoraGate::load(denoiser, file, scale);
  log_info("gated LoRA ", file.string(), ": ", gate->experts().size(), " experts, scale ", scale);
  for (const nn::LoraExpert& expert : gate->experts()) adapters.push_back(expert.adapter);
}

nn::LoraLoadReport attach_lora(const AdapterArgument& lora, unet::Denoiser& denoiser, const text::ClipModels& text,
                               Adapters& adapters) {
  nn::LoraLoadReport report =
      nn::load_lora(denoiser, text.text_encoder.get(), lora.path, lora.scale, text.text_encoder_2.get());
  log_info("LoRA ", report.file.string(), ": ", report.matched.size(), " layers, scale ", lora.scale);
  const auto& range = report.unet ? report.unet->config().timestep_range : std::nullopt;
  if (range) log_info("  at timesteps ", range->text(), " alone");
  if (report.unet) adapters.push_back(report.unet);
  return report;
}

}  // namespace

Adapters attach_loras(const std::vector<std::string>& loras, const pipelines::PipelineComponents& components,
                      const char* flag, LoraReach reach) {
  const text::ClipModels text = components.prompt_encoder->clip_models();
  Adapters adapters;
  for (const std::string& argument : loras) {
    const AdapterArgument lora = parse_lora_argument(argument, flag);
    const std::filesystem::path file = nn::find_lora_file(lora.path);
    if (nn::is_lora_gate(SafetensorsFile::open(file).metadata())) {
      attach_gate(file, lora.scale, *components.denoiser, adapters);
      continue;
    }
    const nn::LoraLoadReport report = attach_lora(lora, *components.denoiser, text, adapters);
    check_input(reach == LoraReach::kAll || (!report.text_encoder && !report.text_encoder_2), flag, " ", file.string(),
                ": changes text encoders too, which both sides of guidance share; give one of the denoiser alone");
  }
  return adapters;
}

void apply_alignment_strength(unet::Denoiser& denoiser, const std::filesystem::path& base_dir, double strength) {
  const at::NoGradGuard no_grad;
  const at::Tensor first = denoiser.parameters().front();
  const std::filesystem::path folder = unet::denoiser_folder(base_dir);
  const std::string where = "--base " + folder.string();
  const auto base = unet::load_denoiser(folder, first.scalar_type(), first.device());
  const std::vector<NamedTensor> weights = nn::named_tensors(denoiser);
  const TensorMap others = nn::tensor_map(*base);
  check_input(base->info().class_name == denoiser.info().class_name && others.size() == weights.size(), where,
              ": is a ", base->info().class_name, " of ", others.size(), " tensors, that of --model a ",
              denoiser.info().class_name, " of ", weights.size(), "; expected the model it was trained from");
  for (const auto& [name, weight] : weights) {
    const auto other = others.find(name);
    check_input(other != others.end(), where, ": has no tensor '", name, "', which --model has");
    check_input(other->second.sizes() == weight.sizes(), where, ": '", name, "' has shape ",
                shape_text(other->second.sizes()), ", that of --model ", shape_text(weight.sizes()));
    if (strength == 1.0 || !weight.is_floating_point()) continue;
    const at::Tensor from = other->second.to(at::kFloat);
    at::Tensor(weight).copy_(from + (weight.to(at::kFloat) - from) * strength);
  }
  log_info("alignment strength ", strength, " over ", base_dir.string());
}

}  // namespace prefusion::tools
