#include "unet/flux_config.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"

namespace prefusion::unet {
namespace {

constexpr size_t kNumAxes = 3;
constexpr int64_t kPackedPixels = 4;  // of a token

int64_t at_least(ConfigReader& config, const std::string& key, int64_t lowest, int64_t fallback) {
  const int64_t value = config.get<int64_t>(key, fallback);
  check_input(value >= lowest, config.where(), ": '", key, "' must be at least ", lowest, ", found ", value);
  return value;
}

std::vector<int64_t> read_axes(ConfigReader& config, int64_t head_dim) {
  const auto axes = config.get<std::vector<int64_t>>("axes_dims_rope", {16, 56, 56});
  const bool is_even = std::all_of(axes.begin(), axes.end(), [](int64_t dim) { return dim >= 0 && dim % 2 == 0; });
  const int64_t sum = std::accumulate(axes.begin(), axes.end(), int64_t{0});
  check_input(axes.size() == kNumAxes && is_even && sum == head_dim, config.where(),
              ": 'axes_dims_rope' = ", shape_text(axes), ": expected ", kNumAxes,
              " even numbers whose sum is 'attention_head_dim' = ", head_dim);
  return axes;
}

void check_packed(const ConfigReader& config, const char* what, int64_t channels) {
  check_input(channels % kPackedPixels == 0, config.where(), ": ", what, " = ", channels,
              " do not unpack into 2 x 2 latent pixels; expected a multiple of ", kPackedPixels);
}

}  // namespace

FluxConfig parse_flux_config(const Json& json, const std::string& where) {
  ConfigReader config(json, where);
  config.only<std::string>("_class_name", "FluxTransformer2DModel");
  FluxConfig result;
  result.patch_size = at_least(config, "patch_size", 1, result.patch_size);
  result.in_channels = at_least(config, "in_channels", 1, result.in_channels);
  // Absent, null and 0 all mean "as many as in_channels".
  const int64_t out_channels = at_least(config, "out_channels", 0, 0);
  result.out_channels = out_channels > 0 ? out_channels : result.in_channels;
  check_packed(config, "'in_channels'", result.in_channels);
  check_packed(config, "'patch_size'^2 * 'out_channels'", result.patch_size * result.patch_size * result.out_channels);
  result.num_layers = at_least(config, "num_layers", 0, result.num_layers);
  result.num_single_layers = at_least(config, "num_single_layers", 0, result.num_single_layers);
  result.head_dim = at_least(config, "attention_head_dim", 1, result.head_dim);
  result.num_heads = at_least(config, "num_attention_heads", 1, result.num_heads);
  result.joint_attention_dim = at_least(config, "joint_attention_dim", 1, result.joint_attention_dim);
  result.pooled_projection_dim = at_least(config, "pooled_projection_dim", 1, result.pooled_projection_dim);
  result.guidance_embeds = config.get<bool>("guidance_embeds", result.guidance_embeds);
  result.axes_dims_rope = read_axes(config, result.head_dim);
  config.finish();
  return result;
}

}  // namespace prefusion::unet
