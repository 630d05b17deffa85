#include "training/dry_data.h"

#include <ATen/ATen.h>

#include "core/error.h"

namespace prefusion::training {
namespace {

[[noreturn]] void fail_dry() {
  fail_run("a dry run encodes no data");
}

class DryData : public EncodedData {
 public:
  DryData(const AlignOptions& options, losses::DataKind kind, PreferenceSplit split,
          std::shared_ptr<GroupEncoder> encoder)
      : EncodedData(std::move(split)),
        items_(kind == losses::DataKind::kSingle ? 1 : split_.train->group_size()),
        scaling_(encoder->scaling()),
        latent_shape_(encoder->latent_shape()),
        prompt_(encoder->encode_prompts({""})),
        time_ids_(encoder->example_time_ids()) {
    // The cache is filled picture by picture.
    encoder->rehearse(options.no_cache ? options.batch_size * items_ : 1);
    if (options.no_cache) encoder_ = std::move(encoder);
  }

  std::unique_ptr<BatchSource> train_source(int64_t) override { fail_dry(); }
  std::vector<EncodedBatch> held_out() override { fail_dry(); }
  std::vector<data::LoadRequest> first_draws(int64_t) const override { fail_dry(); }
  void for_each_batch(const std::vector<data::LoadRequest>&, int64_t, double,
                      const std::function<void(const EncodedBatch&)>&) override {
    fail_dry();
  }
  data::TensorCache& cache() override { fail_dry(); }

  int64_t items_per_group() const override { return items_; }
  LatentScaling scaling() const override { return scaling_; }
  std::vector<int64_t> latent_shape() const override { return latent_shape_; }
  text::PromptStates example_prompt() const override { return prompt_; }
  at::Tensor example_time_ids() const override { return time_ids_; }

 private:
  int64_t items_;
  LatentScaling scaling_;
  std::vector<int64_t> latent_shape_;
  text::PromptStates prompt_;
  at::Tensor time_ids_;
  std::shared_ptr<GroupEncoder> encoder_;  // where it stays
};

}  // namespace

std::unique_ptr<EncodedData> open_dry_data(const AlignOptions& options, losses::DataKind kind, PreferenceSplit split,
                                           std::shared_ptr<GroupEncoder> encoder) {
  return std::make_unique<DryData>(options, kind, std::move(split), std::move(encoder));
}

}  // namespace prefusion::training
