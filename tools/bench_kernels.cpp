#include <ATen/ATen.h>

#include <algorithm>

#include "core/rng.h"
#include "kernels/gated_residual/gated_residual.h"
#include "kernels/geglu/geglu.h"
#include "kernels/group_norm/group_norm.h"
#include "kernels/guided_step/guided_step.h"
#include "kernels/item_error/item_error.h"
#include "kernels/layer_norm_modulate/layer_norm_modulate.h"
#include "kernels/linear_rows/linear_rows.h"
#include "kernels/noise_and_target/noise_and_target.h"
#include "kernels/rms_norm_rotary/rms_norm_rotary.h"
#include "nn/lean_ops.h"
#include "nn/rotary_embedding.h"
#include "tools/bench_contest.h"
#include "tools/bench_parts.h"

namespace prefusion::tools {
namespace {

// The gradient of all inputs, which any backward pass computes.
void differentiate(const at::Tensor& output, const std::vector<at::Tensor>& inputs) {
  output.backward(at::ones_like(output));
  for (const at::Tensor& input : inputs) input.mutable_grad().reset();
}

// Latents of pairs: [B, 2, C, h, w].
struct LatentShape {
  const char* name;
  int64_t channels, side;
};

void bench_noise(std::vector<BenchRow>& rows, const LatentShape& shape, const BenchOptions& options) {
  const int64_t groups = 4;
  const auto like = at::TensorOptions().device(options.device);
  const at::Tensor latents = at::randn({groups, 2, shape.channels, shape.side, shape.side}, like);
  const at::Tensor signal = at::full({groups, 2}, 0.8, like), noise = at::full({groups, 2}, 0.6, like);
  const at::Tensor streams = at::arange(groups, at::kLong).to(options.device);
  add_contest(
      rows,
      {.name = std::string("noise and target, pairs of ") + shape.name,
       .ours = [=] { kernels::noise_and_target(latents, streams, 0, signal, noise, PredictionType::kVPrediction); },
       .theirs =
           [=] {
             const at::Tensor drawn = at::randn_like(latents.select(1, 0)).unsqueeze(1);
             const at::Tensor a = signal.view({groups, 2, 1, 1, 1}), b = noise.view({groups, 2, 1, 1, 1});
             (void)(a * latents + b * drawn);
             (void)(a * drawn - b * latents);
           },
       .bytes = 3.0 * static_cast<double>(latents.nbytes())},
      options);
}

void bench_error(std::vector<BenchRow>& rows, const LatentShape& shape, const BenchOptions& options) {
  const at::Tensor target =
      at::randn({8, shape.channels, shape.side, shape.side}, at::TensorOptions().device(options.device));
  const at::Tensor prediction = at::randn_like(target).to(options.dtype).requires_grad_();
  const double read = static_cast<double>(prediction.nbytes() + target.nbytes());
  const auto own = [=] { return kernels::item_error(prediction, target); };
  const auto composed = [=] { return (prediction.to(at::kFloat) - target).square().flatten(1).mean(1); };
  const std::string name = std::string("error of an item, 8 of ") + shape.name;
  add_contest(rows,
              {.name = name + ", forward and backward",
               .ours = [=] { differentiate(own(), {prediction}); },
               .theirs = [=] { differentiate(composed(), {prediction}); },
               .bytes = 2 * read + static_cast<double>(prediction.nbytes())},
              options);
}

void bench_guided_step(std::vector<BenchRow>& rows, const LatentShape& shape, const BenchOptions& options) {
  const at::Tensor both = at::randn({2, shape.channels, shape.side, shape.side},
                                    at::TensorOptions().device(options.device).dtype(options.dtype));
  const at::Tensor sample = at::randn_like(both.slice(0, 0, 1));
  const kernels::LinearStep step{.keep = 0.9, .move = -0.2};
  add_contest(rows,
              {.name = std::string("guidance and step, 1 of ") + shape.name,
               .ours = [=] { kernels::guided_step(both, sample, 7.5, step); },
               .theirs =
                   [=] {
                     const auto halves = both.chunk(2);
                     const at::Tensor guided = halves[0] + 7.5 * (halves[1] - halves[0]);
                     (void)(step.keep * sample + step.move * guided);
                   },
               .bytes = 2.5 * static_cast<double>(both.nbytes())},
              options);
}

// Activations [B, C, side, side] of a UNet.
void bench_group_norm(std::vector<BenchRow>& rows, int64_t channels, int64_t side, const BenchOptions& options) {
  const auto like = at::TensorOptions().device(options.device).dtype(options.dtype);
  const at::Tensor input = at::randn({2, channels, side, side}, like).requires_grad_();
  const at::Tensor weight = at::ones({channels}, like), bias = at::zeros({channels}, like);
  const std::string name = "group norm and silu, 2 of " + std::to_string(channels) + " x " + std::to_string(side) +
                           " x " + std::to_string(side) + ", forward and backward";
  add_contest(rows,
              {.name = name,
               .ours = [=] { differentiate(nn::group_norm_silu(input, 32, weight, bias, 1e-5), {input}); },
               .theirs = [=] { differentiate(at::silu(at::group_norm(input, 32, weight, bias, 1e-5)), {input}); },
               .bytes = 5.0 * static_cast<double>(input.nbytes())},
              options);
}

// What `ours` and `theirs` compute from inputs that need gradients: a pass forward alone, and one with the gradients.
// Bytes are what has to be moved.
struct Operations {
  std::string name;
  std::function<at::Tensor()> ours, theirs;
  std::vector<at::Tensor> inputs;
  double forward_bytes = 0, backward_bytes = 0;
};

void add_contests(std::vector<BenchRow>& rows, const Operations& operations, const BenchOptions& options) {
  const auto forward = [](const std::function<at::Tensor()>& operation) {
    return [operation] {
      const at::NoGradGuard no_grad;
      operation();
    };
  };
  const auto both = [inputs = operations.inputs](const std::function<at::Tensor()>& operation) {
    return [operation, inputs] { differentiate(operation(), inputs); };
  };
  add_contest(rows,
              {.name = operations.name + ", forward",
               .ours = forward(operations.ours),
               .theirs = forward(operations.theirs),
               .bytes = operations.forward_bytes},
              options);
  add_contest(rows,
              {.name = operations.name + ", forward and backward",
               .ours = both(operations.ours),
               .theirs = both(operations.theirs),
               .bytes = operations.forward_bytes + operations.backward_bytes},
              options);
}

void bench_geglu(std::vector<BenchRow>& rows, int64_t tokens, int64_t width, const BenchOptions& options) {
  const at::Tensor input =
      at::randn({2, tokens, 2 * width}, at::TensorOptions().device(options.device).dtype(options.dtype))
          .requires_grad_();
  const double bytes = static_cast<double>(input.nbytes());
  const auto composed = [=] {
    const auto halves = input.chunk(2, -1);
    return halves[0] * at::gelu(halves[1]);
  };
  add_contests(rows,
               {.name = "geglu, 2 of " + std::to_string(tokens) + " x " + std::to_string(width),
                .ours = [=] { return kernels::geglu(input); },
                .theirs = composed,
                .inputs = {input},
                .forward_bytes = 1.5 * bytes,
                .backward_bytes = 2.5 * bytes},
               options);
}

// The second norm of a residual block, where pictures are in channels-last memory.
void bench_group_norm_of_sum(std::vector<BenchRow>& rows, int64_t channels, int64_t side, const BenchOptions& options) {
  const auto like = at::TensorOptions().device(options.device).dtype(options.dtype);
  const at::Tensor input =
      at::randn({2, channels, side, side}, like).contiguous(at::MemoryFormat::ChannelsLast).requires_grad_();
  const at::Tensor time = at::randn({2, channels}, like).requires_grad_();
  const at::Tensor weight = at::ones({channels}, like), bias = at::zeros({channels}, like);
  const double bytes = static_cast<double>(input.nbytes());
  const auto composed = [=] {
    return at::silu(at::group_norm(input + time.unsqueeze(-1).unsqueeze(-1), 32, weight, bias, 1e-5));
  };
  add_contests(rows,
               {.name = "group norm of a sum and silu, channels-last, 2 of " + std::to_string(channels) + " x " +
                        std::to_string(side) + " x " + std::to_string(side),
                .ours = [=] { return kernels::group_norm(input, time, weight, bias, {.with_silu = true}); },
                .theirs = composed,
                .inputs = {input, time},
                .forward_bytes = 2 * bytes,
                .backward_bytes = 3 * bytes},
               options);
}

void bench_modulated_norm(std::vector<BenchRow>& rows, int64_t tokens, int64_t width, const BenchOptions& options) {
  const auto like = at::TensorOptions().device(options.device).dtype(options.dtype);
  const at::Tensor input = at::randn({2, tokens, width}, like).requires_grad_();
  const at::Tensor scale = at::randn({2, width}, like).requires_grad_();
  const at::Tensor shift = at::randn({2, width}, like).requires_grad_();
  const double bytes = static_cast<double>(input.nbytes());
  const auto composed = [=] {
    const at::Tensor normed = at::layer_norm(input, {width}, /*weight=*/{}, /*bias=*/{}, 1e-6);
    return at::addcmul(shift.unsqueeze(1), normed, 1 + scale.unsqueeze(1));
  };
  add_contests(rows,
               {.name = "modulated layer norm, 2 of " + std::to_string(tokens) + " x " + std::to_string(width),
                .ours = [=] { return kernels::layer_norm_modulate(input, scale, shift); },
                .theirs = composed,
                .inputs = {input, scale, shift},
                .forward_bytes = 2 * bytes,
                .backward_bytes = 3 * bytes},
               options);
}

void bench_gated_residual(std::vector<BenchRow>& rows, int64_t tokens, int64_t width, const BenchOptions& options) {
  const auto like = at::TensorOptions().device(options.device).dtype(options.dtype);
  const at::Tensor states = at::randn({2, tokens, width}, like).requires_grad_();
  const at::Tensor output = at::randn({2, tokens, width}, like).requires_grad_();
  const at::Tensor gate = at::randn({2, width}, like).requires_grad_();
  const double bytes = static_cast<double>(states.nbytes());
  add_contests(rows,
               {.name = "gated residual, 2 of " + std::to_string(tokens) + " x " + std::to_string(width),
                .ours = [=] { return kernels::gated_residual(states, output, gate); },
                .theirs = [=] { return at::addcmul(states, gate.unsqueeze(1), output); },
                .inputs = {states, output, gate},
                .forward_bytes = 3 * bytes,
                .backward_bytes = 3 * bytes},
               options);
}

// Queries or keys of FLUX.1 at 1024 pixels, and of SD3.5, which turns nothing.
void bench_heads(std::vector<BenchRow>& rows, int64_t heads, int64_t tokens, int64_t width, bool is_turned,
                 const BenchOptions& options) {
  const auto like = at::TensorOptions().device(options.device).dtype(options.dtype);
  const at::Tensor states =
      at::randn({1, tokens, heads, width}, like).transpose(1, 2).requires_grad_();  // as a projection has them
  const at::Tensor weight = at::ones({width}, like);
  const at::Tensor angles = at::rand({tokens, width / 2}, like.dtype(at::kFloat));
  const nn::RotaryEmbedding rotary{.cosines = at::cos(angles), .sines = at::sin(angles)};
  const double bytes = static_cast<double>(states.nbytes());
  const auto composed = [=] {
    const at::Tensor normed = at::rms_norm(states, {width}, weight, 1e-6);
    return is_turned ? nn::apply_rotary(normed, rotary) : normed;
  };
  const kernels::RotaryAngles given =
      is_turned ? kernels::RotaryAngles{rotary.cosines, rotary.sines} : kernels::RotaryAngles{};
  add_contests(rows,
               {.name = std::string(is_turned ? "rms norm and rotary" : "rms norm of heads") + ", " +
                        std::to_string(tokens) + " x " + std::to_string(heads) + " heads of " + std::to_string(width),
                .ours = [=] { return kernels::rms_norm_rotary(states, weight, 1e-6, given); },
                .theirs = composed,
                .inputs = {states},
                .forward_bytes = 2 * bytes,
                .backward_bytes = 3 * bytes},
               options);
}

// Texts whose rows must not depend on their company: ours takes them together, ATen one by one.
void bench_linear_rows(std::vector<BenchRow>& rows, int64_t inputs, int64_t outputs, const BenchOptions& options) {
  if (options.device != at::kCPU) return;
  const int64_t texts = 8, tokens = 15;
  const at::Tensor input = at::randn({texts * tokens, inputs});
  const at::Tensor weight = at::randn({outputs, inputs}), bias = at::randn({outputs});
  add_contest(rows,
              {.name = "linear rows, 8 of 15 x " + std::to_string(inputs) + " to " + std::to_string(outputs),
               .ours = [=] { kernels::linear_rows(input, weight, bias); },
               .theirs =
                   [=] {
                     for (const at::Tensor& text : input.split(tokens)) at::linear(text, weight, bias);
                   },
               .bytes = static_cast<double>(input.nbytes() + weight.nbytes())},
              options);
}

// Attention is ATen's: a row shows how close it comes to a matrix product.
void bench_attention(std::vector<BenchRow>& rows, int64_t heads, int64_t queries, int64_t keys, int64_t width,
                     const BenchOptions& options) {
  const auto like = at::TensorOptions().device(options.device).dtype(options.dtype);
  const at::Tensor query = at::randn({2, heads, queries, width}, like).requires_grad_();
  const at::Tensor key = at::randn({2, heads, keys, width}, like).requires_grad_();
  const at::Tensor value = at::randn({2, heads, keys, width}, like).requires_grad_();
  const std::string name = "attention, 2 x " + std::to_string(heads) + " heads of " + std::to_string(width) + ", " +
                           std::to_string(queries) + " queries, " + std::to_string(keys) + " keys";
  if (!is_wanted(name, options)) return;
  const auto run = [=] { return at::scaled_dot_product_attention(query, key, value); };
  const auto forward = [=] {
    const at::NoGradGuard no_grad;
    run();
  };
  const auto both = [=] { differentiate(run(), {query, key, value}); };
  rows.push_back({.name = name + ", forward", .timing = time_runs(forward, options.device, options.repeats)});
  rows.push_back({.name = name + ", forward and backward", .timing = time_runs(both, options.device, options.repeats)});
}

}  // namespace

std::vector<BenchRow> bench_kernels(const BenchOptions& options) {
  std::vector<BenchRow> rows;
  for (const LatentShape& shape : {LatentShape{"4 x 64 x 64", 4, 64}, LatentShape{"16 x 128 x 128", 16, 128}}) {
    bench_noise(rows, shape, options);
    bench_error(rows, shape, options);
    bench_guided_step(rows, shape, options);
  }
  bench_group_norm(rows, 320, 64, options);
  bench_group_norm(rows, 1280, 16, options);
  // Stable Diffusion 1 at 512 pixels, and the last level of its decoder.
  bench_group_norm_of_sum(rows, 320, 64, options);
  bench_group_norm_of_sum(rows, 640, 32, options);
  bench_group_norm_of_sum(rows, 1280, 16, options);
  bench_group_norm_of_sum(rows, 128, 256, options);
  // The feed-forward layers of Stable Diffusion 1 at 512 pixels.
  bench_geglu(rows, 4096, 1280, options);
  bench_geglu(rows, 1024, 2560, options);
  bench_geglu(rows, 256, 5120, options);
  // PixArt and SD3 medium at 512 pixels, FLUX.1 at 1024.
  bench_modulated_norm(rows, 1024, 1152, options);
  bench_modulated_norm(rows, 1024, 1536, options);
  bench_modulated_norm(rows, 4096, 3072, options);
  bench_gated_residual(rows, 1024, 1536, options);
  bench_gated_residual(rows, 4096, 3072, options);
  bench_heads(rows, 24, 4608, 128, /*is_turned=*/true, options);
  bench_heads(rows, 24, 4096, 64, /*is_turned=*/false, options);
  bench_adamw(rows, /*layers=*/1, 1 << 24, options);
  bench_adamw(rows, /*layers=*/256, 1 << 14, options);
  bench_adamw_8bit(rows, 1 << 22, options);
  // The text tower of ViT-H/14.
  bench_linear_rows(rows, 1024, 4096, options);
  bench_linear_rows(rows, 4096, 1024, options);
  // The largest of Stable Diffusion 1 at 512 pixels, self and cross; SDXL's at 1024 pixels.
  bench_attention(rows, 8, 4096, 4096, 40, options);
  bench_attention(rows, 8, 4096, 77, 40, options);
  bench_attention(rows, 10, 4096, 4096, 64, options);
  bench_attention(rows, 20, 1024, 77, 64, options);
  return rows;
}

}  // namespace prefusion::tools
