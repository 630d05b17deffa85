#include "data/mask.h"

#include <gtest/gtest.h>

#include "data/latent_cache.h"
#include "data/pair_loader.h"
#include "images/image_encode.h"
#include "tests/core/expect_error.h"
#include "tests/data/manifest_file.h"
#include "tests/support/tensor_near.h"

namespace prefusion::data {
namespace {

using tests::error_message;
using tests::ManifestFile;
using tests::mentions;

const DatasetOptions kMasks{.masks = true};

// White left of `edge`, black right of it: uint8 [H, W, 3].
at::Tensor half_white(int64_t height, int64_t width, int64_t edge) {
  at::Tensor image = at::zeros({height, width, 3}, at::kByte);
  image.narrow(1, 0, edge).fill_(255);
  return image;
}

// A pair of 32 x 32 pictures with the masks left.png and right.png, white on their left and right halves.
class MaskedPair {
 public:
  explicit MaskedPair(const std::string& masks)
      : file_({R"({"prompt": "p", "images": ["a.png", "b.png"], "label": 1, )" + masks + "}"}) {
    const at::Tensor left = half_white(32, 32, 16);
    write_file(file_ / "a.png", images::encode_png(left));
    write_file(file_ / "b.png", images::encode_png(left.flip({0})));
    write_file(file_ / "left.png", images::encode_png(left));
    write_file(file_ / "right.png", images::encode_png(left.flip({1})));
    write_file(file_ / "small.png", images::encode_png(half_white(30, 32, 16)));
    write_file(file_ / "broken.png", "no picture");
    write_file(file_ / "empty.png", "");
  }

  LoadedGroup load(bool hflip = false, uint64_t draw = 0) const {
    const auto dataset = open_preference_data({file_.path()}, kMasks);
    return load_group(*dataset, {.index = 0, .draw = draw}, {.transform = {.resolution = 32, .hflip = hflip}});
  }
  const std::filesystem::path& path() const { return file_.path(); }

 private:
  ManifestFile file_;
};

TEST(Masks, OfEachPictureFollowTheOrderOfTheItems) {
  const LoadedGroup group = MaskedPair(R"("masks": ["left.png", "right.png"])").load();
  ASSERT_EQ(group.masks.sizes(), (at::IntArrayRef{2, 32, 32}));
  EXPECT_EQ(group.mask_hashes.size(), 2u);
  const at::Tensor expected = at::zeros({2, 1, 2, 2});
  expected[0].select(2, 0).fill_(1);
  expected[1].select(2, 1).fill_(1);
  EXPECT_TRUE(at::equal(average_masks(group.masks, 16), expected));
}

TEST(Masks, OfAGroupAreThoseOfEachItem) {
  const LoadedGroup group = MaskedPair(R"("mask": "left.png")").load();
  EXPECT_TRUE(at::equal(group.masks[0], group.masks[1]));
  EXPECT_EQ(group.mask_hashes[0], group.mask_hashes[1]);
}

TEST(Masks, AreFlippedWithTheirPictures) {
  const MaskedPair pair(R"("mask": "left.png")");
  int flips = 0;
  for (uint64_t draw = 0; draw < 20; ++draw) {
    const LoadedGroup group = pair.load(/*hflip=*/true, draw);
    // The first picture is its own mask.
    EXPECT_TRUE(at::equal(group.masks[0].to(at::kFloat) / 127.5 - 1, group.pixel_values[0][0]));
    flips += group.is_flipped ? 1 : 0;
  }
  EXPECT_GT(flips, 2);
  EXPECT_LT(flips, 18);
}

TEST(Masks, AreNotReadUnlessAskedFor) {
  const MaskedPair pair(R"("mask": "absent.png")");
  const auto dataset = open_preference_data({pair.path()});
  EXPECT_EQ(dataset->read(0).items[0].mask, std::nullopt);
  EXPECT_EQ(dataset->summary().mask_rows, 1);
  EXPECT_FALSE(load_group(*dataset, {}, {.transform = {.resolution = 16}}).masks.defined());
}

TEST(Masks, ThatCannotBeUsedNameTheRowAndTheReason) {
  const auto message = [](const std::string& mask) {
    return error_message(ErrorClass::kInput, [&] { MaskedPair("\"mask\": \"" + mask + "\"").load(); });
  };
  EXPECT_TRUE(mentions(message("absent.png"), "rows.jsonl line 1"));
  EXPECT_TRUE(mentions(message("absent.png"), "absent.png"));
  EXPECT_TRUE(
      mentions(message("small.png"), "rows.jsonl line 1, image 0: the mask has 32x30 pixels, its picture 32x32"));
  EXPECT_TRUE(mentions(message("broken.png"), "rows.jsonl line 1, image 0: mask: "));
  EXPECT_TRUE(mentions(message("empty.png"), "image 0: mask: "));
}

TEST(Masks, OfAnotherNumberAreMalformed) {
  const std::string message = error_message(ErrorClass::kInput, [] { MaskedPair(R"("masks": ["left.png"])").load(); });
  EXPECT_TRUE(mentions(message, "rows.jsonl line 1: masks must be a list of 2 paths")) << message;
}

TEST(Masks, ThatAreMissingAreNamed) {
  const std::string message = error_message(ErrorClass::kInput, [] { MaskedPair(R"("masks": null)").load(); });
  EXPECT_TRUE(mentions(message, "'mask'"));
  EXPECT_TRUE(mentions(message, "'mask_0'"));
}

TEST(Masks, AverageTheSameWhetherFlippedBeforeOrAfter) {
  const at::Tensor masks = at::arange(3 * 24 * 24).remainder(251).to(at::kByte).view({3, 24, 24});
  const at::Tensor averaged = average_masks(masks, 8);
  EXPECT_EQ(averaged.sizes(), (at::IntArrayRef{3, 1, 3, 3}));
  EXPECT_TRUE(at::equal(average_masks(masks.flip({2}), 8), averaged.flip({3})));
  EXPECT_TRUE(at::equal(average_masks(at::full({8, 8}, 255, at::kByte), 8), at::ones({1, 1, 1})));
}

TEST(MaskCache, FindsWhatWasAppendedByItsContent) {
  const tests::TempDir folder;
  const ContentHash mask = hash_content("mask");
  const ContentHash image = hash_content("image");
  const at::Tensor values = at::rand({1, 1, 4, 4});
  {
    LatentCache cache(folder / "latents.h5", TensorCache::Mode::kWrite, {.storage = at::kHalf});
    cache.append_masks({mask_key(mask, image, "t", 8)}, values);
  }
  const LatentCache cache(folder / "latents.h5", TensorCache::Mode::kRead);
  const auto found = cache.find_mask(mask_key(mask, image, "t", 8));
  ASSERT_TRUE(found.has_value());
  EXPECT_TRUE(at::equal(*found, values[0]));
  for (const auto& other : {mask_key(image, image, "t", 8), mask_key(mask, mask, "t", 8), mask_key(mask, image, "u", 8),
                            mask_key(mask, image, "t", 16), latents_key(mask, "t", false, "8")}) {
    EXPECT_FALSE(cache.find_mask(other).has_value());
  }
}

}  // namespace
}  // namespace prefusion::data
