#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "data/parquet_file_writer.h"

namespace prefusion::data {

// One row in Pick-a-Pic's layout; label_1 and what else follows from these is filled in by the writer.
struct PickapicRow {
  std::string jpg_0;  // encoded image bytes, of any format
  std::string jpg_1;
  double label_0 = 0.5;  // 1 image 0 is preferred, 0 image 1, 0.5 a tie
  std::string caption;
  std::string model_0;
  std::string model_1;
  bool has_label = true;
  int64_t ranking_id = 0;
  int64_t user_id = 0;
  int64_t num_example_per_prompt = 1;
};

struct RankedItem {
  std::string image;  // encoded bytes
  std::string model;
  int64_t seed = 0;
  std::map<std::string, double> scores;  // reward kind -> value
  double rank = 0;                       // 0 best
};

struct RankedRow {
  std::string prompt;
  std::vector<RankedItem> images;
};

// What a model made of one held-out group (docs/formats.md). Items stand best first.
struct GroupRow {
  std::string id;
  std::string prompt;
  std::vector<double> labels, scores;          // k; scores empty where the data has none
  std::vector<double> errors, errors_ref;      // k, means over the timesteps
  std::vector<int64_t> timesteps;              // G
  std::vector<double> errors_by_timestep;      // G * k, timestep by timestep
  std::vector<double> errors_ref_by_timestep;  // the same
  double margin = 0;                           // implicit reward of the first item minus that of the last
  double hardness = 0;                         // error_ref of the first item minus that of the last
  bool is_flipped = false;                     // the policy prefers the last item
};

// A ParquetFileWriter of such rows.
template <typename Row>
class ParquetRowWriter {
 public:
  // A row group ends after `max_rows` rows or about `max_bytes` bytes of images. `metadata` are notes on the whole file
  // (read_parquet_metadata).
  explicit ParquetRowWriter(const std::filesystem::path& path, int64_t max_rows = 256,
                            int64_t max_bytes = int64_t{64} << 20,
                            const std::map<std::string, std::string>& metadata = {});

  void add(const Row& row);
  void finish() { file_.finish(); }
  int64_t num_rows() const { return file_.num_rows(); }

 private:
  ParquetFileWriter file_;
};

using PickapicWriter = ParquetRowWriter<PickapicRow>;
// `prompt`, `images`: list of struct {image, model, seed, scores map, rank}.
using RankedListWriter = ParquetRowWriter<RankedRow>;

using GroupTableWriter = ParquetRowWriter<GroupRow>;

extern template class ParquetRowWriter<GroupRow>;
extern template class ParquetRowWriter<PickapicRow>;
extern template class ParquetRowWriter<RankedRow>;

}  // namespace prefusion::data
