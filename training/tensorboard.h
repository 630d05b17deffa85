#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <map>
#include <string>

namespace prefusion::training {

// Scalars as a TensorBoard event file: TFRecord frames (length, masked CRC-32C, payload, masked CRC-32C) around the
// few protobuf fields an Event needs, written by hand since LibTorch ships an incompatible protobuf.
class TensorBoardWriter {
 public:
  // Makes events.out.tfevents.<seconds>.prefusion in `folder`.
  explicit TensorBoardWriter(const std::filesystem::path& folder);
  ~TensorBoardWriter();
  TensorBoardWriter(const TensorBoardWriter&) = delete;
  TensorBoardWriter& operator=(const TensorBoardWriter&) = delete;

  void write(int64_t step, const std::map<std::string, double>& scalars);

 private:
  void write_record(const std::string& payload);

  std::filesystem::path path_;
  FILE* file_ = nullptr;
};

// CRC-32C (Castagnoli) of bytes; exposed for the test against known values.
uint32_t crc32c(const std::string& bytes);

}  // namespace prefusion::training
