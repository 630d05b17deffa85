#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/atomic_file.h"
#include "core/json_config.h"
#include "core/safetensors.h"
#include "data/filters/picture_rules.h"
#include "data/filters/text_diversity.h"
#include "images/image_decode.h"
#include "tests/support/python_reference.h"
#include "tests/support/tensor_near.h"

namespace prefusion::data::filters {
namespace {

class FiltersReference : public testing::Test {
 protected:
  static void SetUpTestSuite() { folder_ = tests::run_reference_script("make_filters.py"); }
  static std::filesystem::path folder_;
};
std::filesystem::path FiltersReference::folder_;

TEST_F(FiltersReference, KnnLogDistancesEqualNumPy) {
  const TensorMap tensors = read_safetensors(folder_ / "texts.safetensors");
  for (const int64_t k : {1, 5, 40}) {
    const at::Tensor found = knn_log_distances(tensors.at("embeddings"), k);
    EXPECT_LT((found - tensors.at("knn_" + std::to_string(k))).abs().max().item<double>(), 1e-9) << k;
  }
}

TEST_F(FiltersReference, PictureHashesEqualNumPyAndPillow) {
  const Json hashes = read_json(folder_ / "hashes.json");
  EXPECT_EQ(hashes.size(), 5u);
  for (const auto& [name, expected] : hashes.items()) {
    const at::Tensor image = images::decode_image(read_file(folder_ / name));
    // A JPEG decoder may round a pixel otherwise, and so turn a coefficient at the median.
    const int allowed = name.ends_with(".jpg") ? 2 : 0;
    EXPECT_LE(hamming_distance(picture_hash(image), std::stoull(expected.get<std::string>())), allowed) << name;
  }
}

}  // namespace
}  // namespace prefusion::data::filters
