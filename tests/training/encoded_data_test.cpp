#include "training/encoded_data.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "images/image_encode.h"
#include "tests/core/expect_error.h"
#include "tests/data/manifest_file.h"
#include "tests/support/python_reference.h"
#include "tests/support/tensor_near.h"
#include "training/group_encoder.h"

namespace prefusion::training {
namespace {

using tests::error_message;
using tests::ManifestFile;
using tests::mentions;

constexpr int64_t kRows = 5;
constexpr int64_t kSide = 64;
const DataNeeds kEverything{.item_prompts = true, .masks = true};

std::string picture_name(int64_t row, int64_t item) {
  return concat(row, "-", item, ".png");
}

// Chosen item first where the row is even.
std::string full_row(int64_t row) {
  return concat(R"({"prompt": "pair )", row, R"(", "images": [")", picture_name(row, 0), R"(", ")",
                picture_name(row, 1), R"("], "prompts": ["zero )", row, R"(", "one )", row, R"("], "label": )",
                row % 2 == 0 ? 0.75 : 0.0, R"(, "scores": [)", row + 0.5, ", ", -row, R"(], "weight": )", row / 2.0,
                R"(, "masks": ["left.png", "top.png"]})");
}

class EncodedBatches : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    model_ = tests::run_reference_script("make_sd_world.py") / "models" / "epsilon";
    std::vector<std::string> rows;
    for (int64_t row = 0; row < kRows; ++row) rows.push_back(full_row(row));
    file_ = std::make_unique<ManifestFile>(rows);
    at::manual_seed(1);
    for (int64_t row = 0; row < kRows; ++row) {
      for (int64_t item = 0; item < 2; ++item) {
        write_file(*file_ / picture_name(row, item),
                   images::encode_png(at::randint(256, {kSide, kSide, 3}, at::kByte)));
      }
    }
    at::Tensor left = at::zeros({kSide, kSide, 3}, at::kByte);
    left.narrow(1, 0, kSide / 2).fill_(255);
    write_file(*file_ / "left.png", images::encode_png(left));
    write_file(*file_ / "top.png", images::encode_png(left.transpose(0, 1).contiguous()));
  }
  static void TearDownTestSuite() { file_.reset(); }

  // Options of a run over the rows, one picture's flip and one group's caption drop by chance.
  AlignOptions options(bool no_cache) const {
    AlignOptions options;
    options.model = model_;
    options.data = {file_->path()};
    options.output = output_.path();
    options.no_cache = no_cache;
    options.batch_size = kRows;
    options.steps = 2;
    options.empty_prompt_rate = 0.5;
    options.eval_every = 0;
    options.seed = 5;
    options.progress = false;
    return options;
  }

  static EncodedBatch first_batch(const AlignOptions& options, DataNeeds needs,
                                  losses::DataKind kind = losses::DataKind::kPair) {
    const auto data = open_encoded_data(options, kind, at::kFloat, at::kCPU, needs);
    return data->train_source(0)->next(options.batch_size);
  }

  static std::filesystem::path model_;
  static std::unique_ptr<ManifestFile> file_;
  tests::TempDir output_;
};
std::filesystem::path EncodedBatches::model_;
std::unique_ptr<ManifestFile> EncodedBatches::file_;

TEST_F(EncodedBatches, AreTheSameFromTheCacheAndLive) {
  for (const auto kind : {losses::DataKind::kPair, losses::DataKind::kSingle, losses::DataKind::kUnpaired}) {
    const EncodedBatch live = first_batch(options(true), kEverything, kind);
    const EncodedBatch cached = first_batch(options(false), kEverything, kind);
    EXPECT_EQ(live.items_per_group(), kind == losses::DataKind::kPair ? 2 : 1);
    EXPECT_EQ(live.ids, cached.ids);
    EXPECT_EQ(live.next_position, cached.next_position);
    for (const auto member : {&EncodedBatch::mean, &EncodedBatch::std}) {
      EXPECT_TRUE(tests::near(cached.*member, live.*member, 1e-5));
    }
    for (const auto member : {&EncodedBatch::prompts, &EncodedBatch::item_prompts}) {
      EXPECT_TRUE(tests::near((cached.*member).encoder_hidden_states, (live.*member).encoder_hidden_states, 1e-5));
    }
    for (const auto member : {&EncodedBatch::is_caption_dropped, &EncodedBatch::labels, &EncodedBatch::scores,
                              &EncodedBatch::weights, &EncodedBatch::masks}) {
      ASSERT_TRUE((live.*member).defined() && (cached.*member).defined());
      EXPECT_TRUE(at::equal(cached.*member, live.*member));
    }
  }
}

