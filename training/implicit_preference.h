#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "training/batch_source.h"
#include "training/paired_statistics.h"
#include "training/train_step.h"
#include "unet/denoiser.h"

namespace prefusion::training {

// How often a model's own likelihood agrees with labelled pairs, a baseline being the reference: the implicit reward of
// "Diffusion Model Alignment Using Direct Preference Optimization", arXiv 2311.12908, averaged over timesteps.
struct ImplicitPreference {
  int64_t num_pairs = 0;
  Interval accuracy;  // share of pairs whose chosen item has the larger implicit reward, Wilson interval
  Interval margin;    // mean of D = s_chosen - s_rejected, s = e_ref - e; bootstrap interval over pairs
};

struct PreferencePairsOptions {
  std::filesystem::path data;  // as --data of align; empty: nothing is measured
  int64_t num_pairs = 256;     // at most so many, the first ones in a fixed order
  int64_t num_timesteps = 10;  // middles of equal bands of the schedule
  int64_t batch_size = 8;      // pairs at a time
};

// Labelled pairs encoded by the baseline's VAE and text encoder, with the baseline's errors.
class ImplicitPreferenceTest {
 public:
  // `model_dir` is the baseline's folder, `baseline` its network with whatever adapters it has. Input error when the
  // data holds no labelled pair.
  ImplicitPreferenceTest(const PreferencePairsOptions& options, const std::filesystem::path& model_dir,
                         std::shared_ptr<unet::Denoiser> baseline, uint64_t seed, at::ScalarType dtype,
                         at::Device device);

  // `user_states` [M, U] are of the user whose model it is, whoever judged the pairs; undefined for a model that knows
  // none.
  ImplicitPreference measure(unet::Denoiser& model, const at::Tensor& user_states = {}) const;

 private:
  // Errors of every pair at every timestep, [N, T, 2].
  at::Tensor errors(unet::Denoiser& network, const at::Tensor& user_states = {}) const;

  schedulers::NoiseSchedule schedule_;
  std::vector<int64_t> timesteps_;
  TrainStepOptions step_options_;
  std::vector<EncodedBatch> batches_;
  at::Tensor baseline_errors_;
};

}  // namespace prefusion::training
