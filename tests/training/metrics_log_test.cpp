#include "training/metrics_log.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/json_config.h"
#include "tests/support/temp_dir.h"

namespace prefusion::training {
namespace {

std::vector<double> steps(const std::filesystem::path& path) {
  std::vector<double> found;
  for (const auto& row : read_metrics(path)) found.push_back(row.at("step"));
  return found;
}

TEST(MetricsLog, WritesAnObjectALine) {
  const tests::TempDir folder;
  {
    MetricsLog log(folder / "metrics.jsonl", 0);
    log.write(1, {{"loss", 0.5}, {"eval/accuracy", 1.0 / 3}});
    log.write(2, {{"loss", std::nan("")}, {"grad_norm", INFINITY}});
  }
  EXPECT_EQ(read_file(folder / "metrics.jsonl"),
            "{\"step\":1,\"eval/accuracy\":0.3333333333333333,\"loss\":0.5}\n"
            "{\"step\":2,\"grad_norm\":null,\"loss\":null}\n");
  EXPECT_EQ(read_metrics(folder / "metrics.jsonl")[1], (Metrics{{"step", 2.0}}));
}

TEST(MetricsLog, RowsAreReadableAsSoonAsTheyAreWritten) {
  const tests::TempDir folder;
  MetricsLog log(folder / "metrics.jsonl", 0);
  log.write(1, {{"loss", 0.5}});
  EXPECT_EQ(steps(folder / "metrics.jsonl"), std::vector<double>{1});
}

TEST(MetricsLog, ResumingHasEachStepOnce) {
  const tests::TempDir folder;
  const auto path = folder / "metrics.jsonl";
  {
    MetricsLog log(path, 0);
    for (const int64_t step : {0, 10, 20, 30}) log.write(step, {{"loss", 1.0}});
  }
  {
    MetricsLog log(path, 20);
    log.write(30, {{"loss", 2.0}});
  }
  EXPECT_EQ(steps(path), (std::vector<double>{0, 10, 20, 30}));
  EXPECT_EQ(read_metrics(path).back().at("loss"), 2.0);
}

TEST(MetricsLog, StartingAnewDropsTheOldRows) {
  const tests::TempDir folder;
  const auto path = folder / "metrics.jsonl";
  MetricsLog(path, 0).write(10, {});
  MetricsLog(path, 0).write(1, {});
  EXPECT_EQ(steps(path), std::vector<double>{1});
}

TEST(MetricsLog, TornLastLineIsDropped) {
  const tests::TempDir folder;
  const auto path = folder / "metrics.jsonl";
  write_file(path, "{\"step\": 10, \"loss\": 1}\n{\"step\": 20, \"lo");
  EXPECT_EQ(steps(path), std::vector<double>{10});
  MetricsLog(path, 20).write(30, {});
  EXPECT_EQ(steps(path), (std::vector<double>{10, 30}));
  EXPECT_EQ(read_file(path), "{\"step\": 10, \"loss\": 1}\n{\"step\":30}\n");
}

TEST(MetricsLog, LinesThatAreNoRowsDoNoHarm) {
  const tests::TempDir folder;
  const auto path = folder / "metrics.jsonl";
  write_file(path, "\n[1]\n{\"step\": \"x\"}\n{\"loss\": 2}\n{\"step\": 5}");
  MetricsLog log(path, 5);
  EXPECT_EQ(steps(path), std::vector<double>{5});
}

TEST(MetricsLog, AFolderThatIsNotThereIsARunError) {
  const tests::TempDir folder;
  try {
    MetricsLog log(folder / "absent/metrics.jsonl", 0);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 4);
  }
  EXPECT_THROW(read_metrics(folder / "absent"), Error);
}

}  // namespace
}  // namespace prefusion::training
