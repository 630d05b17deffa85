// Files as an attacker or a broken disk would leave them: the reader must answer each with one clear input error.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "core/atomic_file.h"
#include "core/safetensors.h"
#include "tests/core/expect_error.h"
#include "tests/support/temp_dir.h"

namespace prefusion {
namespace {

using tests::error_message;
using tests::mentions;
using tests::TempDir;

// Without AtomicFile's fsync, which would cost seconds over some thousand files.
void overwrite(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

std::string with_length(uint64_t length, const std::string& rest) {
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + rest;
}

class DamagedSafetensors : public testing::Test {
 protected:
  // A file with this header and that many data bytes.
  std::filesystem::path make(const std::string& header, size_t data_bytes) {
    overwrite(path(), with_length(header.size(), header + std::string(data_bytes, '\1')));
    return path();
  }

  std::string refusal(const std::string& header, size_t data_bytes) {
    make(header, data_bytes);
    const std::string message = error_message(ErrorClass::kInput, [&] { read_safetensors(path()); });
    EXPECT_TRUE(mentions(message, "x.safetensors")) << header;
    return message;
  }

  std::filesystem::path path() const { return folder_ / "x.safetensors"; }

  TempDir folder_;
};

TEST_F(DamagedSafetensors, TruncatedAtEveryByte) {
  write_safetensors(path(), {{"a", at::ones({2, 3})}, {"b", at::ones({3}, at::kHalf)}}, {{"k", "v"}});
  const std::string whole = read_file(path());
  EXPECT_NO_THROW(read_safetensors(path()));
  for (size_t size = 0; size < whole.size(); ++size) {
    overwrite(path(), whole.substr(0, size));
    EXPECT_TRUE(mentions(error_message(ErrorClass::kInput, [&] { read_safetensors(path()); }), "x.safetensors"))
        << size;
  }
  overwrite(path(), whole + "x");
  error_message(ErrorClass::kInput, [&] { read_safetensors(path()); });
}

TEST_F(DamagedSafetensors, AnyByteOfTheHeaderChanged) {
  write_safetensors(path(), {{"a", at::ones({2, 3})}, {"b", at::ones({3}, at::kHalf)}}, {{"k", "v"}});
  const std::string whole = read_file(path());
  for (size_t at = 0; at < whole.size(); ++at) {
    for (const char value : {'\0', '\xff', '"', '9', '}', '-'}) {
      std::string damaged = whole;
      damaged[at] = value;
      overwrite(path(), damaged);
      try {  // some changes leave a valid file; none may do worse than an Error
        for (const auto& [name, tensor] : read_safetensors(path())) (void)tensor.to(at::kFloat).sum().item<float>();
      } catch (const Error& error) {
        EXPECT_EQ(error.error_class(), ErrorClass::kInput);
      }
    }
  }
}

TEST_F(DamagedSafetensors, HeaderLengthBeyondTheFileOrTheLimit) {
  for (const uint64_t length : {uint64_t{3}, uint64_t{1} << 20, uint64_t{1} << 40, ~uint64_t{0}, ~uint64_t{0} - 7}) {
    overwrite(path(), with_length(length, "{}"));
    EXPECT_TRUE(mentions(error_message(ErrorClass::kInput, [&] { read_safetensors(path()); }), "header length"));
  }
}

TEST_F(DamagedSafetensors, HeaderThatIsNoJsonObject) {
  for (const char* header : {"", "{", "[]", "null", "\"x\"", "{\"a\":}", "{\"a\" 1}", "\xff\xff", "{}{}", "{'a':1}"}) {
    refusal(header, 0);
  }
  EXPECT_TRUE(mentions(refusal("{\"a\":" + std::string(100000, '[') + std::string(100000, ']') + "}", 0), "nests"));
}

TEST_F(DamagedSafetensors, EntriesOfAnotherForm) {
  refusal(R"({"a":1})", 0);
  refusal(R"({"a":{"dtype":"F32","shape":[1]}})", 4);
  refusal(R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", 4);
  refusal(R"({"a":{"shape":[1],"data_offsets":[0,4]}})", 4);
  refusal(R"({"a":{"dtype":7,"shape":[1],"data_offsets":[0,4]}})", 4);
  refusal(R"({"a":{"dtype":"F32","shape":1,"data_offsets":[0,4]}})", 4);
  refusal(R"({"a":{"dtype":"F32","shape":{"x":1},"data_offsets":[0,4]}})", 4);
  refusal(R"({"a":{"dtype":"F32","shape":null,"data_offsets":[0,4]}})", 4);
  refusal(R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", 4);
  refusal(R"({"a":{"dtype":"F32","shape":["1"],"data_offsets":[0,4]}})", 4);
  refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,4]}})", 4);
  refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0.0,4.0]}})", 4);
  refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}})", 4);
  refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":{"0":0,"1":4}}})", 4);
  refusal(R"({"__metadata__":{"k":1}})", 0);
  refusal(R"({"__metadata__":[]})", 0);
}

