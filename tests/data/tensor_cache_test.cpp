#include "data/tensor_cache.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "core/atomic_file.h"
#include "core/logging.h"
#include "core/rng.h"
#include "data/journal_file.h"
#include "data/latent_cache.h"
#include "tests/core/expect_error.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tensor_near.h"

namespace prefusion::data {
namespace {

using tests::error_message;
using tests::mentions;
using tests::TempDir;

ContentHash key(int64_t number) {
  return ContentHasher().add(static_cast<uint64_t>(number)).finish();
}

// A tensor that its number determines.
at::Tensor values(int64_t number, at::IntArrayRef shape = {4, 3, 5}) {
  return philox_randn(shape, DrawKey{.seed = static_cast<uint64_t>(number)}, RandomPurpose::kOther);
}

std::vector<CacheItem> items(int64_t first, int64_t count) {
  std::vector<CacheItem> out;
  for (int64_t i = first; i < first + count; ++i) {
    out.push_back(CacheItem{.key = key(i), .entry = {{"mean", values(i)}, {"std", values(-i - 1).abs()}}});
  }
  return out;
}

void expect_items(const TensorCache& cache, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const auto entry = cache.find(key(i));
    ASSERT_TRUE(entry) << i;
    EXPECT_TRUE(at::equal(entry->at("mean"), values(i))) << i;
    EXPECT_TRUE(at::equal(entry->at("std"), values(-i - 1).abs())) << i;
  }
}

TEST(TensorCache, GivesBackWhatWasPutInAfterReopening) {
  const TempDir folder;
  {
    TensorCache cache(folder / "cache.h5", TensorCache::Mode::kWrite);
    cache.append("latents", items(0, 7));
    cache.append("latents", items(5, 300));  // two of them are there already
    cache.append("other", {{key(-1), {{"x", at::arange(6, at::kLong)}, {"h", values(1).to(at::kHalf)}}}});
    EXPECT_EQ(cache.size("latents"), 305);
    expect_items(cache, 305);
    EXPECT_FALSE(cache.find(key(305)));
  }
  for (const auto mode : {TensorCache::Mode::kRead, TensorCache::Mode::kWrite}) {
    const TensorCache cache(folder / "cache.h5", mode);
    EXPECT_EQ(cache.size(), 306);
    expect_items(cache, 305);
    EXPECT_TRUE(at::equal(cache.find(key(-1))->at("x"), at::arange(6, at::kLong)));
    EXPECT_TRUE(at::equal(cache.find(key(-1))->at("h"), values(1).to(at::kHalf)));
  }
}

TEST(TensorCache, KeepsEntriesOfDifferentShapeApart) {
  const TempDir folder;
  TensorCache cache(folder / "cache.h5", TensorCache::Mode::kWrite);
  for (int64_t i = 0; i < 12; ++i) cache.append("latents", {{key(i), {{"mean", values(i, {i % 3 + 1, 4})}}}});
  for (int64_t i = 0; i < 12; ++i) {
    EXPECT_TRUE(at::equal(cache.find(key(i))->at("mean"), values(i, {i % 3 + 1, 4})));
  }
  error_message(ErrorClass::kUsage, [&] { cache.append("x", {{key(99), {{"b", at::zeros({2}, at::kBool)}}}}); });
}

TEST(TensorCache, IsLockedWhileItIsWritten) {
  const TempDir folder;
  const auto path = folder / "cache.h5";
  TensorCache(path, TensorCache::Mode::kWrite).append("latents", items(0, 3));
  const TensorCache writer(path, TensorCache::Mode::kWrite);
  const pid_t child = fork();
  if (child == 0) {
    try {
      JournalFile other(path, /*is_writable=*/false);
    } catch (const Error& error) {
      _exit(error.error_class() == ErrorClass::kRun ? 7 : 8);
    }
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 7);
}

TEST(TensorCache, RefusesFilesThatAreNoCache) {
  const TempDir folder;
  write_file(folder / "notes.txt", "these are my notes");
  error_message(ErrorClass::kInput, [&] { TensorCache(folder / "notes.txt", TensorCache::Mode::kWrite); });
  EXPECT_EQ(read_file(folder / "notes.txt"), "these are my notes");
  error_message(ErrorClass::kInput, [&] { TensorCache(folder / "absent.h5", TensorCache::Mode::kRead); });
}

TEST(TensorCache, BeginsAnewWhenTheFileIsDamaged) {
  set_log_level(LogLevel::kOff);
  const TempDir folder;
  const auto path = folder / "cache.h5";
  TensorCache(path, TensorCache::Mode::kWrite).append("latents", items(0, 50));
  std::string bytes = read_file(path);
  std::fill(bytes.begin() + 60, bytes.begin() + 2000, '\xA5');
  write_file(path, bytes);
  error_message(ErrorClass::kInput, [&] { TensorCache(path, TensorCache::Mode::kRead); });
  TensorCache cache(path, TensorCache::Mode::kWrite);
  EXPECT_EQ(cache.size(), 0);
  cache.append("latents", items(0, 5));
  expect_items(cache, 5);
  EXPECT_TRUE(std::filesystem::exists(folder / "cache.h5.damaged"));
  set_log_level(LogLevel::kInfo);
}

TEST(TensorCache, TakesDamagedRowsForMissing) {
  set_log_level(LogLevel::kOff);
  const TempDir folder;
  const auto path = folder / "cache.h5";
  {
    TensorCache cache(path, TensorCache::Mode::kWrite, /*compression_level=*/0);
    cache.append("latents", {{key(1), {{"mean", values(1, {32768})}}}, {key(2), {{"mean", values(2, {32768})}}}});
  }
  std::string bytes = read_file(path);
  const at::Tensor second = values(2, {32768});
  const size_t at = bytes.find(std::string(static_cast<const char*>(second.const_data_ptr()), 64));
  ASSERT_NE(at, std::string::npos);
  bytes[at + 1000] ^= 1;
  write_file(path, bytes);
  TensorCache cache(path, TensorCache::Mode::kWrite);
  EXPECT_TRUE(cache.find(key(1)));
  EXPECT_FALSE(cache.find(key(2)));
  EXPECT_FALSE(cache.contains(key(2)));
  cache.append("latents", {{key(2), {{"mean", values(2, {32768})}}}});
  EXPECT_TRUE(at::equal(cache.find(key(2))->at("mean"), values(2, {32768})));
  set_log_level(LogLevel::kInfo);
}

// Appends batch after batch, committing each and then writing its number to `progress`.
[[noreturn]] void write_until_killed(const std::filesystem::path& path, int progress) {
  TensorCache cache(path, TensorCache::Mode::kWrite);
  for (int64_t first = cache.size("latents");; first += 9) {
    cache.append("latents", items(first, 9));
    cache.append("text", {{key(-first - 1), {{"states", values(first, {7, 11})}}}});
    cache.commit();
    const int64_t committed = first + 9;
    if (write(progress, &committed, sizeof committed) != sizeof committed) _exit(1);
  }
}

TEST(TensorCache, SurvivesBeingKilledAtAnyMoment) {
  const TempDir folder;
  const auto path = folder / "cache.h5";
  uint32_t random = 99;
  for (int round = 0; round < 25; ++round) {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
      try {
        write_until_killed(path, ends[1]);
      } catch (...) {
        _exit(3);
      }
    }
    close(ends[1]);
    random = random * 1664525u + 1013904223u;
    usleep(1000 + (random >> 8) % 60000);
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the writer failed by itself, round " << round;
    int64_t committed = 0;
    for (int64_t number; read(ends[0], &number, sizeof number) == sizeof number;) committed = number;
    close(ends[0]);
    if (!std::filesystem::exists(path)) continue;
    const TensorCache cache(path, TensorCache::Mode::kRead);
    EXPECT_GE(cache.size("latents"), committed);
    expect_items(cache, std::min<int64_t>(cache.size("latents"), 2000));
    EXPECT_FALSE(std::filesystem::exists(folder / "cache.h5.damaged"));
  }
  EXPECT_GT(TensorCache(path, TensorCache::Mode::kRead).size("latents"), 0);
}

