#include "nn/channels_last.h"

#include <ATen/core/grad_mode.h>

#include "nn/layers.h"

namespace prefusion::nn {
namespace {

template <typename Predicate>
void reorder_where(torch::nn::Module& module, const Predicate& is_wanted) {
  const at::NoGradGuard no_grad;
  for (const auto& child : module.modules()) {
    auto* conv = child->as<Conv2dImpl>();
    if (conv == nullptr || !is_wanted(conv->weight)) continue;
    conv->weight.set_data(conv->weight.detach().contiguous(at::MemoryFormat::ChannelsLast));
  }
}

bool is_half_on_gpu(const at::Tensor& weight) {
  return weight.is_cuda() && (weight.scalar_type() == at::kBFloat16 || weight.scalar_type() == at::kHalf);
}

}  // namespace

bool is_channels_last(const at::Tensor& pictures) {
  return pictures.dim() == 4 && pictures.is_contiguous(at::MemoryFormat::ChannelsLast) && !pictures.is_contiguous();
}

void to_channels_last(torch::nn::Module& module) {
  reorder_where(module, [](const at::Tensor&) { return true; });
}

void to_fastest_layout(torch::nn::Module& module) {
  reorder_where(module, is_half_on_gpu);
}

}  // namespace prefusion::nn
