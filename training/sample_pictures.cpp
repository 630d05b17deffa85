#include "training/sample_pictures.h"

#include <ATen/core/grad_mode.h>

#include <cstdio>
#include <fstream>

#include "core/atomic_file.h"
#include "core/error.h"
#include "data/image_encode.h"
#include "schedulers/scheduler_config.h"
#include "text/prompt_encoder.h"
#include "vae/autoencoder_kl.h"

namespace prefusion::training {
namespace {

std::vector<std::string> read_lines(const std::filesystem::path& path) {
  std::ifstream file(path);
  check_input(file.good(), path.string(), ": cannot be opened");
  std::vector<std::string> lines;
  std::string line;
  while (std::getline(file, line)) {
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty()) lines.push_back(line);
  }
  check_input(!lines.empty(), path.string(), ": holds no prompt; expected one a line");
  return lines;
}

pipelines::TextToImage make_pipeline(const AlignOptions& options, std::shared_ptr<unet::Denoiser> denoiser,
                                     at::ScalarType dtype, at::Device device) {
  return pipelines::TextToImage({
      .denoiser = std::move(denoiser),
      .autoencoder = vae::load_autoencoder(options.model / "vae", dtype, device),
      .prompt_encoder = std::make_shared<text::PromptEncoder>(text::PromptEncoder::load(options.model, dtype, device)),
      .scheduler_config = schedulers::read_scheduler_config(options.model),
  });
}

}  // namespace

SamplePictures::SamplePictures(const AlignOptions& options, std::shared_ptr<unet::Denoiser> denoiser,
                               at::ScalarType dtype, at::Device device)
    : options_(options),
      pipeline_(make_pipeline(options, std::move(denoiser), dtype, device)),
      prompts_(read_lines(options.sample_prompts)) {}

void SamplePictures::write(int64_t step) {
  at::NoGradGuard no_grad;
  char folder_name[32];
  std::snprintf(folder_name, sizeof folder_name, "step-%06lld", static_cast<long long>(step));
  const std::filesystem::path folder = options_.output / "samples" / folder_name;
  make_folder(folder);
  pipelines::GenerateOptions generate{.num_inference_steps = options_.sample_steps};
  generate.guidance.scale = options_.sample_guidance;
  for (size_t i = 0; i < prompts_.size(); ++i) {
    const at::Tensor image = pipeline_.generate({{.prompt = prompts_[i], .seed = options_.seed}}, generate)[0];
    char name[16];
    std::snprintf(name, sizeof name, "%03zu.png", i);
    write_file(folder / name, data::encode_png(image));
  }
}

}  // namespace prefusion::training
