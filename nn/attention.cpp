#include "nn/attention.h"

#include <ATen/ATen.h>

#include <utility>

#include "core/error.h"
#include "kernels/attention/attention.h"

namespace prefusion::nn {

AttentionImpl::AttentionImpl(const AttentionOptions& options) : options_(options) {
  check_input(options.num_heads > 0 && options.head_dim > 0, "attention: ", options.num_heads, " heads of ",
              options.head_dim, " channels on ", options.query_dim, " channels");
  const int64_t inner_dim = options.num_heads * options.head_dim;
  const int64_t context_dim = options.cross_attention_dim ? options.cross_attention_dim : options.query_dim;
  if (options.norm_num_groups > 0) {
    group_norm = register_module("group_norm", GroupNorm(options.norm_num_groups, options.query_dim, options.norm_eps));
  }
  to_q = register_module("to_q", Linear(options.query_dim, inner_dim, options.has_qkv_bias));
  to_k = register_module("to_k", Linear(context_dim, inner_dim, options.has_qkv_bias));
  to_v = register_module("to_v", Linear(context_dim, inner_dim, options.has_qkv_bias));
  to_out_ = Linear(inner_dim, options.query_dim);
  // The public key is "to_out.0": index 1 was a dropout.
  register_module("to_out", std::make_shared<torch::nn::Module>())->register_module("0", to_out_);
}

at::Tensor AttentionImpl::attend(const at::Tensor& hidden_states, const at::Tensor& context,
                                 const at::Tensor& user_states, const at::Tensor& context_bias) {
  const at::Tensor& source = context.defined() ? context : hidden_states;
  const auto split_heads = [&](const at::Tensor& x) {  // [B, N, heads * d] -> [B, heads, N, d]
    return x.view({x.size(0), x.size(1), options_.num_heads, options_.head_dim}).transpose(1, 2);
  };
  const at::Tensor query = split_heads(to_q->forward(hidden_states));
  const at::Tensor key = split_heads(to_k->forward(source));
  const at::Tensor value = split_heads(to_v->forward(source));
  at::Tensor mixed = context_bias.defined() ? at::scaled_dot_product_attention(query, key, value, context_bias)
                                            : kernels::attention(query, key, value);
  if (user_states.defined() && user_branch.to_k.defined()) {
    // In the dtype of the layer, whatever the adapter is kept in.
    const auto project = [&](const at::Tensor& weight) {
      return split_heads(at::linear(user_states.to(query.scalar_type()), weight.to(query.scalar_type())));
    };
    mixed = mixed + user_branch.scale * kernels::attention(query, project(user_branch.to_k), project(user_branch.to_v));
  }
  return to_out_->forward(mixed.transpose(1, 2).flatten(/*start_dim=*/2));
}

at::Tensor AttentionImpl::forward(const at::Tensor& hidden_states, const at::Tensor& context,
                                  const at::Tensor& user_states, const at::Tensor& context_bias) {
  at::Tensor input = hidden_states;
  if (group_norm) input = group_norm->forward(input.transpose(1, 2)).transpose(1, 2);
  at::Tensor output = attend(input, context, user_states, context_bias);
  if (options_.has_residual) output = output + hidden_states;
  return options_.output_scale_factor == 1.0 ? output : output / options_.output_scale_factor;
}

at::Tensor AttentionImpl::forward_image(const at::Tensor& hidden_states) {
  const at::Tensor normed = group_norm ? group_norm->forward(hidden_states) : hidden_states;
  at::Tensor output = attend(normed.flatten(/*start_dim=*/2).transpose(1, 2), /*context=*/{}, /*user_states=*/{},
                             /*context_bias=*/{});
  output = output.transpose(1, 2).reshape(hidden_states.sizes());
  if (options_.has_residual) output = hidden_states + output;
  return options_.output_scale_factor == 1.0 ? output : output / options_.output_scale_factor;
}

void rename_deprecated_attention(TensorMap& weights, const std::vector<std::string>& module_paths) {
  static const std::pair<const char*, const char*> kRenamed[] = {
      {"query", "to_q"}, {"key", "to_k"}, {"value", "to_v"}, {"proj_attn", "to_out.0"}};
  for (const std::string& path : module_paths) {
    for (const auto& [old_name, new_name] : kRenamed) {
      for (const char* leaf : {".weight", ".bias"}) {
        const std::string new_key = path + "." + new_name + leaf;
        if (auto node = weights.extract(path + "." + old_name + leaf)) {
          node.key() = new_key;
          weights.insert(std::move(node));
        }
        const auto found = weights.find(new_key);
        if (found == weights.end() || found->second.dim() != 4) continue;
        at::Tensor& weight = found->second;
        if (weight.size(2) == 1 && weight.size(3) == 1) weight = weight.flatten(/*start_dim=*/1);
      }
    }
  }
}

}  // namespace prefusion::nn