TEST_F(EncodedBatches, HoldWhatTheRowsSay) {
  const EncodedBatch batch = first_batch(options(true), kEverything);
  GroupEncoder encoder(options(true), at::kFloat, at::kCPU);
  const auto encode = [&](const std::vector<std::string>& prompts) {
    return encoder.encode_prompts(prompts).encoder_hidden_states;
  };
  const at::Tensor empty = encode({""});
  int64_t drops = 0;
  for (int64_t i = 0; i < kRows; ++i) {
    const int64_t row = batch.groups[static_cast<size_t>(i)].item;
    const bool zero_is_chosen = row % 2 == 0;
    const std::string chosen = concat(zero_is_chosen ? "zero " : "one ", row);
    const std::string rejected = concat(zero_is_chosen ? "one " : "zero ", row);
    const bool is_dropped = batch.is_caption_dropped[i].item<bool>();
    drops += is_dropped ? 1 : 0;
    const at::Tensor expected = is_dropped ? empty.expand({2, -1, -1}) : encode({chosen, rejected});
    EXPECT_TRUE(tests::near(batch.item_prompts.encoder_hidden_states[i], expected, 1e-5)) << row;
    const at::Tensor shared = is_dropped ? empty[0] : encode({concat("pair ", row)})[0];
    EXPECT_TRUE(tests::near(batch.prompts.encoder_hidden_states[i], shared, 1e-5)) << row;
    const double first = static_cast<double>(row) + 0.5;
    const double second = static_cast<double>(-row);
    EXPECT_TRUE(at::equal(batch.scores[i], zero_is_chosen ? at::tensor({first, second}, at::kFloat)
                                                          : at::tensor({second, first}, at::kFloat)));
    EXPECT_FLOAT_EQ(batch.labels[i][0].item<float>(), zero_is_chosen ? 0.75f : 1.0f);
    EXPECT_EQ(batch.weights[i].item<double>(), static_cast<double>(row) / 2);
  }
  EXPECT_GT(drops, 0);
  EXPECT_LT(drops, kRows);
}

TEST_F(EncodedBatches, FlipMasksWithTheirLatents) {
  const AlignOptions run = options(false);
  const EncodedBatch batch = first_batch(run, kEverything);
  const int64_t side = batch.mean.size(4);
  at::Tensor left = at::zeros({1, side, side});
  left.narrow(2, 0, side / 2).fill_(1);
  const at::Tensor top = left.transpose(1, 2);
  int64_t flips = 0;
  for (int64_t i = 0; i < kRows; ++i) {
    const GroupRef group = batch.groups[static_cast<size_t>(i)];
    const bool is_flipped =
        data::decide_transform({.resolution = kSide}, {run.seed, static_cast<uint64_t>(group.item), group.draw})
            .is_flipped;
    flips += is_flipped ? 1 : 0;
    const int64_t zero_stands_at = group.item % 2 == 0 ? 0 : 1;
    EXPECT_TRUE(at::equal(batch.masks[i][zero_stands_at], is_flipped ? left.flip({2}) : left));
    EXPECT_TRUE(at::equal(batch.masks[i][1 - zero_stands_at], top));
  }
  EXPECT_GT(flips, 0);
  EXPECT_LT(flips, kRows);
}

TEST_F(EncodedBatches, HoldItemPromptsAndMasksOnlyWhenAskedFor) {
  for (const bool no_cache : {false, true}) {
    const EncodedBatch batch = first_batch(options(no_cache), {});
    EXPECT_FALSE(batch.item_prompts.defined());
    EXPECT_FALSE(batch.masks.defined());
    EXPECT_TRUE(batch.scores.defined());
  }
}

TEST_F(EncodedBatches, HoldNeitherScoresNorWeightsWhereTheDataHasNone) {
  const ManifestFile plain({R"({"prompt": "p", "images": ["0-0.png", "0-1.png"], "label": 1})"});
  for (const char* name : {"0-0.png", "0-1.png"}) std::filesystem::copy_file(*file_ / name, plain / name);
  AlignOptions run = options(true);
  run.data = {plain.path()};
  run.batch_size = 1;
  const EncodedBatch batch = first_batch(run, {});
  EXPECT_FALSE(batch.scores.defined());
  EXPECT_FALSE(batch.weights.defined());
  EXPECT_TRUE(
      mentions(error_message(ErrorClass::kInput, [&] { first_batch(run, {.item_prompts = true}); }), "prompts"));
  EXPECT_TRUE(mentions(error_message(ErrorClass::kInput, [&] { first_batch(run, {.masks = true}); }), "mask"));
  EXPECT_TRUE(mentions(error_message(ErrorClass::kInput, [&] { first_batch(run, {.scores = true}); }), "'score_0'"));
}

TEST_F(EncodedBatches, AreEncodedOnce) {
  AlignOptions run = options(false);
  const auto first = open_encoded_data(run, losses::DataKind::kPair, at::kFloat, at::kCPU, kEverything);
  EXPECT_EQ(first->cache().size("masks"), 2 * kRows);
  EXPECT_EQ(first->cache().size("latents"), 4 * kRows);
  EXPECT_EQ(first->cache().size("text"), 3 * kRows + 1);
}

TEST_F(EncodedBatches, OfACurriculumBeginWithTheLargestMargins) {
  AlignOptions run = options(false);
  run.data = {file_->path()};
  run.batch_size = 1;
  run.steps = 4;
  run.curriculum = "margin:2:-100";
  const auto data = open_encoded_data(run, losses::DataKind::kPair, at::kFloat, at::kCPU);
  const auto source = data->train_source(0);
  // Margins: 0.5, -2.5, 4.5, -6.5, 8.5; the first chunk holds the largest three of the five.
  std::set<int64_t> seen;
  for (int64_t position = 0; position < 2; ++position) seen.insert(source->next(1).groups[0].item);
  for (const int64_t item : seen) EXPECT_TRUE(item == 0 || item == 2 || item == 4) << item;
  run.curriculum = "margin:2:9";
  error_message(ErrorClass::kInput, [&] { open_encoded_data(run, losses::DataKind::kPair, at::kFloat, at::kCPU); });
  run.curriculum = "margin:2";
  error_message(ErrorClass::kUsage, [&] { open_encoded_data(run, losses::DataKind::kUnpaired, at::kFloat, at::kCPU); });
}

}  // namespace
}  // namespace prefusion::training
