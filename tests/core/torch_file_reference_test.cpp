// Files of torch.save, well-formed and hostile (tests/reference/make_torch_files.py).
#include "core/torch_file.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <fstream>

#include "core/json_config.h"
#include "tests/core/expect_error.h"
#include "tests/core/sample_tensors.h"
#include "tests/support/python_reference.h"
#include "tests/support/temp_dir.h"

namespace prefusion {
namespace {

using tests::error_message;
using tests::mentions;

class TorchFile : public testing::Test {
 protected:
  static void SetUpTestSuite() { root_ = tests::run_reference_script("make_torch_files.py"); }
  static inline std::filesystem::path root_;
};

TEST_F(TorchFile, GivesTheTensorsOfTorchLoad) {
  size_t num_files = 0;
  for (const auto& file : std::filesystem::directory_iterator(root_ / "good")) {
    if (file.path().extension() != ".pt") continue;
    SCOPED_TRACE(file.path().filename().string());
    ++num_files;
    std::filesystem::path expected_path = file.path();
    const TensorMap expected = read_safetensors(expected_path.replace_extension(".safetensors"));
    const TensorMap found = read_tensors(file.path());
    EXPECT_EQ(found.size(), expected.size());
    for (const auto& [name, tensor] : expected) {
      ASSERT_TRUE(found.contains(name)) << name;
      EXPECT_TRUE(tests::same_bytes(found.at(name).contiguous(), tensor)) << name;
    }
  }
  EXPECT_GE(num_files, 18u);
}

TEST_F(TorchFile, RefusesWhatIsHostileOrBroken) {
  const Json needed = read_json(root_ / "bad.json");
  EXPECT_GE(needed.size(), 30u);
  for (const auto& [name, words] : needed.items()) {
    SCOPED_TRACE(name);
    const auto path = root_ / "bad" / (name + ".pt");
    const std::string message = error_message(ErrorClass::kInput, [&] { read_tensors(path); });
    EXPECT_TRUE(mentions(message, path.string()));
    for (const auto& word : words) EXPECT_TRUE(mentions(message, word.get<std::string>()));
  }
  EXPECT_FALSE(std::filesystem::exists(root_ / "bad" / "ran"));
}

// Every prefix and every single wrong byte of a small file: an input error or tensors, never a crash.
TEST_F(TorchFile, SurvivesAnyDamage) {
  for (const char* name : {"state", "state_deflated", "state_legacy"}) {
    SCOPED_TRACE(name);
    std::ifstream input(root_ / "good" / (std::string(name) + ".pt"), std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(input)), {});
    const tests::TempDir folder;
    const auto survives = [&](const std::string& damaged) {
      std::ofstream(folder / "x.pt", std::ios::binary | std::ios::trunc) << damaged;
      try {
        for (const auto& [key, tensor] : read_torch_file(folder / "x.pt")) {
          if (tensor.numel() < 1000) tensor.contiguous();
        }
      } catch (const Error& error) {
        EXPECT_EQ(error.error_class(), ErrorClass::kInput) << error.what();
      }
    };
    for (size_t size = 0; size < bytes.size(); size += 3) survives(bytes.substr(0, size));
    for (size_t i = 0; i < bytes.size(); ++i) {
      std::string damaged = bytes;
      damaged[i] = static_cast<char>(damaged[i] ^ (i % 2 ? 0xFF : 0x10));
      survives(damaged);
    }
  }
}

TEST(ModelWeights, AreFoundInCheckpoints) {
  const at::Tensor t = at::ones({1});
  const auto names = [](const TensorMap& map) {
    std::string text;
    for (const auto& [name, tensor] : map) text += name + " ";
    return text;
  };
  EXPECT_EQ(names(model_weights({{"a", t}, {"module.b", t}})), "a module.b ");
  EXPECT_EQ(names(model_weights({{"module.a", t}, {"module.b.c", t}})), "a b.c ");
  EXPECT_EQ(names(model_weights({{"state_dict.module.a", t}, {"optimizer.x", t}})), "a ");
}

}  // namespace
}  // namespace prefusion
