#include "core/content_hash.h"

#include <gtest/gtest.h>

#include "core/atomic_file.h"
#include "tests/core/expect_error.h"
#include "tests/support/temp_dir.h"

namespace prefusion {
namespace {

// sha256sum of the eight-byte length and the text, first half.
TEST(ContentHash, IsHalfOfASha256OverLengthAndContent) {
  EXPECT_EQ(hash_content("").hex(), "af5570f5a1810b7af78caf4bc70a660f");
  EXPECT_EQ(hash_content("abc").hex(), "c3494ca1a2cf8eeb8a11ded316fb55b8");
  EXPECT_EQ(hash_content(std::string(1000, 'x')).hex(), "3668070a92f96267ac3d294efae4f46d");
}

TEST(ContentHash, DoesNotDependOnHowTheBytesArrive) {
  for (size_t count = 0; count < 200; ++count) {
    const std::string text(count, 'q');
    EXPECT_EQ(ContentHasher().add(text).finish(), hash_content(text));
    EXPECT_NE(ContentHasher().add(text).add("").finish(), hash_content(text));
  }
  EXPECT_NE(ContentHasher().add("ab").add("c").finish(), ContentHasher().add("a").add("bc").finish());
}

TEST(ContentHash, OfAFileChangesWithEveryByte) {
  const tests::TempDir folder;
  std::string text(3'000'000, 'a');
  write_file(folder / "a", text);
  const ContentHash first = hash_file(folder / "a");
  EXPECT_EQ(first, hash_file(folder / "a"));
  text[2'999'999] = 'b';
  write_file(folder / "a", text);
  EXPECT_NE(first, hash_file(folder / "a"));
  tests::error_message(ErrorClass::kInput, [&] { hash_file(folder / "absent"); });
}

}  // namespace
}  // namespace prefusion
