#include <set>

#include "core/error.h"
#include "reward_models/picture_preparation.h"

namespace prefusion::reward_models {
namespace {

constexpr int64_t kMaxSide = 16384;

int64_t positive(ConfigReader& reader, const std::string& key) {
  const auto value = reader.require<int64_t>(key);
  check_input(value > 0 && value <= kMaxSide, reader.where(), ": '", key, "' = ", value, " is no size, expected 1 .. ",
              kMaxSide);
  return value;
}

int64_t positive(int64_t value, const std::string& where) {
  check_input(value > 0 && value <= kMaxSide, where, " = ", value, " is no size, expected 1 .. ", kMaxSide);
  return value;
}

// "height" and "width", a list of the two, or one number for both.
PictureSize read_size(const Json& value, const std::string& where) {
  if (value.is_number_integer()) {
    const int64_t side = positive(value.get<int64_t>(), where);
    return {side, side};
  }
  if (value.is_array() && value.size() == 2 && value[0].is_number_integer() && value[1].is_number_integer()) {
    return {positive(value[0].get<int64_t>(), where), positive(value[1].get<int64_t>(), where)};
  }
  check_input(value.is_object(), where, ": expected a size, found ", value.dump());
  ConfigReader reader(value, where);
  const PictureSize size{positive(reader, "height"), positive(reader, "width")};
  reader.finish();
  return size;
}

void read_resize(const Json& value, bool default_to_square, const std::string& where, PicturePreparation& result) {
  result.shortest_edge = 0;
  if (value.is_number_integer() && !default_to_square) {
    result.shortest_edge = positive(value.get<int64_t>(), where);
    return;
  }
  if (value.is_object() && !value.contains("height")) {
    ConfigReader reader(value, where);
    if (reader.has("max_height")) {
      result.max_height = positive(reader, "max_height");
      result.max_width = positive(reader, "max_width");
    } else {
      result.shortest_edge = positive(reader, "shortest_edge");
      if (reader.has("longest_edge")) result.longest_edge = positive(reader, "longest_edge");
    }
    reader.finish();
    return;
  }
  const PictureSize size = read_size(value, where);
  result.resize_height = size.height;
  result.resize_width = size.width;
}

images::ResizeFilter read_filter(ConfigReader& reader) {
  using enum images::ResizeFilter;
  constexpr images::ResizeFilter kFilters[] = {kNearest, kLanczos, kBilinear, kBicubic, kBox, kHamming};
  const auto number = reader.get<int64_t>("resample", 3);
  if (number < 0 || number > 5) reader.refuse("resample", number);
  return kFilters[number];
}

std::array<double, 3> read_colour(ConfigReader& reader, const std::string& key, std::array<double, 3> fallback) {
  const Json& value = reader.raw(key);
  if (value.is_null()) return fallback;
  if (value.is_number()) return {value.get<double>(), value.get<double>(), value.get<double>()};
  const auto list = reader.require<std::vector<double>>(key);
  check_input(list.size() == 3, reader.where(), ": '", key, "' has ", list.size(), " numbers, expected 3");
  return {list[0], list[1], list[2]};
}

// Whether the settings are SigLIP's; those of classes that work differently are refused.
bool is_siglip(ConfigReader& reader) {
  static const std::set<std::string> kClip = {"CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil",
                                              "CLIPFeatureExtractor"};
  static const std::set<std::string> kSiglip = {"SiglipImageProcessor", "SiglipImageProcessorFast",
                                                "SiglipImageProcessorPil"};
  bool found = false;
  for (const char* key : {"feature_extractor_type", "image_processor_type"}) {
    const auto name = reader.get<std::string>(key, "CLIPImageProcessor");
    if (!kClip.contains(name) && !kSiglip.contains(name)) reader.refuse(key, name);
    found = found || kSiglip.contains(name);
  }
  return found;
}

// A switch; null, which newer SigLIP folders have, turns it off as in transformers.
bool is_on(ConfigReader& reader, const Json& settings, const char* key, bool fallback) {
  const bool is_null = settings.contains(key) && settings.at(key).is_null();
  return reader.get<bool>(key, fallback && !is_null);
}

void read_crop(ConfigReader& reader, const Json& settings, bool siglip, PicturePreparation& result) {
  result.crops = is_on(reader, settings, "do_center_crop", !siglip);
  const Json crop = reader.raw("crop_size");
  check_input(!result.crops || !crop.is_null() || !siglip, reader.where(), ": do_center_crop needs 'crop_size'");
  if (crop.is_null()) return;
  const PictureSize size = read_size(crop, reader.where() + ": crop_size");
  result.crop_height = size.height;
  result.crop_width = size.width;
}

void read_pad(ConfigReader& reader, PicturePreparation& result) {
  const bool pads = reader.get<bool>("do_pad", false);
  const Json size = reader.raw("pad_size");
  if (!pads || size.is_null()) return;  // without a size pictures are padded to the largest of a batch, which is one
  const PictureSize padded = read_size(size, reader.where() + ": pad_size");
  result.pad_height = padded.height;
  result.pad_width = padded.width;
}

}  // namespace

PicturePreparation parse_picture_preparation(const Json& settings, const std::string& where) {
  check_input(settings.is_object(), where, ": expected an object of settings");
  ConfigReader reader(settings, where);
  const bool siglip = is_siglip(reader);
  PicturePreparation result;
  result.converts_to_rgb = is_on(reader, settings, "do_convert_rgb", true);
  result.resizes = is_on(reader, settings, "do_resize", true);
  result.filter = read_filter(reader);
  const bool default_to_square = reader.get<bool>("default_to_square", false);
  const Json size = reader.raw("size");
  const Json default_size = siglip ? Json{{"height", 224}, {"width", 224}} : Json{{"shortest_edge", 224}};
  read_resize(size.is_null() ? default_size : size, default_to_square, where + ": size", result);
  read_crop(reader, settings, siglip, result);
  const auto factor = reader.get<double>("rescale_factor", 1.0 / 255);
  result.rescale_factor = is_on(reader, settings, "do_rescale", true) ? factor : 0;
  constexpr std::array<double, 3> kHalf = {0.5, 0.5, 0.5};
  const std::array<double, 3> mean = read_colour(reader, "image_mean", siglip ? kHalf : result.mean);
  const std::array<double, 3> std = read_colour(reader, "image_std", siglip ? kHalf : result.std);
  const bool normalises = is_on(reader, settings, "do_normalize", true);
  result.mean = normalises ? mean : std::array<double, 3>{0, 0, 0};
  result.std = normalises ? std : std::array<double, 3>{1, 1, 1};
  for (const double value : result.std) {
    check_input(static_cast<float>(value) != 0, where, ": 'image_std' has a zero, by which pixels would be divided");
  }
  read_pad(reader, result);
  reader.only("data_format", "channels_first");
  reader.only("use_square_size", false);
  reader.ignore({"processor_class", "input_data_format", "device", "return_tensors", "disable_grouping"});
  reader.finish();
  return result;
}

PicturePreparation read_picture_preparation(const std::filesystem::path& folder, int64_t image_size) {
  const std::filesystem::path whole = folder / "processor_config.json";
  if (std::filesystem::exists(whole)) {
    const Json settings = read_json(whole);
    if (settings.is_object() && settings.contains("image_processor")) {
      return parse_picture_preparation(settings.at("image_processor"), whole.string() + ": image_processor");
    }
  }
  const std::filesystem::path own = folder / "preprocessor_config.json";
  if (std::filesystem::exists(own)) return parse_picture_preparation(read_json(own), own.string());
  return {.shortest_edge = image_size, .crop_height = image_size, .crop_width = image_size};
}

}  // namespace prefusion::reward_models
