#include "training/checkpoint.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <fstream>

#include "core/atomic_file.h"
#include "core/error.h"
#include "tests/support/temp_dir.h"

namespace prefusion::training {
namespace {

namespace fs = std::filesystem;

Checkpoint make(int64_t step) {
  Checkpoint checkpoint{.step = step};
  checkpoint.tensors["optimizer"] = {{"w", at::full({3}, static_cast<double>(step))},
                                     {"h", at::ones({2}, at::kBFloat16)}};
  checkpoint.tensors["ema"] = {{"w", at::zeros({})}};
  checkpoint.state = {{"position", 10 * step}};
  return checkpoint;
}

std::vector<std::string> names(const fs::path& folder) {
  std::vector<std::string> found;
  for (const auto& entry : fs::directory_iterator(folder / "checkpoints")) found.push_back(entry.path().filename());
  std::sort(found.begin(), found.end());
  return found;
}

int load_error(const fs::path& path) {
  try {
    load_checkpoint(path);
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.exit_code();
  }
  return 0;
}

TEST(Checkpoint, ComesBackAsItWas) {
  const tests::TempDir folder;
  save_checkpoint(folder.path(), make(12), 2);
  const auto path = latest_checkpoint(folder.path());
  ASSERT_EQ(path, folder / "checkpoints/step-000012");
  const Checkpoint loaded = load_checkpoint(*path);
  EXPECT_EQ(loaded.step, 12);
  EXPECT_EQ(loaded.state.at("position"), 120);
  ASSERT_EQ(loaded.tensors.size(), 2u);
  EXPECT_TRUE(at::equal(loaded.tensors.at("optimizer").at("w"), at::full({3}, 12.0)));
  EXPECT_EQ(loaded.tensors.at("optimizer").at("h").scalar_type(), at::kBFloat16);
  EXPECT_EQ(loaded.tensors.at("ema").at("w").dim(), 0);
}

TEST(Checkpoint, KeepsTheNewestAndTheProtectedOne) {
  const tests::TempDir folder;
  for (const int64_t step : {1, 2, 3, 4, 5}) save_checkpoint(folder.path(), make(step), 2, /*protected_step=*/2);
  EXPECT_EQ(names(folder.path()), (std::vector<std::string>{"step-000002", "step-000004", "step-000005"}));
}

TEST(Checkpoint, KeepZeroKeepsAll) {
  const tests::TempDir folder;
  for (const int64_t step : {1, 2, 1000000}) save_checkpoint(folder.path(), make(step), 0);
  EXPECT_EQ(names(folder.path()), (std::vector<std::string>{"step-000001", "step-000002", "step-1000000"}));
  EXPECT_EQ(load_checkpoint(*latest_checkpoint(folder.path())).step, 1000000);
}

TEST(Checkpoint, SavingAStepAgainReplacesIt) {
  const tests::TempDir folder;
  save_checkpoint(folder.path(), make(7), 1);
  Checkpoint again = make(7);
  again.state["position"] = 1;
  again.tensors.erase("ema");
  save_checkpoint(folder.path(), again, 1);
  EXPECT_EQ(names(folder.path()), std::vector<std::string>{"step-000007"});
  const Checkpoint loaded = load_checkpoint(*latest_checkpoint(folder.path()));
  EXPECT_EQ(loaded.state.at("position"), 1);
  EXPECT_FALSE(loaded.tensors.contains("ema"));
  EXPECT_FALSE(fs::exists(folder / "checkpoints/step-000007/ema.safetensors"));
}

TEST(Checkpoint, WhatAKilledRunLeftIsIgnoredAndRemoved) {
  const tests::TempDir folder;
  save_checkpoint(folder.path(), make(3), 2);
  const fs::path unfinished = folder / "checkpoints/.step-000004.writing";
  fs::create_directory(unfinished);
  write_file(unfinished / "optimizer.safetensors", "half");
  fs::create_directory(folder / "checkpoints/step-000009");  // without a state.json
  fs::create_directory(folder / "checkpoints/step-99999999999999999999999999");
  EXPECT_EQ(latest_checkpoint(folder.path()), folder / "checkpoints/step-000003");
  save_checkpoint(folder.path(), make(5), 2);
  EXPECT_FALSE(fs::exists(unfinished));
}

TEST(Checkpoint, ThereIsNoneInAnEmptyFolder) {
  const tests::TempDir folder;
  EXPECT_EQ(latest_checkpoint(folder.path()), std::nullopt);
  EXPECT_EQ(latest_checkpoint(folder / "absent"), std::nullopt);
}

TEST(Checkpoint, DamagedOnesAreInputErrors) {
  const tests::TempDir folder;
  EXPECT_EQ(load_error(folder / "absent"), 3);
  save_checkpoint(folder.path(), make(1), 0);
  const fs::path path = folder / "checkpoints/step-000001";
  const std::string state = read_file(path / "state.json");
  for (const char* text : {"", "{", "[]", "3", R"({"format": 2, "step": 1, "files": []})", R"({"format": 1})",
                           R"({"format": 1, "step": "one", "files": []})", R"({"format": 1, "step": 1, "files": [5]})",
                           R"({"format": 1, "step": 1, "files": 3})", R"({"format": "1", "step": 1, "files": []})",
                           R"({"format": 1, "step": 1, "files": ["../../other"]})"}) {
    write_file(path / "state.json", text);
    EXPECT_EQ(load_error(path), 3) << text;
  }
  write_file(path / "state.json", state);
  EXPECT_EQ(load_error(path), 0);
  fs::resize_file(path / "optimizer.safetensors", 30);
  EXPECT_EQ(load_error(path), 3);
  fs::remove(path / "optimizer.safetensors");
  EXPECT_EQ(load_error(path), 3);
}

TEST(Checkpoint, UnwritableFolderIsARunErrorAndKeepsTheEarlierOnes) {
  const tests::TempDir folder;
  save_checkpoint(folder.path(), make(1), 1);
  write_file(folder / "file", "");
  try {
    save_checkpoint(folder / "file", make(2), 1);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 4);
  }
  EXPECT_EQ(load_checkpoint(*latest_checkpoint(folder.path())).step, 1);
}

}  // namespace
}  // namespace prefusion::training