TEST(JournalFile, ChangesTheCommittedPartOnlyWithCommit) {
  const TempDir folder;
  const auto path = folder / "file";
  write_file(path, std::string(10000, 'a'));
  JournalFile file(path, /*is_writable=*/true);
  file.write(5000, "changed", 7);
  file.write(12000, "behind", 6);
  char text[8] = {};
  file.read(4999, text, 7);
  EXPECT_EQ(std::string(text), "achange");
  EXPECT_EQ(read_file(path).substr(5000, 7), "aaaaaaa");
  file.commit();
  EXPECT_EQ(read_file(path).substr(5000, 7), "changed");
  EXPECT_EQ(read_file(path).substr(12000), "behind");
  EXPECT_FALSE(std::filesystem::exists(folder / "file-journal"));
}

// The journal was complete and the file half changed when the power failed: opening does the rest.
TEST(JournalFile, RedoesAnInterruptedCommit) {
  const TempDir folder;
  const auto path = folder / "file";
  write_file(path, std::string(10000, 'a'));
  const auto number = [](uint64_t value) { return std::string(reinterpret_cast<const char*>(&value), sizeof value); };
  std::string journal = "prefusion journal 1\n" + number(9000) + number(2);
  journal += number(0) + std::string(4096, 'b') + number(2) + std::string(4096, 'c');
  journal += hash_content(journal).view();
  write_file(folder / "file-journal", journal);
  { JournalFile(path, /*is_writable=*/false); }
  EXPECT_EQ(read_file(path), std::string(4096, 'b') + std::string(4096, 'a') + std::string(808, 'c'));
  EXPECT_FALSE(std::filesystem::exists(folder / "file-journal"));
}

