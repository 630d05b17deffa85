#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "data/tensor_cache.h"
#include "losses/objective.h"
#include "training/align_options.h"
#include "training/batch_source.h"
#include "training/preference_split.h"
#include "training/train_step.h"

namespace prefusion::training {

// The preference data of a run as the train step needs it, encoded by the model's VAE and text encoder: ahead into the
// cache (the default; the encoders are then freed), or batch by batch with --no-cache.
class EncodedData {
 public:
  explicit EncodedData(PreferenceSplit split) : split_(std::move(split)) {}
  virtual ~EncodedData() = default;

  // The stream of training batches from `position` (groups consumed since the start of the run) on.
  virtual std::unique_ptr<BatchSource> train_source(int64_t position) = 0;
  // Held-out groups in a fixed order, in batches of the run's size; empty when there are none.
  virtual std::vector<EncodedBatch> held_out() = 0;

  // The draws of the run's first `num_groups` training groups, in the order of train_source(0), unreadable ones left
  // out.
  virtual std::vector<data::LoadRequest> first_draws(int64_t num_groups) const = 0;
  // Gives these draws of training groups to `use`, in batches; records that could not be read are left out. A usage
  // error without a cache.
  virtual void for_each_batch(const std::vector<data::LoadRequest>& requests, int64_t batch_size,
                              double empty_prompt_rate, const std::function<void(const EncodedBatch&)>& use) = 0;
  // Whether a training group could be read; unknown, so true, without a cache.
  virtual bool can_read(int64_t /*index*/) const { return true; }
  // Where encoded data is kept, for further kinds of entries; a usage error without a cache.
  virtual data::TensorCache& cache() = 0;

  // The records themselves. Chunks of the curriculum that are set here hold for sources made afterwards.
  PreferenceSplit& split() { return split_; }
  const PreferenceSplit& split() const { return split_; }
  int64_t num_train_groups() const { return split_.train->size(); }

  virtual int64_t items_per_group() const = 0;
  virtual LatentScaling scaling() const = 0;
  // What a group of the run is like, for the dry run: latents [C, h, w] (of the largest bucket), the states of a
  // prompt, [1, ...], and the time ids of a picture, [n], undefined where the model takes none.
  virtual std::vector<int64_t> latent_shape() const = 0;
  virtual text::PromptStates example_prompt() const = 0;
  virtual at::Tensor example_time_ids() const = 0;

 protected:
  PreferenceSplit split_;
};

// What an objective asks of its data.
DataNeeds data_needs(const losses::ObjectiveInfo& objective);

// Opens the data, splits off the held-out prompts, and (unless this is a dry run) encodes what the run needs. Input
// error, which names the field, when the data lacks what is asked for. `size_multiple`: of the denoiser, which the
// sizes of latents must be multiples of.
std::unique_ptr<EncodedData> open_encoded_data(const AlignOptions& options, losses::DataKind kind, at::ScalarType dtype,
                                               at::Device device, DataNeeds needs = {}, int64_t size_multiple = 1);

}  // namespace prefusion::training