TEST_F(DamagedSafetensors, UnknownDtypeIsNamed) {
  EXPECT_TRUE(mentions(refusal(R"({"a":{"dtype":"F4","shape":[1],"data_offsets":[0,4]}})", 4), "'F4'"));
}

TEST_F(DamagedSafetensors, OffsetsThatLie) {
  const auto entry = [](const std::string& offsets) {
    return R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[)" + offsets + "]}}";
  };
  EXPECT_NO_THROW(read_safetensors(make(entry("0,8"), 8)));
  refusal(entry("0,8"), 7);    // ends beyond the file
  refusal(entry("0,4"), 4);    // too few bytes for the shape
  refusal(entry("0,12"), 12);  // too many
  refusal(entry("8,0"), 8);    // backwards
  refusal(entry("4,12"), 12);  // a hole at the front
  refusal(entry("0,8"), 9);    // a byte nobody describes
  refusal(entry("18446744073709551608,18446744073709551616"), 8);
  refusal(entry("18446744073709551608,0"), 8);  // wraps around to 8 bytes
}

TEST_F(DamagedSafetensors, OverlapsAndHoles) {
  const auto two = [](const std::string& first, const std::string& second) {
    return R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[)" + first +
           R"(]},"b":{"dtype":"F32","shape":[2],"data_offsets":[)" + second + "]}}";
  };
  EXPECT_NO_THROW(read_safetensors(make(two("0,8", "8,16"), 16)));
  EXPECT_NO_THROW(read_safetensors(make(two("8,16", "0,8"), 16)));
  refusal(two("0,8", "0,8"), 8);
  refusal(two("0,8", "4,12"), 12);
  refusal(two("0,8", "12,20"), 20);
}

TEST_F(DamagedSafetensors, ShapesThatAreNegativeOrOverflow) {
  refusal(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4);
  refusal(R"({"a":{"dtype":"F32","shape":[-1,-1],"data_offsets":[0,4]}})", 4);
  refusal(R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", 0);
  refusal(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0);
  refusal(R"({"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,4]}})", 4);
  refusal(R"({"a":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,4]}})", 4);
}

TEST_F(DamagedSafetensors, EmptyTensorsWithAbsurdShapes) {
  const auto entry = [](const std::string& shape) {
    return R"({"a":{"dtype":"F32","shape":)" + shape + R"(,"data_offsets":[0,0]}})";
  };
  for (const char* shape : {"[0,4611686018427387904,4]", "[4611686018427387904,4,0]", "[9223372036854775807,0]"}) {
    EXPECT_TRUE(mentions(refusal(entry(shape), 0), "overflows"));
  }
  EXPECT_EQ(read_safetensors(make(entry("[1000000,0,1000]"), 0)).at("a").numel(), 0);
}

TEST_F(DamagedSafetensors, DuplicateNames) {
  const std::string entry = R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  EXPECT_TRUE(mentions(refusal("{\"a\":" + entry + ",\"a\":" + entry + "}", 4), "'a' occurs twice"));
  refusal(R"({"a":{"dtype":"F32","dtype":"I32","shape":[1],"data_offsets":[0,4]}})", 4);
  // The same key in two entries is no duplicate.
  EXPECT_NO_THROW(read_safetensors(make(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                                        R"("b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                                        2)));
}

TEST_F(DamagedSafetensors, MissingFilesFoldersAndPipes) {
  error_message(ErrorClass::kInput, [&] { read_safetensors(folder_ / "none.safetensors"); });
  error_message(ErrorClass::kInput, [&] { read_safetensors(folder_.path()); });
  ASSERT_EQ(mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  error_message(ErrorClass::kInput, [&] { read_safetensors(folder_ / "pipe"); });
}

TEST_F(DamagedSafetensors, UnalignedDataIsReadAllTheSame) {
  const std::string header = R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  ASSERT_NE((8 + header.size()) % 4, 0u);
  EXPECT_EQ(read_safetensors(make(header, 4)).at("a").view(at::kInt).item<int>(), 0x01010101);
}

}  // namespace
}  // namespace prefusion
