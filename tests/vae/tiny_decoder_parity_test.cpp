// AutoencoderTiny's decoder against diffusers.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/safetensors.h"
#include "tests/support/python_reference.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tensor_near.h"
#include "vae/tiny_decoder.h"

namespace prefusion::vae {
namespace {

using tests::near;

const std::filesystem::path& reference() {
  static const std::filesystem::path folder = tests::run_reference_script("make_vae.py");
  return folder;
}

TEST(TinyDecoderParity, DecodesAsDiffusers) {
  for (const char* name : {"tiny", "tiny_wide"}) {
    SCOPED_TRACE(name);
    const TensorMap tensors = read_safetensors(reference() / name / "case.safetensors");
    const auto decoder = load_tiny_decoder(reference() / name, at::kFloat, at::kCPU);
    EXPECT_TRUE(near(decoder->decode(tensors.at("latents")), tensors.at("decoded"), 1e-5));
  }
}

TEST(TinyDecoderParity, RefusesWhatItCannotDecode) {
  const tests::TempDir copy;
  std::filesystem::copy(reference() / "tiny", copy.path(), std::filesystem::copy_options::recursive);
  const Json original = read_json(copy / "config.json");
  for (const auto& [key, value] : std::map<std::string, Json>{{"_class_name", "AutoencoderKL"},
                                                              {"upsample_fn", "bilinear"},
                                                              {"num_decoder_blocks", {1, 2}},
                                                              {"decoder_block_out_channels", {8, 8, 4}},
                                                              {"act_fn", "tanh"},
                                                              {"more", 1}}) {
    Json changed = original;
    changed[key] = value;
    write_file(copy / "config.json", changed.dump());
    EXPECT_THROW(load_tiny_decoder(copy.path(), at::kFloat, at::kCPU), Error) << key;
  }
  const auto decoder = load_tiny_decoder(reference() / "tiny", at::kFloat, at::kCPU);
  EXPECT_THROW(decoder->decode(at::zeros({1, 7, 4, 4})), Error);
}

}  // namespace
}  // namespace prefusion::vae
