#include "text/clip_text_model.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "core/atomic_file.h"
#include "core/safetensors.h"
#include "nn/layers.h"
#include "tests/support/temp_dir.h"

namespace prefusion::text {
namespace {

// Weights of 1 MiB and more, 50 MB in all layers.
constexpr const char* kWide = R"({"vocab_size": 40, "hidden_size": 512, "intermediate_size": 2048,
    "num_hidden_layers": 4, "num_attention_heads": 8, "max_position_embeddings": 8, "eos_token_id": 39,
    "projection_dim": 16, "architectures": ["CLIPTextModelWithProjection"]})";

void write_model(const std::filesystem::path& folder) {
  write_file(folder / "config.json", kWide);
  const auto model = make_clip_text_model(kWide, "test");
  const at::NoGradGuard no_gradients;
  for (at::Tensor& weight : model->parameters()) weight.normal_(0, 0.02);
  write_safetensors(folder / "model.safetensors", nn::tensor_map(*model));
}

size_t resident_bytes() {
  size_t total = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> total >> resident;
  return resident * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

TEST(ClipTextModel, LargeWeightsOfAFileLeaveResidentMemoryBehindEachLayer) {
  const tests::TempDir folder;
  write_model(folder.path());
  const auto model = load_clip_text_model(folder.path(), at::kFloat, at::kCPU);
  const c10::InferenceMode no_gradients;
  const at::Tensor text = at::tensor({1, 5, 9, 39}, at::kLong).unsqueeze(0);
  const at::Tensor expected = model->forward(text).text_embeds;  // reads all weights
  const size_t before = resident_bytes();
  const at::Tensor found = model->text_embeds_of_each({text});
  EXPECT_LT(resident_bytes() + (size_t{30} << 20), before);
  EXPECT_TRUE(at::allclose(found, expected, 1e-4, 1e-5));
  EXPECT_TRUE(at::equal(model->text_embeds_of_each({text}), found)) << "the weights have not come back as they were";
}

}  // namespace
}  // namespace prefusion::text
