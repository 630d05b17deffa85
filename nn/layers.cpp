#include "nn/layers.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "core/error.h"
#include "kernels/group_norm/group_norm.h"
#include "nn/channels_last.h"
#include "nn/lean_ops.h"
#include "nn/lora_linear.h"
#include "nn/patch_embedding.h"
#include "nn/product_conv2d.h"
#include "nn/resting_weight.h"
#include "nn/rms_norm.h"

namespace prefusion::nn {
namespace {

at::Tensor parameter_storage(at::IntArrayRef shape) {
  return at::empty(shape, at::kFloat);
}

// Low-rank products run in the dtype of the adapter's input, whatever the adapter is kept in: fp32 adapters beside a
// half-precision base stay the master copy.
at::Tensor in_dtype_of(const at::Tensor& weight, const at::Tensor& input) {
  return weight.scalar_type() == input.scalar_type() ? weight : weight.to(input.scalar_type());
}

// low [B, ...] times the branch's weight of each item; on the low-rank side, where it costs least.
at::Tensor weighted_items(const at::Tensor& low, const LoraBranch& branch) {
  if (!branch.item_weights) return low;
  const at::Tensor& weights = *branch.item_weights;
  check_run(weights.defined() && weights.size(0) == low.size(0),
            "an adapter that depends on the timestep met a batch of ", low.size(0),
            " without the timesteps of its items");
  std::vector<int64_t> shape(low.dim(), 1);
  shape[0] = -1;
  return low * weights.to(low.scalar_type()).view(shape);
}

at::Tensor convolve(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias, int64_t stride,
                    int64_t padding) {
  if (is_faster_as_product(input, weight, stride, padding)) {
    return product_conv2d(input, weight, bias, stride, padding);
  }
  if (keeps_too_much(input, weight, bias)) return frozen_conv2d(input, weight, bias, stride, padding);
  return at::conv2d(input, weight, bias, {stride, stride}, {padding, padding});
}

}  // namespace

at::Device LoraTarget::compute_device() {
  const bool is_streamed = resting_weight_ && resting_weight_->stream;
  return is_streamed ? resting_weight_->stream->device() : base_weight().device();
}

at::ScalarType LoraTarget::compute_dtype() {
  return resting_weight_ ? resting_weight_->dtype : base_weight().scalar_type();
}

LinearImpl::LinearImpl(int64_t in_features, int64_t out_features, bool has_bias) {
  weight = register_parameter("weight", parameter_storage({out_features, in_features}));
  if (has_bias) bias = register_parameter("bias", parameter_storage({out_features}));
}

// One branch of the kind that is trained most, beside a layer that is not.
bool LinearImpl::has_one_plain_branch() const {
  const auto is_trained = [](const at::Tensor& tensor) { return tensor.defined() && tensor.requires_grad(); };
  return lora_branches_.size() == 1 && !lora_branches_[0].item_weights && !is_trained(weight) && !is_trained(bias);
}

at::Tensor LinearImpl::forward(const at::Tensor& input) {
  if (lora_enabled_ && has_one_plain_branch() && input.dim() > 1) {
    const LoraBranch& branch = lora_branches_[0];
    return lora_linear(input, {weight, resting_weight_, bias}, in_dtype_of(branch.A, input),
                       in_dtype_of(branch.B, input), branch.scale);
  }
  at::Tensor output = resting_weight_ ? resting_linear(input, resting_weight_, bias) : at::linear(input, weight, bias);
  if (!lora_enabled_) return output;
  for (const LoraBranch& branch : lora_branches_) {
    // output + scale * low B^T in one product.
    const at::Tensor low = weighted_items(at::linear(input, in_dtype_of(branch.A, input)), branch).flatten(0, -2);
    const at::Tensor transposed_b = in_dtype_of(branch.B, input).t();
    output =
        at::addmm(output.flatten(0, -2), low, transposed_b, /*beta=*/1, /*alpha=*/branch.scale).view(output.sizes());
  }
  return output;
}

Conv2dImpl::Conv2dImpl(const Conv2dOptions& o) : options(o) {
  weight =
      register_parameter("weight", parameter_storage({o.out_channels, o.in_channels, o.kernel_size, o.kernel_size}));
  if (o.has_bias) bias = register_parameter("bias", parameter_storage({o.out_channels}));
}

at::Tensor Conv2dImpl::forward(const at::Tensor& input) {
  const auto stride = options.stride;
  const auto padding = options.padding;
  at::Tensor output = resting_weight_ ? resting_conv2d(input, resting_weight_, bias, stride, padding)
                                      : convolve(input, weight, bias, stride, padding);
  if (!lora_enabled_) return output;
  for (const LoraBranch& branch : lora_branches_) {
    const at::Tensor down = convolve(input, in_dtype_of(branch.A, input), {}, stride, padding);
    const at::Tensor low = weighted_items(down, branch);
    output = output + branch.scale * convolve(low, in_dtype_of(branch.B, input), {}, /*stride=*/1, /*padding=*/0);
  }
  return output;
}

GroupNormImpl::GroupNormImpl(int64_t num_groups, int64_t num_channels, double eps)
    : num_groups_(num_groups), eps_(eps) {
  check_input(num_groups > 0 && num_channels % num_groups == 0, "GroupNorm: ", num_channels,
              " channels do not divide into ", num_groups, " groups");
  weight = register_parameter("weight", parameter_storage({num_channels}));
  bias = register_parameter("bias", parameter_storage({num_channels}));
}

at::Tensor GroupNormImpl::in_channels_last(const at::Tensor& input, const at::Tensor& added, bool with_silu) {
  return kernels::group_norm(input, added, weight, bias,
                             {.num_groups = num_groups_, .eps = eps_, .with_silu = with_silu});
}

at::Tensor GroupNormImpl::forward(const at::Tensor& input) {
  if (is_channels_last(input)) return in_channels_last(input, /*added=*/{}, /*with_silu=*/false);
  return at::group_norm(input, num_groups_, weight, bias, eps_);
}

at::Tensor GroupNormImpl::forward_activated(const at::Tensor& input, Activation activation, const at::Tensor& added) {
  if (activation == &silu && is_channels_last(input)) return in_channels_last(input, added, /*with_silu=*/true);
  const at::Tensor sum = added.defined() ? input + added.unsqueeze(-1).unsqueeze(-1) : input;
  if (activation == &silu) return group_norm_silu(sum, num_groups_, weight, bias, eps_);
  return activation(forward(sum));
}

LayerNormImpl::LayerNormImpl(int64_t dim, double eps) : eps_(eps) {
  weight = register_parameter("weight", parameter_storage({dim}));
  bias = register_parameter("bias", parameter_storage({dim}));
}

at::Tensor LayerNormImpl::forward(const at::Tensor& input) {
  return at::layer_norm(input, {input.size(-1)}, weight, bias, eps_);
}

EmbeddingImpl::EmbeddingImpl(int64_t num_embeddings, int64_t dim) {
  weight = register_parameter("weight", parameter_storage({num_embeddings, dim}));
}

at::Tensor EmbeddingImpl::forward(const at::Tensor& ids) {
  return at::embedding(weight, ids);
}

at::Tensor silu(const at::Tensor& input) {
  return at::silu(input);
}

Activation activation_by_name(const std::string& name, const std::string& where) {
  if (name == "silu" || name == "swish") return &silu;
  if (name == "gelu") return [](const at::Tensor& x) { return at::gelu(x); };
  if (name == "gelu_new" || name == "gelu_pytorch_tanh") return [](const at::Tensor& x) { return at::gelu(x, "tanh"); };
  if (name == "quick_gelu") return [](const at::Tensor& x) { return x * at::sigmoid(1.702 * x); };
  if (name == "relu") return [](const at::Tensor& x) { return at::relu(x); };
  if (name == "mish") return [](const at::Tensor& x) { return at::mish(x); };
  fail_input(where, ": activation '", name, "' is not supported");
}

std::vector<NamedTensor> named_tensors(const torch::nn::Module& module) {
  std::vector<NamedTensor> tensors;
  for (const auto& item : module.named_parameters()) tensors.push_back({item.key(), item.value()});
  for (const auto& item : module.named_buffers()) tensors.push_back({item.key(), item.value()});
  return tensors;
}

TensorMap tensor_map(const torch::nn::Module& module) {
  TensorMap map;
  for (const auto& [name, tensor] : named_tensors(module)) map.emplace(name, tensor.detach());
  return map;
}

void load_module(torch::nn::Module& module, const TensorMap& weights, std::optional<at::ScalarType> dtype,
                 at::Device device, const std::string& where) {
  load_weights_strict(named_tensors(module), weights, dtype, device, where);
}

void init_weights(torch::nn::Module& module, at::Generator generator) {
  at::NoGradGuard no_grad;
  const auto uniform = [&](at::Tensor& tensor, double bound) {
    if (tensor.defined()) tensor.uniform_(-bound, bound, generator);
  };
  for (const auto& child : module.modules()) {
    if (auto* linear = child->as<LinearImpl>()) {
      const double bound = 1.0 / std::sqrt(static_cast<double>(linear->weight.size(1)));
      uniform(linear->weight, bound);
      uniform(linear->bias, bound);
    } else if (auto* conv = child->as<Conv2dImpl>()) {
      const double bound = 1.0 / std::sqrt(static_cast<double>(conv->weight[0].numel()));
      uniform(conv->weight, bound);
      uniform(conv->bias, bound);
    } else if (auto* group_norm = child->as<GroupNormImpl>()) {
      group_norm->weight.fill_(1);
      group_norm->bias.zero_();
    } else if (auto* layer_norm = child->as<LayerNormImpl>()) {
      layer_norm->weight.fill_(1);
      layer_norm->bias.zero_();
    } else if (auto* rms_norm = child->as<RMSNormImpl>()) {
      if (rms_norm->weight.defined()) rms_norm->weight.fill_(1);
    } else if (auto* embedding = child->as<EmbeddingImpl>()) {
      embedding->weight.normal_(0.0, 0.02, generator);
    } else if (auto* patches = child->as<PatchEmbeddingImpl>()) {
      if (patches->pos_embed.defined()) patches->pos_embed.copy_(patches->position_grid());
    }
    if (auto* own = dynamic_cast<InitializesItself*>(child.get())) own->init_own_weights(generator);
  }
}

}  // namespace prefusion::nn
