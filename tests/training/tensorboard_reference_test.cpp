#include <gtest/gtest.h>

#include "core/json_config.h"
#include "tests/support/python_reference.h"
#include "tests/support/temp_dir.h"
#include "training/tensorboard.h"

namespace prefusion::training {
namespace {

TEST(TensorBoard, ChecksumIsCastagnoli) {
  EXPECT_EQ(crc32c(""), 0u);
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);  // RFC 3720, B.4
}

TEST(TensorBoard, ItsOwnReaderSeesTheScalars) {
  const tests::TempDir folder;
  {
    TensorBoardWriter writer(folder.path());
    for (int64_t step = 0; step < 300; step += 100) {
      writer.write(step, {{"loss", 0.5 / static_cast<double>(step + 1)}, {"eval/accuracy", 1.0}});
    }
    writer.write(int64_t{1} << 40, {{"loss", -1e-30}});
  }
  const auto out = tests::run_reference_script("read_events.py", {folder.path().string()});
  const Json scalars = read_json(out / "scalars.json");
  ASSERT_EQ(scalars.size(), 2u);
  ASSERT_EQ(scalars.at("loss").size(), 4u);
  ASSERT_EQ(scalars.at("eval/accuracy").size(), 3u);
  EXPECT_EQ(scalars.at("loss")[1][0], 100);
  EXPECT_NEAR(scalars.at("loss")[1][1].get<double>(), 0.5 / 101, 1e-9);
  EXPECT_EQ(scalars.at("loss")[3][0], int64_t{1} << 40);
  EXPECT_NEAR(scalars.at("loss")[3][1].get<double>() * 1e30, -1.0, 1e-6);
}

}  // namespace
}  // namespace prefusion::training
