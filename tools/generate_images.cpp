#include "tools/generate_images.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <optional>
#include <sstream>

#include "core/atomic_file.h"
#include "core/device.h"
#include "core/error.h"
#include "core/json_config.h"
#include "core/logging.h"
#include "core/progress.h"
#include "images/image_encode.h"
#include "nn/lora.h"
#include "nn/lora_file.h"
#include "nn/lora_gate.h"
#include "tools/contact_sheet.h"
#include "tools/png_text.h"

namespace prefusion::tools {
namespace {

constexpr size_t kMaxSheetPictures = 400;

std::string lower_extension(const std::filesystem::path& path) {
  std::string extension = path.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return extension;
}

std::optional<double> finite_number(const std::string& text) {
  double value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool is_number = code == std::errc() && end == text.data() + text.size() && std::isfinite(value);
  return is_number ? std::optional<double>(value) : std::nullopt;
}

std::string padded(size_t number, size_t count, size_t least_digits) {
  const size_t digits = std::max(least_digits, std::to_string(count - 1).size());
  const std::string text = std::to_string(number);
  return std::string(digits - std::min(digits, text.size()), '0') + text;
}

std::string model_name(const std::filesystem::path& model) {
  const std::filesystem::path normal = std::filesystem::absolute(model).lexically_normal();
  return normal.has_filename() ? normal.filename().string() : normal.parent_path().filename().string();
}

std::vector<data::PromptEntry> gather_prompts(const GenerateImagesOptions& options) {
  check_usage(options.prompt.has_value() != !options.prompts_file.empty(),
              "give either --prompt TEXT or --prompts FILE");
  if (options.prompt) return {data::PromptEntry{.prompt = *options.prompt}};
  return data::read_prompts(options.prompts_file);
}

std::string kept_settings(const std::filesystem::path& file) {
  if (!std::filesystem::is_regular_file(file)) return "";
  for (const PngText& item : read_png_text(read_file(file))) {
    if (item.keyword == "prefusion") return item.text;
  }
  return "";
}

at::Tensor read_picture(const std::filesystem::path& file) {
  cv::Mat bgr = cv::imread(file.string(), cv::IMREAD_COLOR);
  check_input(!bgr.empty(), file.string(), ": not a picture that can be decoded");
  cv::Mat rgb;
  cv::cvtColor(bgr, rgb, cv::COLOR_BGR2RGB);
  return at::from_blob(rgb.data, {rgb.rows, rgb.cols, 3}, at::kByte).clone();
}

void write_contact_sheet(const GenerateImagesOptions& options, const std::vector<PictureJob>& jobs) {
  std::vector<SheetCell> cells;
  for (size_t i = 0; i < std::min(jobs.size(), kMaxSheetPictures); ++i) {
    cells.push_back({read_picture(jobs[i].file), jobs[i].request.prompt});
  }
  if (cells.size() < jobs.size()) log_info("the contact sheet shows the first ", cells.size(), " pictures");
  const auto square = static_cast<int64_t>(std::ceil(std::sqrt(static_cast<double>(cells.size()))));
  write_file(options.contact_sheet, render_contact_sheet(cells, options.num_images > 1 ? options.num_images : square));
}

void check_output(const GenerateImagesOptions& options, size_t num_pictures) {
  const std::string extension = lower_extension(options.output);
  const bool is_folder = std::filesystem::is_directory(options.output);
  check_usage(!options.output.empty(), "--output needs a folder or a FILE.png");
  check_usage(is_folder || (extension != ".jpg" && extension != ".jpeg" && extension != ".webp" && extension != ".bmp"),
              "--output ", options.output.string(), ": pictures are written as PNG; use a folder or a FILE.png");
  check_usage(is_folder || extension != ".png" || num_pictures == 1, "--output ", options.output.string(),
              " is a single file, but ", num_pictures, " pictures are asked for; use a folder");
  check_usage(options.contact_sheet.empty() || lower_extension(options.contact_sheet) == ".png",
              "--contact-sheet must be a FILE.png");
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

void attach_loras(const std::vector<std::string>& loras, const pipelines::PipelineComponents& components) {
  const text::ClipModels text = components.prompt_encoder->clip_models();
  for (const std::string& argument : loras) {
    const AdapterArgument lora = parse_lora_argument(argument);
    const std::filesystem::path file = nn::find_lora_file(lora.path);
    if (nn::is_lora_gate(SafetensorsFile::open(file).metadata())) {
      const auto gate = nn::LoraGate::load(*components.denoiser, file, lora.scale);
      log_info("gated LoRA ", file.string(), ": ", gate->experts().size(), " experts, scale ", lora.scale);
      continue;
    }
    const nn::LoraLoadReport report =
        nn::load_lora(*components.denoiser, text.text_encoder.get(), lora.path, lora.scale, text.text_encoder_2.get());
    log_info("LoRA ", report.file.string(), ": ", report.matched.size(), " layers, scale ", lora.scale);
    const auto& range = report.unet ? report.unet->config().timestep_range : std::nullopt;
    if (range) log_info("  at timesteps ", range->text(), " alone");
  }
}

std::vector<PictureJob> plan_pictures(const GenerateImagesOptions& options,
                                      const std::vector<data::PromptEntry>& prompts) {
  check_usage(options.num_images >= 1, "--num-images must be at least 1");
  const auto per_prompt = static_cast<size_t>(options.num_images);
  check_output(options, prompts.size() * per_prompt);
  const bool is_single_file =
      lower_extension(options.output) == ".png" && !std::filesystem::is_directory(options.output);
  std::vector<PictureJob> jobs;
  for (size_t p = 0; p < prompts.size(); ++p) {
    const data::PromptEntry& entry = prompts[p];
    for (size_t i = 0; i < per_prompt; ++i) {
      const std::string name = padded(p, prompts.size(), 5) + "-" + padded(i, per_prompt, 3) + ".png";
      jobs.push_back({.request = {.prompt = entry.prompt,
                                  .negative_prompt = entry.negative_prompt.value_or(options.negative_prompt),
                                  .seed = entry.seed.value_or(options.seed) + i},
                      .file = is_single_file ? options.output : options.output / name});
    }
  }
  return jobs;
}

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
      {"clip_skip", options.clip_skip},
      {"dtype", dtype_name(options.dtype)},
      {"loras", nlohmann::ordered_json::array()},
  };
  for (const std::string& text : options.loras) {
    const AdapterArgument lora = parse_lora_argument(text);
    settings["loras"].push_back({{"name", model_name(lora.path)}, {"scale", lora.scale}});
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
  for (const auto& lora : json["loras"]) {
    out << ", Lora: " << lora["name"].get<std::string>() << ':' << lora["scale"];
  }
  if (json.contains("user_adapter")) {
    const auto& adapter = json["user_adapter"];
    out << ", User adapter: " << adapter["name"].get<std::string>() << ':' << adapter["scale"];
    if (adapter["user"] != "") out << ", User: " << adapter["user"].get<std::string>();
  }
  return out.str();
}

std::vector<std::filesystem::path> generate_images(const GenerateImagesOptions& options) {
  check_usage(options.batch_size >= 1, "--batch-size must be at least 1");
  const std::vector<PictureJob> jobs = plan_pictures(options, gather_prompts(options));
  for (const std::string& lora : options.loras) parse_lora_argument(lora);
  check_usage(options.user.empty() || !options.user_adapter.empty(), "--user needs --user-adapter, which knows users");

  pipelines::TextToImage pipeline =
      pipelines::TextToImage::load(options.model, options.dtype, options.device, {.clip_skip = options.clip_skip});
  const pipelines::ImageSize size = pipeline.image_size(options.sampling);
  const std::string scheduler =
      schedulers::scheduler_name(options.sampling.scheduler, pipeline.components().scheduler_config);
  pipeline.make_scheduler(options.sampling)->set_timesteps(options.sampling.num_inference_steps);
  attach_loras(options.loras, pipeline.components());
  pipelines::GenerateOptions sampling = options.sampling;
  if (!options.user_adapter.empty()) {
    sampling.user_states = attach_user_adapter(options.user_adapter, options.user, pipeline.components());
  }

  std::vector<const PictureJob*> open;
  for (const PictureJob& job : jobs) {
    const bool is_done =
        options.resume && kept_settings(job.file) == settings_json(options, job.request, size, scheduler);
    if (!is_done) open.push_back(&job);
  }
  if (open.size() < jobs.size()) log_info(jobs.size() - open.size(), " pictures are there already");
  if (jobs[0].file != options.output) make_folder(options.output);

  Progress progress("generate", static_cast<int64_t>(jobs.size()), "image", options.shows_progress);
  progress.set_start(static_cast<int64_t>(jobs.size() - open.size()));
  const auto batch_size = static_cast<size_t>(options.batch_size);
  for (size_t begin = 0; begin < open.size(); begin += batch_size) {
    const size_t end = std::min(open.size(), begin + batch_size);
    std::vector<pipelines::ImageRequest> requests;
    for (size_t i = begin; i < end; ++i) requests.push_back(open[i]->request);
    const at::Tensor images = pipeline.generate(requests, sampling);
    for (size_t i = begin; i < end; ++i) {
      const std::string settings = settings_json(options, open[i]->request, size, scheduler);
      const std::string png = images::encode_png(images[static_cast<int64_t>(i - begin)]);
      write_file(open[i]->file,
                 insert_png_text(png, {{"parameters", parameters_text(settings)}, {"prefusion", settings}}));
    }
    progress.update(static_cast<int64_t>(jobs.size() - open.size() + end));
  }
  if (!options.contact_sheet.empty()) write_contact_sheet(options, jobs);

  std::vector<std::filesystem::path> files;
  for (const PictureJob& job : jobs) files.push_back(job.file);
  return files;
}

}  // namespace prefusion::tools