TEST(JournalFile, ForgetsWhatWasNotCommitted) {
  const TempDir folder;
  write_file(folder / "file", "0123456789");
  { JournalFile(folder / "file", true).write(2, "xy", 2); }
  EXPECT_EQ(read_file(folder / "file"), "0123456789");
}

TEST(JournalFile, IgnoresADamagedJournal) {
  set_log_level(LogLevel::kOff);
  const TempDir folder;
  write_file(folder / "file", "0123456789");
  write_file(folder / "file-journal", "prefusion journal 1\nrubbish that is long enough to hold a header and a hash");
  { JournalFile(folder / "file", true); }
  EXPECT_EQ(read_file(folder / "file"), "0123456789");
  EXPECT_FALSE(std::filesystem::exists(folder / "file-journal"));
  set_log_level(LogLevel::kInfo);
}

TEST(LatentCache, KeysDependOnEverythingTheLatentsDependOn) {
  const ContentHash image = hash_content("image");
  const ContentHash base = latents_key(image, "bilinear-64", false, "vae");
  EXPECT_EQ(base, latents_key(image, "bilinear-64", false, "vae"));
  EXPECT_NE(base, latents_key(hash_content("other"), "bilinear-64", false, "vae"));
  EXPECT_NE(base, latents_key(image, "bilinear-32", false, "vae"));
  EXPECT_NE(base, latents_key(image, "bilinear-64", true, "vae"));
  EXPECT_NE(base, latents_key(image, "bilinear-64", false, "vae2"));
  EXPECT_NE(text_key("ab", "c"), text_key("a", "bc"));
}

TEST(LatentCache, StoresBatches) {
  const TempDir folder;
  const at::Tensor mean = values(1, {3, 4, 8, 8});
  const at::Tensor std = values(2, {3, 4, 8, 8}).abs();
  const at::Tensor states = values(3, {2, 7, 6});
  const at::Tensor pooled = values(4, {2, 6});
  const at::Tensor mask = values(5, {2, 7}) > 0;
  {
    LatentCache cache(folder / "cache.h5", TensorCache::Mode::kWrite);
    cache.append_latents({key(1), key(2), key(3)}, mean, std);
    cache.append_text({key(4), key(5)}, {.encoder_hidden_states = states, .encoder_mask = mask, .pooled = pooled});
    cache.append_text({key(6), key(7)}, {.encoder_hidden_states = states});
  }
  const LatentCache cache(folder / "cache.h5", TensorCache::Mode::kRead);
  EXPECT_TRUE(at::equal(cache.find_latents(key(2))->mean, mean[1]));
  EXPECT_TRUE(at::equal(cache.find_latents(key(3))->std, std[2]));
  EXPECT_TRUE(at::equal(cache.find_text(key(5))->pooled, pooled[1]));
  EXPECT_TRUE(at::equal(cache.find_text(key(5))->encoder_mask, mask[1]));
  EXPECT_FALSE(cache.find_text(key(6))->pooled.defined());
  EXPECT_FALSE(cache.find_latents(key(4)));
  EXPECT_EQ(cache.num_latents(), 3);
  EXPECT_EQ(cache.num_prompts(), 4);
}

TEST(LatentCache, HalvesTheSizeInHalfPrecision) {
  const TempDir folder;
  const at::Tensor mean = values(1, {8, 4, 64, 64});
  const auto write = [&](const char* name, at::ScalarType storage) {
    LatentCache cache(folder / name, TensorCache::Mode::kWrite, {.storage = storage, .compression_level = 0});
    cache.append_latents({key(1), key(2), key(3), key(4), key(5), key(6), key(7), key(8)}, mean, mean);
    EXPECT_TRUE(tests::near(cache.find_latents(key(3))->mean, mean[2], storage == at::kHalf ? 1e-3 : 0));
    EXPECT_EQ(cache.find_latents(key(1))->mean.scalar_type(), at::kFloat);
  };
  write("full.h5", at::kFloat);
  write("half.h5", at::kHalf);
  EXPECT_LT(std::filesystem::file_size(folder / "half.h5"), 0.6 * std::filesystem::file_size(folder / "full.h5"));
}

}  // namespace
}  // namespace prefusion::data
