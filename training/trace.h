#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/safetensors.h"
#include "training/train_step.h"

namespace prefusion::training {

// Writes the tensors of the first optimizer steps of a run, so that anyone can recompute them with other software:
// FOLDER/step-000001.safetensors ... (docs/formats.md lists the tensors). Micro-steps are joined along the batch.
class TraceWriter {
 public:
  // `metadata` goes into every file: the objective and its parameters.
  TraceWriter(std::filesystem::path folder, int64_t num_steps, Metadata metadata, uint64_t seed);

  bool wants(int64_t step) const { return step <= num_steps_; }
  void add(const StepTensors& tensors, const EncodedBatch& batch);
  // One tensor of a micro-step, joined with those of the others along its first dimension; undefined ones are left out.
  void keep(const std::string& name, const at::Tensor& tensor);
  void write(int64_t step, const at::Tensor& loss, const at::Tensor& grad_norm);

 private:
  std::filesystem::path folder_;
  int64_t num_steps_;
  Metadata metadata_;
  uint64_t seed_;
  std::map<std::string, std::vector<at::Tensor>> parts_;
};

}  // namespace prefusion::training
