#include "reward_models/picture_preparation.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/error.h"
#include "core/json_config.h"

namespace prefusion::reward_models {
namespace {

using images::Picture;

// Python's int(a * b / c) of whole numbers.
int64_t scaled(int64_t a, int64_t b, int64_t c) {
  return a * b / c;
}

// transformers' bound on the longer side: the shorter one is rounded, the longer one computed before rounding.
PictureSize bounded_size(const Picture& picture, int64_t edge, int64_t bound) {
  const auto height = static_cast<double>(picture.height());
  const auto width = static_cast<double>(picture.width());
  const double shorter = std::min(height, width);
  const double longer = std::max(height, width);
  auto exact_edge = static_cast<double>(edge);
  if (longer / shorter * exact_edge > static_cast<double>(bound)) {
    exact_edge = static_cast<double>(bound) * shorter / longer;
    edge = static_cast<int64_t>(std::nearbyint(exact_edge));
  }
  if (shorter == static_cast<double>(edge)) return {picture.height(), picture.width()};
  if (width < height) return {static_cast<int64_t>(exact_edge * height / width), edge};
  return {edge, static_cast<int64_t>(exact_edge * width / height)};
}

PictureSize resized_size(const Picture& picture, const PicturePreparation& how) {
  const int64_t height = picture.height();
  const int64_t width = picture.width();
  if (!how.resizes) return {height, width};
  if (how.longest_edge > 0) return bounded_size(picture, how.shortest_edge, how.longest_edge);
  if (how.shortest_edge > 0) {
    const int64_t shorter = std::min(height, width);
    return {scaled(how.shortest_edge, height, shorter), scaled(how.shortest_edge, width, shorter)};
  }
  if (how.max_height > 0) {
    const double scale = std::min(static_cast<double>(how.max_height) / static_cast<double>(height),
                                  static_cast<double>(how.max_width) / static_cast<double>(width));
    return {static_cast<int64_t>(static_cast<double>(height) * scale),
            static_cast<int64_t>(static_cast<double>(width) * scale)};
  }
  return {how.resize_height, how.resize_width};
}

// One axis of a centre crop: what is kept, and how many zeros stand before it in the result.
struct Cut {
  int64_t begin = 0;
  int64_t count = 0;
  int64_t zeros_before = 0;
  int64_t size = 0;
};

Cut cut_axis(int64_t size, int64_t crop, PreparationRecipe recipe) {
  if (crop <= 0) return {.count = size, .size = size};
  const bool rounds_down = recipe == PreparationRecipe::kTransformers;
  if (size < crop) {
    const int64_t zeros = crop - size;
    return {.count = size, .zeros_before = rounds_down ? (zeros + 1) / 2 : zeros / 2, .size = crop};
  }
  const int64_t slack = size - crop;
  const int64_t begin =
      rounds_down ? slack / 2 : static_cast<int64_t>(std::nearbyint(static_cast<double>(slack) / 2.0));
  return {.begin = begin, .count = crop, .size = crop};
}

struct Frame {
  PictureSize resized;
  Cut rows;
  Cut columns;
};

Frame frame_of(const Picture& picture, const PicturePreparation& how) {
  const PictureSize resized = resized_size(picture, how);
  check_input(resized.height > 0 && resized.width > 0, "a picture of ", picture.width(), "x", picture.height(),
              " pixels is too narrow for the reward model: resized it has no pixels left");
  Frame frame{.resized = resized,
              .rows = cut_axis(resized.height, how.crops ? how.crop_height : 0, how.recipe),
              .columns = cut_axis(resized.width, how.crops ? how.crop_width : 0, how.recipe)};
  constexpr int64_t kMaxPixels = 100'000'000;
  check_input(frame.rows.size * frame.columns.size <= kMaxPixels, "a picture of ", picture.width(), "x",
              picture.height(), " pixels would be resized to ", frame.columns.size, "x", frame.rows.size);
  return frame;
}

// [.., H, W, C] or [C, H, W] with zeros around, as the frame says; `row_axis` is that of H.
at::Tensor add_zeros(const at::Tensor& part, const Frame& frame, int64_t row_axis) {
  const Cut& rows = frame.rows;
  const Cut& columns = frame.columns;
  if (rows.count == rows.size && columns.count == columns.size) return part;
  std::vector<int64_t> shape = part.sizes().vec();
  shape[row_axis] = rows.size;
  shape[row_axis + 1] = columns.size;
  at::Tensor whole = at::zeros(shape, part.options());
  whole.narrow(row_axis, rows.zeros_before, rows.count)
      .narrow(row_axis + 1, columns.zeros_before, columns.count)
      .copy_(part);
  return whole;
}

Picture resize_and_cut(const Picture& picture, const PicturePreparation& how) {
  const Frame frame = frame_of(picture, how);
  Picture result = images::pillow_resize(
      picture, frame.resized.height, frame.resized.width, how.filter,
      {.top = frame.rows.begin, .left = frame.columns.begin, .height = frame.rows.count, .width = frame.columns.count});
  result.pixels = add_zeros(result.pixels, frame, 0);
  return result;
}

float normalised(float value, const PicturePreparation& how, int channel) {
  return (value - static_cast<float>(how.mean[channel])) / static_cast<float>(how.std[channel]);
}

// A byte as the recipe rescales it: transformers multiplies in double precision, torchvision divides in single.
float rescaled(int byte, const PicturePreparation& how) {
  if (how.recipe != PreparationRecipe::kTransformers) return static_cast<float>(byte) / 255.0f;
  if (how.rescale_factor == 0) return static_cast<float>(byte);
  return static_cast<float>(byte * how.rescale_factor);
}

// uint8 [H, W, 3] to fp32 [3, H, W]; each value is a function of one byte, so a table gives it exactly.
at::Tensor to_floats(const at::Tensor& rgb, const PicturePreparation& how) {
  std::array<std::array<float, 256>, 3> table;
  for (int c = 0; c < 3; ++c) {
    for (int byte = 0; byte < 256; ++byte) table[c][byte] = normalised(rescaled(byte, how), how, c);
  }
  const at::Tensor packed = rgb.contiguous();
  const int64_t count = packed.size(0) * packed.size(1);
  at::Tensor result = at::empty({3, packed.size(0), packed.size(1)}, at::kFloat);
  const auto* in = packed.const_data_ptr<uint8_t>();
  auto* out = result.data_ptr<float>();
  for (int64_t i = 0; i < count; ++i) {
    out[i] = table[0][in[3 * i]];
    out[count + i] = table[1][in[3 * i + 1]];
    out[2 * count + i] = table[2][in[3 * i + 2]];
  }
  return result;
}

at::Tensor resize_floats(const at::Tensor& image, const PictureSize& size, const PicturePreparation& how) {
  if (size.height == image.size(2) && size.width == image.size(3)) return image;
  const std::array<int64_t, 2> shape = {size.height, size.width};
  using images::ResizeFilter;
  if (how.filter == ResizeFilter::kBicubic) {
    return how.antialias ? at::_upsample_bicubic2d_aa(image, shape, /*align_corners=*/false)
                         : at::upsample_bicubic2d(image, shape, /*align_corners=*/false);
  }
  check_usage(how.filter == ResizeFilter::kBilinear, "torch's resize of floats is bicubic or bilinear");
  return how.antialias ? at::_upsample_bilinear2d_aa(image, shape, /*align_corners=*/false)
                       : at::upsample_bilinear2d(image, shape, /*align_corners=*/false);
}

at::Tensor prepare_as_tensor(const Picture& picture, const PicturePreparation& how) {
  const at::Tensor planes =
      images::to_rgb(picture).permute({2, 0, 1}).to(at::kFloat, false, false, at::MemoryFormat::Contiguous);
  const Frame frame = frame_of(picture, how);
  const at::Tensor resized = resize_floats((planes / 255).unsqueeze(0), frame.resized, how).squeeze(0);
  const at::Tensor cut =
      resized.narrow(1, frame.rows.begin, frame.rows.count).narrow(2, frame.columns.begin, frame.columns.count);
  at::Tensor result = add_zeros(cut, frame, 1).clone(at::MemoryFormat::Contiguous);
  for (int c = 0; c < 3; ++c) result[c].sub_(how.mean[c]).div_(static_cast<float>(how.std[c]));
  return result;
}

at::Tensor rgb_for_transformers(const Picture& picture, const PicturePreparation& how) {
  if (how.converts_to_rgb) return images::composite_on_white(picture);
  check_input(picture.mode == images::PictureMode::kRgb,
              "the preprocessor settings convert nothing to RGB (do_convert_rgb false), but the picture is not RGB");
  return picture.pixels;
}

at::Tensor add_padding(const at::Tensor& floats, const PicturePreparation& how) {
  if (how.pad_height == 0) return floats;
  check_input(floats.size(1) <= how.pad_height && floats.size(2) <= how.pad_width, "the picture has ", floats.size(2),
              "x", floats.size(1), " pixels where it is padded to ", how.pad_width, "x", how.pad_height);
  return at::constant_pad_nd(floats, {0, how.pad_width - floats.size(2), 0, how.pad_height - floats.size(1)});
}

}  // namespace

std::string PicturePreparation::key() const {
  std::ostringstream out;
  out.precision(17);
  out << static_cast<int>(recipe) << ' ' << applies_orientation << ' ' << converts_to_rgb << ' ' << resizes << ' '
      << shortest_edge << ' ' << longest_edge << ' ' << max_height << 'x' << max_width << ' ' << resize_height << 'x'
      << resize_width << ' ' << static_cast<int>(filter) << ' ' << antialias << ' ' << crops << ' ' << crop_height
      << 'x' << crop_width << ' ' << rescale_factor << ' ' << pad_height << 'x' << pad_width;
  for (int c = 0; c < 3; ++c) out << ' ' << mean[c] << ' ' << std[c];
  return out.str();
}

PictureSize PicturePreparation::output_size() const {
  if (pad_height > 0) return {pad_height, pad_width};
  if (crops) return {crop_height, crop_width};
  const bool is_exact = resizes && shortest_edge == 0 && max_height == 0;
  return is_exact ? PictureSize{resize_height, resize_width} : PictureSize{};
}

at::Tensor prepare_picture(const Picture& picture, const PicturePreparation& preparation) {
  const Picture seen = preparation.applies_orientation ? images::upright(picture) : picture;
  switch (preparation.recipe) {
    case PreparationRecipe::kPillow: return to_floats(images::to_rgb(resize_and_cut(seen, preparation)), preparation);
    case PreparationRecipe::kTensor: return prepare_as_tensor(seen, preparation);
    case PreparationRecipe::kTransformers: break;
  }
  const Picture rgb = images::rgb_picture(rgb_for_transformers(seen, preparation));
  return add_padding(to_floats(resize_and_cut(rgb, preparation).pixels, preparation), preparation);
}

}  // namespace prefusion::reward_models
