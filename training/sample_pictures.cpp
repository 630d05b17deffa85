#include "training/sample_pictures.h"

#include <ATen/core/grad_mode.h>

#include <cstdio>

#include "core/atomic_file.h"
#include "core/error.h"
#include "data/prompt_list.h"
#include "images/image_encode.h"
#include "training/policy_pipeline.h"

namespace prefusion::training {
namespace {

std::vector<std::string> prompts_of(const std::filesystem::path& path) {
  std::vector<std::string> prompts;
  for (const auto& entry : data::read_prompts(path)) prompts.push_back(entry.prompt);
  return prompts;
}

}  // namespace

SamplePictures::SamplePictures(const AlignOptions& options, const Policy& policy, at::ScalarType dtype,
                               at::Device device)
    : options_(options),
      users_(policy.users),
      pipeline_(
          policy_pipeline(options, policy.denoiser, dtype, device, policy.text ? policy.text->encoder() : nullptr)),
      prompts_(prompts_of(options.sample_prompts)) {}

void SamplePictures::write(int64_t step) {
  at::NoGradGuard no_grad;
  char folder_name[32];
  std::snprintf(folder_name, sizeof folder_name, "step-%06lld", static_cast<long long>(step));
  const std::filesystem::path folder = options_.output / "samples" / folder_name;
  make_folder(folder);
  pipelines::GenerateOptions generate{.num_inference_steps = options_.sample_steps};
  generate.guidance.scale = options_.sample_guidance;
  if (users_) generate.user_states = users_->states({nn::UserAdapter::kEmptyUser})[0];
  for (size_t i = 0; i < prompts_.size(); ++i) {
    const at::Tensor image = pipeline_.generate({{.prompt = prompts_[i], .seed = options_.seed}}, generate)[0];
    char name[16];
    std::snprintf(name, sizeof name, "%03zu.png", i);
    write_file(folder / name, images::encode_png(image));
  }
}

}  // namespace prefusion::training
