// Against the Python packages themselves (tests/reference/make_core.py).
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/rng.h"
#include "core/safetensors.h"
#include "tests/core/sample_tensors.h"
#include "tests/support/python_reference.h"
#include "tests/support/temp_dir.h"

namespace prefusion {
namespace {

using tests::same_bytes;
using tests::sample_tensors;

class PythonParity : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    input_ = new tests::TempDir;
    write_safetensors(*input_ / "ours.safetensors", sample_tensors(), {{"format", "pt"}, {"k", "väl\n\"ue\""}});
    output_ = tests::run_reference_script("make_core.py", {(*input_ / "ours.safetensors").string()});
  }
  static void TearDownTestSuite() { delete input_; }

  static inline tests::TempDir* input_ = nullptr;
  static inline std::filesystem::path output_;
};

TEST_F(PythonParity, SafetensorsReadsWhatWeWriteAndWeReadWhatItWrites) {
  // The script loads our file and saves the tensors and metadata it found.
  const TensorMap expected = sample_tensors();
  Metadata metadata;
  const TensorMap found = read_safetensors(output_ / "theirs.safetensors", &metadata);
  ASSERT_EQ(found.size(), expected.size());
  for (const auto& [name, tensor] : expected) EXPECT_TRUE(same_bytes(found.at(name), tensor)) << name;
  EXPECT_EQ(metadata, (Metadata{{"format", "pt"}, {"k", "väl\n\"ue\""}}));
}

TEST_F(PythonParity, TorchGeneratorDrawsTheSameNumbers) {
  const TensorMap draws = read_safetensors(output_ / "draws.safetensors");
  for (const uint64_t seed : {uint64_t{0}, uint64_t{42}, uint64_t{1} << 40}) {
    const std::string name = std::to_string(seed);
    at::Generator generator = make_torch_generator(seed);
    // Two sizes: torch draws below and above 16 elements by different routes. The second continues the first.
    EXPECT_TRUE(at::equal(at::randn({5}, generator), draws.at("small." + name)));
    EXPECT_TRUE(at::equal(at::randn({1, 4, 9, 7}, generator), draws.at("large." + name)));
    EXPECT_TRUE(at::equal(at::rand({6}, generator), draws.at("uniform." + name)));
  }
}

}  // namespace
}  // namespace prefusion
