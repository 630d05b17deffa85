#include "core/safetensors.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/atomic_file.h"
#include "tests/core/expect_error.h"
#include "tests/core/sample_tensors.h"
#include "tests/support/temp_dir.h"

namespace prefusion {
namespace {

using tests::error_message;
using tests::mentions;
using tests::same_bytes;
using tests::sample_tensors;
using tests::TempDir;

TEST(Safetensors, RoundTripsEveryDtypeAndShape) {
  const TempDir folder;
  const TensorMap written = sample_tensors();
  write_safetensors(folder / "all.safetensors", written, {{"format", "pt"}, {"note", "äß \"quoted\"\n"}});
  Metadata metadata;
  const TensorMap read = read_safetensors(folder / "all.safetensors", &metadata);
  ASSERT_EQ(read.size(), written.size());
  for (const auto& [name, tensor] : written) EXPECT_TRUE(same_bytes(read.at(name), tensor)) << name;
  EXPECT_EQ(metadata, (Metadata{{"format", "pt"}, {"note", "äß \"quoted\"\n"}}));
}

TEST(Safetensors, WritesViewsAndTensorsThatNeedGradients) {
  const TempDir folder;
  const at::Tensor base = at::arange(24, at::kFloat).view({4, 6}).requires_grad_();
  write_safetensors(folder / "v.safetensors", {{"t", base.t()}, {"s", base.slice(1, 1, 5, 2)}});
  const TensorMap read = read_safetensors(folder / "v.safetensors");
  EXPECT_TRUE(at::equal(read.at("t"), base.t()));
  EXPECT_TRUE(at::equal(read.at("s"), base.slice(1, 1, 5, 2)));
}

TEST(Safetensors, WritesAnEmptyMap) {
  const TempDir folder;
  write_safetensors(folder / "e.safetensors", {});
  EXPECT_TRUE(read_safetensors(folder / "e.safetensors").empty());
}

TEST(Safetensors, AlignsEveryTensorToItsElementSize) {
  const TempDir folder;
  write_safetensors(folder / "a.safetensors", {{"a", at::ones({3}, at::kByte)},
                                               {"b", at::ones({3}, at::kDouble)},
                                               {"c", at::ones({3}, at::kHalf)},
                                               {"d", at::ones({3}, at::kFloat)}});
  const SafetensorsFile file = SafetensorsFile::open(folder / "a.safetensors");
  for (const auto& [name, entry] : file.entries()) {
    EXPECT_EQ(entry.begin % c10::elementSize(entry.dtype), 0u) << name;
  }
}

TEST(Safetensors, TensorsOutliveTheFileObjectAndWritesNeverReachTheFile) {
  const TempDir folder;
  write_safetensors(folder / "m.safetensors", {{"x", at::ones({1000})}});
  at::Tensor tensor = SafetensorsFile::open(folder / "m.safetensors").tensor("x");
  EXPECT_EQ(tensor.sum().item<float>(), 1000);
  tensor.zero_();
  EXPECT_EQ(read_safetensors(folder / "m.safetensors").at("x").sum().item<float>(), 1000);
}

TEST(Safetensors, NamesAMissingTensor) {
  const TempDir folder;
  write_safetensors(folder / "m.safetensors", {{"x", at::ones({1})}});
  EXPECT_TRUE(mentions(
      error_message(ErrorClass::kInput, [&] { SafetensorsFile::open(folder / "m.safetensors").tensor("y"); }), "'y'"));
}

TEST(Safetensors, RefusesToWriteADtypeTheFormatHasNot) {
  const TempDir folder;
  error_message(ErrorClass::kInput, [&] {
    write_safetensors(folder / "c.safetensors", {{"x", at::ones({1}, at::kComplexDouble)}});
  });
  EXPECT_FALSE(std::filesystem::exists(folder / "c.safetensors"));
}

TEST(Safetensors, AFailedWriteLeavesTheOldFile) {
  const TempDir folder;
  write_safetensors(folder / "w.safetensors", {{"x", at::ones({4})}});
  error_message(ErrorClass::kInput, [&] {
    write_safetensors(folder / "w.safetensors", {{"x", at::ones({1}, at::kComplexDouble)}});
  });
  EXPECT_EQ(read_safetensors(folder / "w.safetensors").at("x").numel(), 4);
}

}  // namespace
}  // namespace prefusion
