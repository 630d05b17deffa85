#include "tools/generate_images.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <future>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/logging.h"
#include "core/progress.h"
#include "core/side_stream.h"
#include "images/image_encode.h"
#include "pipelines/sampling_run.h"
#include "tools/contact_sheet.h"
#include "tools/picture_settings.h"
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

std::string padded(size_t number, size_t count, size_t least_digits) {
  const size_t digits = std::max(least_digits, std::to_string(count - 1).size());
  const std::string text = std::to_string(number);
  return std::string(digits - std::min(digits, text.size()), '0') + text;
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

std::vector<PictureJob> plan_pictures(const GenerateImagesOptions& options,
                                      const std::vector<data::PromptEntry>& prompts) {
  check_usage(options.num_images >= 1, "--num-images must be at least 1");
  const auto per_prompt = static_cast<size_t>(options.num_images);
  check_output(options, prompts.size() * per_prompt);
  const bool is_single_file =
      lower_extension(options.output) == ".png" && !std::filesystem::is_directory(options.output);
  std::vector<PictureJob> jobs;
  const auto [first, last] = options.shard.range(prompts.size());
  for (size_t p = first; p < last; ++p) {
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

namespace {

// What can be said before a model is loaded.
void check_arguments(const GenerateImagesOptions& options) {
  check_usage(options.batch_size >= 1, "--batch-size must be at least 1");
  for (const std::string& lora : options.loras) parse_lora_argument(lora);
  for (const std::string& lora : options.negative_loras) parse_lora_argument(lora, "--negative-lora");
  check_usage(options.user.empty() || !options.user_adapter.empty(), "--user needs --user-adapter, which knows users");
  check_usage(!options.base.empty() || options.alignment_strength == 1.0,
              "--alignment-strength needs --base, the model folder that it counts from");
  check_usage(options.base.empty() || !options.streams_weights,
              "--base computes new weights, which --stream-weights cannot leave where they are; write the model first: "
              "prefusion convert --base --strength");
  check_usage(std::isfinite(options.alignment_strength), "--alignment-strength must be a finite number");
  check_usage(!options.uses_cuda_graphs || options.device.is_cuda(),
              "--cuda-graph needs a CUDA device, this run is on ", options.device.str());
  check_usage(!options.uses_cuda_graphs || !options.streams_weights,
              "--cuda-graph replays passes with weights where they are, --stream-weights moves them; leave one out");
  const pipelines::GuidanceOptions& guidance = options.sampling.guidance;
  const auto& [begin, end] = guidance.interval;
  check_usage(begin >= 0 && begin < end && end <= 1, "--guidance-interval ", begin, ",", end,
              ": expected LOW,HIGH with 0 <= LOW < HIGH <= 1");
  check_usage(guidance.mimic_scale == 0 || guidance.mimic_scale >= 1, "--guidance-mimic ", guidance.mimic_scale,
              ": expected a guidance scale of at least 1, or 0 for none");
}

// Options of guidance need a model that is guided.
void check_guidance(const GenerateImagesOptions& options, const pipelines::TextToImage& pipeline) {
  const pipelines::GuidanceOptions& guidance = options.sampling.guidance;
  const bool has_interval = guidance.interval.begin > 0 || guidance.interval.end < 1;
  const char* flag = has_interval                      ? "--guidance-interval"
                     : guidance.mimic_scale > 0        ? "--guidance-mimic"
                     : !options.negative_loras.empty() ? "--negative-lora"
                                                       : nullptr;
  if (flag == nullptr) return;
  check_usage(guidance.is_active(), flag, " needs guidance: a --guidance-scale above 1, found ", guidance.scale);
  check_usage(pipeline.asked_twice(guidance).is_active(), flag,
              ": this model is distilled under guidance and asked once a step; there is nothing to guide");
}

// A pipeline with everything the options hang on it, and what it is to be asked.
struct PreparedPipeline {
  pipelines::TextToImage pipeline;
  pipelines::GenerateOptions sampling;
  pipelines::ImageSize size;
  std::string scheduler;
};

PreparedPipeline prepare(const GenerateImagesOptions& options) {
  PreparedPipeline prepared{.pipeline = pipelines::TextToImage::load(options.model, options.dtype, options.device,
                                                                     {.prompts = options.text,
                                                                      .streams_weights = options.streams_weights,
                                                                      .uses_graphs = options.uses_cuda_graphs}),
                            .sampling = options.sampling,
                            .size = {},
                            .scheduler = {}};
  auto& [pipeline, sampling, size, scheduler] = prepared;
  const pipelines::PipelineComponents& components = pipeline.components();
  components.autoencoder->set_tiling(options.tiling);
  check_guidance(options, pipeline);
  apply_start_picture(options.start, pipeline, sampling);
  size = pipeline.image_size(sampling);
  if (components.autoencoder->uses_tiles(size.height_px, size.width_px)) {
    log_info("the autoencoder works on tiles of ", components.autoencoder->config().sample_size,
             " pixels (--vae-tiling)");
  }
  scheduler = schedulers::scheduler_name(sampling.scheduler, components.scheduler_config);
  pipeline.make_scheduler(sampling)->set_timesteps(sampling.num_inference_steps);
  if (!options.base.empty()) {
    apply_alignment_strength(*components.denoiser, options.base, options.alignment_strength);
  }
  const auto adapters = attach_loras(options.loras, components);
  if (!options.negative_loras.empty()) {
    sampling.adapters = {
        .prompt = adapters,
        .negative = attach_loras(options.negative_loras, components, "--negative-lora", LoraReach::kDenoiserAlone)};
  }
  if (!options.user_adapter.empty()) {
    sampling.user_states = attach_user_adapter(options.user_adapter, options.user, components);
  }
  return prepared;
}

// Where the batch that begins at `begin` ends: all its pictures must take texts of the same length.
size_t batch_end(const std::vector<const PictureJob*>& jobs, size_t begin, size_t batch_size,
                 const PreparedPipeline& prepared) {
  const auto chunks = [&](size_t i) {
    return prepared.pipeline.num_chunks(jobs[i]->request, prepared.sampling.guidance);
  };
  size_t end = begin + 1;
  while (end < jobs.size() && end < begin + batch_size && chunks(end) == chunks(begin)) ++end;
  return end;
}

// Whether sampling such a batch keeps a GPU so little busy that it may decode another one beside it. Of larger ones it
// would only take the memory of both at once.
bool leaves_device_idle(pipelines::ImageSize size, int64_t batch_size) {
  constexpr int64_t kManyPixels = 768 * 768;
  return batch_size * size.height_px * size.width_px <= kManyPixels;
}

at::Tensor sample_batch(PreparedPipeline& prepared, const std::vector<pipelines::ImageRequest>& requests,
                        const Preview& preview) {
  pipelines::SamplingRun run(prepared.pipeline, requests, prepared.sampling);
  while (!run.is_done()) {
    run.step();
    preview.update(run);
  }
  return run.latents();
}

}  // namespace

std::vector<std::filesystem::path> generate_images(const GenerateImagesOptions& options) {
  const std::vector<PictureJob> jobs = plan_pictures(options, gather_prompts(options));
  check_arguments(options);
  PreparedPipeline prepared = prepare(options);
  const Preview preview(options.preview, prepared.pipeline, options.dtype, options.device);
  const auto settings_of = [&](const PictureJob& job) {
    return settings_json(options, job.request, prepared.size, prepared.scheduler);
  };

  std::vector<const PictureJob*> open;
  for (const PictureJob& job : jobs) {
    const bool is_done = options.resume && kept_settings(job.file) == settings_of(job);
    if (!is_done) open.push_back(&job);
  }
  if (open.size() < jobs.size()) log_info(jobs.size() - open.size(), " pictures are there already");
  if (!jobs.empty() && jobs[0].file != options.output) make_folder(options.output);

  const size_t num_kept = jobs.size() - open.size();
  Progress progress("generate", static_cast<int64_t>(jobs.size()), "image", options.shows_progress);
  progress.set_start(static_cast<int64_t>(num_kept));
  const auto write = [&](const SideStream::Work& decode, size_t begin, size_t end) {
    const at::Tensor images = decode();
    for (size_t i = begin; i < end; ++i) {
      const std::string settings = settings_of(*open[i]);
      const std::string png = images::encode_png(images[static_cast<int64_t>(i - begin)]);
      write_file(open[i]->file,
                 insert_png_text(png, {{"parameters", parameters_text(settings)}, {"prefusion", settings}}));
    }
    progress.update(static_cast<int64_t>(num_kept + end));
  };
  // A batch is written, and on a GPU decoded, while the next one is sampled. Leaving early waits for it.
  const SideStream side(leaves_device_idle(prepared.size, options.batch_size) ? options.device : at::Device(at::kCPU));
  std::future<void> writing;
  for (size_t begin = 0; begin < open.size();) {
    const size_t end = batch_end(open, begin, static_cast<size_t>(options.batch_size), prepared);
    std::vector<pipelines::ImageRequest> requests;
    for (size_t i = begin; i < end; ++i) requests.push_back(open[i]->request);
    const auto decode = side.beside(
        [&prepared, latents = sample_batch(prepared, requests, preview)] { return prepared.pipeline.decode(latents); });
    if (writing.valid()) writing.get();
    writing = std::async(std::launch::async, write, decode, begin, end);
    begin = end;
  }
  if (writing.valid()) writing.get();
  if (!options.contact_sheet.empty() && !jobs.empty()) write_contact_sheet(options, jobs);

  std::vector<std::filesystem::path> files;
  for (const PictureJob& job : jobs) files.push_back(job.file);
  return files;
}

}  // namespace prefusion::tools
