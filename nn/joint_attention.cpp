#include "nn/joint_attention.h"

#include <ATen/ATen.h>

#include <memory>

#include "core/error.h"
#include "kernels/attention/attention.h"
#include "kernels/rms_norm_rotary/rms_norm_rotary.h"

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

at::Tensor JointAttentionImpl::place(const at::Tensor& heads, RMSNorm& norm, const RotaryEmbedding& rotary,
                                     int64_t first) const {
  const bool is_turned = rotary.cosines.defined();
  const auto of_stream = [&](const at::Tensor& angles) {
    return is_turned ? angles.narrow(0, first, heads.size(2)) : at::Tensor();
  };
  const RotaryEmbedding own{.cosines = of_stream(rotary.cosines), .sines = of_stream(rotary.sines)};
  if (!norm) return is_turned ? apply_rotary(heads, own) : heads;
  if (options_.head_dim % 2 != 0) return norm->forward(heads);  // nothing to turn: there are no pairs
  return kernels::rms_norm_rotary(heads, norm->weight, norm->eps(), {own.cosines, own.sines});
}

JointStates JointAttentionImpl::forward(const at::Tensor& hidden_states, const at::Tensor& context,
                                        const RotaryEmbedding& rotary) {
  Heads heads = split(to_q->forward(hidden_states), to_k->forward(hidden_states), to_v->forward(hidden_states));
  const int64_t context_length = options_.has_context ? context.size(1) : 0;
  heads.query = place(heads.query, norm_q, rotary, context_length);
  heads.key = place(heads.key, norm_k, rotary, context_length);
  if (options_.has_context) {
    Heads added = split(add_q_proj->forward(context), add_k_proj->forward(context), add_v_proj->forward(context));
    added.query = place(added.query, norm_added_q, rotary, 0);
    added.key = place(added.key, norm_added_k, rotary, 0);
    heads = {at::cat({added.query, heads.query}, /*dim=*/2), at::cat({added.key, heads.key}, /*dim=*/2),
             at::cat({added.value, heads.value}, /*dim=*/2)};
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
