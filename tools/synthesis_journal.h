#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/json_config.h"
#include "tools/candidate_sampler.h"

namespace prefusion::tools {

// A picture in the journal.
struct JournalPicture {
  size_t prompt = 0;  // its number in the run
  uint64_t seed = 0;
  std::vector<double> scores;
  uint64_t offset = 0;  // of its bytes in the model's file
  uint64_t size = 0;
};

// What a synthesis has made so far: a folder with settings.json and a file a model, to which blocks of pictures are
// added whole. A block is in the journal when its length and hash say so; a killed run leaves at most the beginning of
// one, which is cut off when the journal is opened again. Without any block the folder goes with the object. Memory
// holds seeds and scores, not pictures.
class SynthesisJournal {
 public:
  // Opens the folder, or makes it. Usage error when it holds a run and `resumes` is false, or a run with other
  // settings; run error when another process has it open.
  SynthesisJournal(std::filesystem::path folder, const Json& settings, size_t num_models, bool resumes);
  ~SynthesisJournal();
  SynthesisJournal(const SynthesisJournal&) = delete;
  SynthesisJournal& operator=(const SynthesisJournal&) = delete;

  size_t num_blocks(size_t model) const { return models_.at(model).num_blocks; }

  // The pictures of one block, by the number of their prompt; encoded bytes and scores are those of `candidates`.
  struct Block {
    std::vector<size_t> prompts;  // one a candidate
    std::vector<uint64_t> seeds;
    std::vector<Candidate> candidates;
    SamplingCounts counts;
  };
  // Durable when it returns. Run error on a full disk.
  void add(size_t model, const Block& block);

  // In the order they were added.
  const std::vector<JournalPicture>& pictures(size_t model) const { return models_.at(model).pictures; }
  std::string read(size_t model, const JournalPicture& picture) const;

  // Over all blocks of all models.
  const SamplingCounts& counts() const { return counts_; }

  // Deletes the folder.
  void remove();

 private:
  struct Model {
    std::filesystem::path path;
    int descriptor = -1;
    uint64_t end = 0;
    size_t num_blocks = 0;
    std::vector<JournalPicture> pictures;
  };
  bool is_empty() const;
  void check_settings(const Json& settings, bool resumes);
  void open_model(size_t index);
  bool read_block(Model& model, uint64_t file_size);

  std::filesystem::path folder_;
  int lock_ = -1;
  std::vector<Model> models_;
  SamplingCounts counts_;
};

}  // namespace prefusion::tools
