#include "nn/joint_attention.h"

#include <ATen/ATen.h>

#include <memory>

#include "core/error.h"
#include "kernels/attention/attention.h"

namespace prefusion::nn {

JointAttentionImpl::JointAttentionImpl(const JointAttentionOptions& options) : options_(options) {
  check_input(options.num_heads > 0 && options.head_dim > 0, "joint attention: ", options.num_heads, " heads of ",
              options.head_dim, " channels on ", options.dim, " channels");
  const int64_t inner_dim = options.num_heads * options.head_dim;
  const auto projection = [&](const char* name) { return register_module(name, Linear(options.dim, inner_dim)); };
  const auto norm = [&](const char* name) {
    return register_module(name, RMSNorm(options.head_dim, options.norm_eps));
  };
  if (options.has_qk_norm) {
    norm_q = norm("norm_q");
    norm_k = norm("norm_k");
  }
  to_q = projection("to_q");
  to_k = projection("to_k");
  to_v = projection("to_v");
  if (options.has_output) {
    to_out_ = Linear(inner_dim, options.dim);
    // The public key is "to_out.0": index 1 was a dropout.
    register_module("to_out", std::make_shared<torch::nn::Module>())->register_module("0", to_out_);
  }
  if (!options.has_context) return;
  add_q_proj = projection("add_q_proj");
  add_k_proj = projection("add_k_proj");
  add_v_proj = projection("add_v_proj");
  if (options.has_context_output) to_add_out = register_module("to_add_out", Linear(inner_dim, options.dim));
  if (options.has_qk_norm) {
    norm_added_q = norm("norm_added_q");
    norm_added_k = norm("norm_added_k");
  }
}

JointAttentionImpl::Heads JointAttentionImpl::split(const at::Tensor& query, const at::Tensor& key,
                                                    const at::Tensor& value) const {
  const auto by_head = [&](const at::Tensor& x) {  // [B, N, heads * d] -> [B, heads, N, d]
    return x.view({x.size(0), x.size(1), options_.num_heads, options_.head_dim}).transpose(1, 2);
  };
  return {by_head(query), by_head(key), by_head(value)};
}

JointStates JointAttentionImpl::forward(const at::Tensor& hidden_states, const at::Tensor& context,
                                        const HeadTransform& transform) {
  Heads heads = split(to_q->forward(hidden_states), to_k->forward(hidden_states), to_v->forward(hidden_states));
  if (norm_q) heads.query = norm_q->forward(heads.query);
  if (norm_k) heads.key = norm_k->forward(heads.key);
  int64_t context_length = 0;
  if (options_.has_context) {
    Heads added = split(add_q_proj->forward(context), add_k_proj->forward(context), add_v_proj->forward(context));
    if (norm_added_q) added.query = norm_added_q->forward(added.query);
    if (norm_added_k) added.key = norm_added_k->forward(added.key);
    context_length = context.size(1);
    heads = {at::cat({added.query, heads.query}, /*dim=*/2), at::cat({added.key, heads.key}, /*dim=*/2),
             at::cat({added.value, heads.value}, /*dim=*/2)};
  }
  if (transform) {
    heads.query = transform(heads.query);
    heads.key = transform(heads.key);
  }
  const at::Tensor mixed = kernels::attention(heads.query, heads.key, heads.value)
                               .transpose(1, 2)
                               .flatten(/*start_dim=*/2);  // [B, L + N, heads * d]
  JointStates result{.hidden_states = mixed.narrow(1, context_length, hidden_states.size(1))};
  if (to_out_) result.hidden_states = to_out_->forward(result.hidden_states);
  if (options_.has_context) result.context = mixed.narrow(1, 0, context_length);
  if (to_add_out) result.context = to_add_out->forward(result.context);
  return result;
}

}  // namespace prefusion::nn
