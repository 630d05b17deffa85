#include "nn/feed_forward.h"

#include <ATen/ATen.h>

#include <memory>

#include "core/error.h"
#include "kernels/geglu/geglu.h"

namespace prefusion::nn {

FeedForwardImpl::Kind FeedForwardImpl::parse_kind(const std::string& activation) {
  if (activation == "geglu") return Kind::kGeglu;
  if (activation == "gelu") return Kind::kGelu;
  if (activation == "gelu-approximate") return Kind::kGeluTanh;
  if (activation == "geglu-approximate") return Kind::kQuickGelu;
  fail_input("feed-forward activation '", activation, "' is not supported");
}

FeedForwardImpl::FeedForwardImpl(int64_t dim, const std::string& activation, int64_t mult)
    : kind_(parse_kind(activation)) {
  const int64_t inner_dim = dim * mult;
  proj_ = Linear(dim, kind_ == Kind::kGeglu ? 2 * inner_dim : inner_dim);
  out_ = Linear(inner_dim, dim);
  // The public keys are "net.0.proj" and "net.2": index 1 was a dropout.
  const auto net = register_module("net", std::make_shared<torch::nn::Module>());
  net->register_module("0", std::make_shared<torch::nn::Module>())->register_module("proj", proj_);
  net->register_module("2", out_);
}

at::Tensor FeedForwardImpl::forward(const at::Tensor& hidden_states) {
  const at::Tensor projected = proj_->forward(hidden_states);
  switch (kind_) {
    case Kind::kGeglu: return out_->forward(kernels::geglu(projected));
    case Kind::kGelu: return out_->forward(at::gelu(projected));
    case Kind::kGeluTanh: return out_->forward(at::gelu(projected, "tanh"));
    case Kind::kQuickGelu: return out_->forward(projected * at::sigmoid(1.702 * projected));
  }
  return {};
}

}  // namespace prefusion::nn
