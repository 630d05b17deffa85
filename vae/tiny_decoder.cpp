#include "vae/tiny_decoder.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <functional>

#include "core/error.h"
#include "core/safetensors.h"
#include "nn/channels_last.h"

namespace prefusion::vae {
namespace {

nn::Conv2d convolution(int64_t in_channels, int64_t out_channels, bool has_bias = true) {
  return nn::Conv2d(nn::Conv2dOptions{.in_channels = in_channels, .out_channels = out_channels, .has_bias = has_bias});
}

// Three convolutions, named by their places in a sequence with activations between them.
class ConvolutionChain : public torch::nn::Module {
 public:
  ConvolutionChain(int64_t channels, nn::Activation activation) : activation_(activation) {
    for (const char* name : {"0", "2", "4"}) {
      convolutions_.push_back(register_module(name, convolution(channels, channels)));
    }
  }

  at::Tensor forward(at::Tensor x) {
    for (size_t i = 0; i < convolutions_.size(); ++i) {
      if (i > 0) x = activation_(x);
      x = convolutions_[i]->forward(x);
    }
    return x;
  }

 private:
  nn::Activation activation_;
  std::vector<nn::Conv2d> convolutions_;
};

}  // namespace

class TinyDecoder::Block : public torch::nn::Module {
 public:
  Block(int64_t channels, nn::Activation activation) {
    conv_ = register_module("conv", std::make_shared<ConvolutionChain>(channels, activation));
  }

  at::Tensor forward(const at::Tensor& x) { return at::relu(conv_->forward(x) + x); }

 private:
  std::shared_ptr<ConvolutionChain> conv_;
};

// All layers in a row; those without weights have a number too.
class TinyDecoder::Layers : public torch::nn::Module {
 public:
  explicit Layers(const TinyDecoderConfig& config) {
    add(convolution(config.latent_channels, config.block_out_channels[0]));
    steps_.emplace_back(config.activation);
    for (size_t stage = 0; stage < config.num_blocks.size(); ++stage) {
      const int64_t channels = config.block_out_channels[stage];
      const bool is_last = stage + 1 == config.num_blocks.size();
      for (int64_t i = 0; i < config.num_blocks[stage]; ++i) {
        const auto block = register_module(next_name(), std::make_shared<Block>(channels, config.activation));
        steps_.emplace_back([block](const at::Tensor& x) { return block->forward(x); });
      }
      if (!is_last) {
        steps_.emplace_back([factor = config.upsampling_factor](const at::Tensor& x) {
          return at::upsample_nearest2d(x, {x.size(2) * factor, x.size(3) * factor});
        });
      }
      add(convolution(channels, is_last ? config.out_channels : channels, /*has_bias=*/is_last));
    }
  }

  at::Tensor forward(at::Tensor x) {
    for (const auto& step : steps_) x = step(x);
    return x;
  }

 private:
  std::string next_name() const { return std::to_string(steps_.size()); }

  void add(const nn::Conv2d& layer) {
    register_module(next_name(), layer);
    steps_.emplace_back([layer](const at::Tensor& x) { return layer.ptr()->forward(x); });
  }

  std::vector<std::function<at::Tensor(const at::Tensor&)>> steps_;
};

TinyDecoderConfig parse_tiny_decoder_config(const Json& json, const std::string& where) {
  ConfigReader config(json, where);
  const auto name = config.require<std::string>("_class_name");
  if (name != "AutoencoderTiny") config.refuse("_class_name", name);
  config.ignore({"in_channels", "encoder_block_out_channels", "num_encoder_blocks", "block_out_channels",
                 "force_upcast", "latent_magnitude", "latent_shift"});
  TinyDecoderConfig result;
  result.latent_channels = config.get<int64_t>("latent_channels", 4);
  result.out_channels = config.get<int64_t>("out_channels", 3);
  result.block_out_channels = config.get<std::vector<int64_t>>("decoder_block_out_channels", {64, 64, 64, 64});
  result.num_blocks = config.get<std::vector<int64_t>>("num_decoder_blocks", {3, 3, 3, 1});
  result.upsampling_factor = config.get<int64_t>("upsampling_scaling_factor", 2);
  result.scaling_factor = config.get<double>("scaling_factor", 1.0);
  result.shift_factor = config.get<double>("shift_factor", 0.0);
  const auto activation = config.get<std::string>("act_fn", "relu");
  result.activation = nn::activation_by_name(activation, where);
  config.only<std::string>("upsample_fn", "nearest");
  config.finish();
  check_input(!result.num_blocks.empty() && result.num_blocks.size() == result.block_out_channels.size(), where,
              ": 'num_decoder_blocks' has ", result.num_blocks.size(), " entries, 'decoder_block_out_channels' ",
              result.block_out_channels.size(), "; they must be equal, and not empty");
  for (size_t i = 0; i < result.num_blocks.size(); ++i) {
    check_input(result.num_blocks[i] >= 0 && result.block_out_channels[i] > 0 &&
                    result.block_out_channels[i] == result.block_out_channels[0],
                where, ": all 'decoder_block_out_channels' must be the same positive number, found ",
                shape_text(result.block_out_channels));
  }
  check_input(result.latent_channels > 0 && result.out_channels == 3 && result.upsampling_factor > 0 &&
                  result.scaling_factor != 0,
              where, ": expected positive 'latent_channels' and 'upsampling_scaling_factor', 3 'out_channels' and a ",
              "'scaling_factor' other than 0");
  return result;
}

TinyDecoder::TinyDecoder(const TinyDecoderConfig& config) : config_(config) {
  auto decoder = std::make_shared<torch::nn::Module>();
  layers_ = decoder->register_module("layers", std::make_shared<Layers>(config));
  register_module("decoder", decoder);
}

int64_t TinyDecoder::scale_factor_px() const {
  int64_t factor = 1;
  for (size_t stage = 1; stage < config_.num_blocks.size(); ++stage) factor *= config_.upsampling_factor;
  return factor;
}

at::Tensor TinyDecoder::decode(const at::Tensor& latents) {
  const at::NoGradGuard no_grad;
  check_input(latents.dim() == 4 && latents.size(1) == config_.latent_channels,
              "AutoencoderTiny: expected latents [B, ", config_.latent_channels, ", H, W], found ",
              shape_text(latents.sizes()));
  const at::Tensor input =
      (latents / config_.scaling_factor + config_.shift_factor).to(parameters().front().scalar_type());
  return (layers_->forward(at::tanh(input / 3) * 3) * 2 - 1).to(at::kFloat);
}

std::shared_ptr<TinyDecoder> load_tiny_decoder(const std::filesystem::path& folder, at::ScalarType dtype,
                                               at::Device device) {
  const std::filesystem::path config_path = folder / "config.json";
  auto decoder = std::make_shared<TinyDecoder>(parse_tiny_decoder_config(read_json(config_path), config_path.string()));
  TensorMap weights = read_weights(folder, "diffusion_pytorch_model");
  std::erase_if(weights, [](const auto& entry) { return entry.first.starts_with("encoder."); });
  nn::load_module(*decoder, weights, dtype, device, folder.string());
  nn::to_fastest_layout(*decoder);
  decoder->eval();
  return decoder;
}

}  // namespace prefusion::vae
