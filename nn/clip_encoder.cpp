#include "nn/clip_encoder.h"

#include <ATen/ATen.h>

#include <c10/core/GradMode.h>

#include <cmath>
#include <optional>

#include "core/mapped_file.h"
#include "kernels/linear_rows/linear_rows.h"
#include "nn/activation_checkpoint.h"

namespace prefusion::nn {
namespace {

// From here on a weight's pages are worth a system call.
constexpr size_t kLargeWeightBytes = size_t{1} << 20;

// Texts one behind another, [T, D], in parts again.
std::vector<at::Tensor> texts_of(const at::Tensor& rows, at::IntArrayRef lengths) {
  return at::split_with_sizes(rows, lengths, 0);
}

class ClipAttentionImpl : public torch::nn::Module {
 public:
  explicit ClipAttentionImpl(const ClipEncoderOptions& options) : num_heads_(options.num_heads) {
    const int64_t dim = options.hidden_size;
    q_proj = register_module("q_proj", Linear(dim, dim));
    k_proj = register_module("k_proj", Linear(dim, dim));
    v_proj = register_module("v_proj", Linear(dim, dim));
    out_proj = register_module("out_proj", Linear(dim, dim));
  }

  at::Tensor forward(const at::Tensor& hidden_states, const AttentionMask& mask) {
    const auto heads = [&](Linear& projection) {  // [B, heads, L, D / heads]
      return projection(hidden_states).unflatten(-1, {num_heads_, -1}).transpose(1, 2);
    };
    const std::optional<at::Tensor> allowed = mask.allowed.defined() ? std::optional(mask.allowed) : std::nullopt;
    const at::Tensor attended =
        at::scaled_dot_product_attention(heads(q_proj), heads(k_proj), heads(v_proj), allowed,
                                         /*dropout_p=*/0.0, /*is_causal=*/mask.is_causal && !allowed.has_value());
    return out_proj(attended.transpose(1, 2).flatten(2));
  }

  // states += forward(queries, of normed keys) without a mask or gradients. states, queries [B, Q, D]; keys [B, L, D].
  // Two of the biases cost nothing: that of the keys shifts all scores of a query alike, which softmax does not see,
  // and that of the values passes through softmax, so that it joins the output's.
  void add_to(at::Tensor& states, const at::Tensor& queries, const at::Tensor& keys) {
    const at::Tensor k_weight = k_proj->weight.t(), v_weight = v_proj->weight.t();
    const at::Tensor q = q_proj(queries);
    const at::Tensor flat_keys = keys.flatten(0, 1);
    const at::Tensor k = at::mm(flat_keys, k_weight).view(keys.sizes());
    const at::Tensor v = at::mm(flat_keys, v_weight).view(keys.sizes());
    at::Tensor attended = at::empty_like(q);
    const double scale = 1.0 / std::sqrt(static_cast<double>(q.size(-1) / num_heads_));
    // Picture by picture, so that scores stay in the cache.
    for (int64_t i = 0; i < q.size(0); ++i) {
      const auto heads = [&](const at::Tensor& rows) {
        return rows[i].unflatten(-1, {num_heads_, -1}).transpose(0, 1);
      };
      at::Tensor scores = at::bmm(heads(q), heads(k).transpose(1, 2)).mul_(scale);  // [heads, Q, L]
      at::softmax_out(scores, scores, -1);
      attended[i].unflatten(-1, {num_heads_, -1}).copy_(at::bmm(scores, heads(v)).transpose(0, 1));
    }
    states.add_(at::addmv(out_proj->bias, out_proj->weight, v_proj->bias));
    states.view({-1, states.size(-1)}).addmm_(attended.flatten(0, 1), out_proj->weight.t());
  }

  // forward() of causal texts one behind another, [T, D] of fp32 on the CPU, without gradients.
  at::Tensor forward_rows(const at::Tensor& rows, at::IntArrayRef lengths) {
    const auto texts = [&](Linear& projection) {
      return texts_of(kernels::linear_rows(rows, projection->weight, projection->bias), lengths);
    };
    const std::vector<at::Tensor> q = texts(q_proj), k = texts(k_proj), v = texts(v_proj);
    std::vector<at::Tensor> attended;
    for (size_t i = 0; i < q.size(); ++i) {
      // [1, heads, L, D / heads], copied: matrix products may depend on where in memory their rows begin.
      const auto heads = [&](const at::Tensor& text) {
        return text.clone().unflatten(-1, {num_heads_, -1}).transpose(0, 1).unsqueeze(0);
      };
      const at::Tensor found =
          at::scaled_dot_product_attention(heads(q[i]), heads(k[i]), heads(v[i]), {}, /*dropout_p=*/0.0,
                                           /*is_causal=*/true);
      attended.push_back(found.squeeze(0).transpose(0, 1).flatten(1));
    }
    return kernels::linear_rows(at::cat(attended), out_proj->weight, out_proj->bias);
  }

  bool has_plain_layers() {
    for (Linear* layer : {&q_proj, &k_proj, &v_proj, &out_proj}) {
      if (!(*layer)->lora_branches().empty()) return false;
    }
    return true;
  }

 private:
  int64_t num_heads_;
  Linear q_proj{nullptr}, k_proj{nullptr}, v_proj{nullptr}, out_proj{nullptr};
};

class ClipMlpImpl : public torch::nn::Module {
 public:
  explicit ClipMlpImpl(const ClipEncoderOptions& options) : activation_(options.activation) {
    fc1 = register_module("fc1", Linear(options.hidden_size, options.intermediate_size));
    fc2 = register_module("fc2", Linear(options.intermediate_size, options.hidden_size));
  }
  at::Tensor forward(const at::Tensor& hidden_states) { return fc2(activation_(fc1(hidden_states))); }

  // states += forward(normed), without gradients; both [B, Q, D].
  void add_to(at::Tensor& states, const at::Tensor& normed) {
    const at::Tensor inner = activation_(fc1(normed.flatten(0, 1)));
    states.add_(fc2->bias);
    states.view({-1, states.size(-1)}).addmm_(inner, fc2->weight.t());
  }

  // forward() of texts one behind another, as that of attention. Each has its activation alone: of the last elements of
  // a tensor it may be rounded in another way.
  at::Tensor forward_rows(const at::Tensor& rows, at::IntArrayRef lengths) {
    std::vector<at::Tensor> inner = texts_of(kernels::linear_rows(rows, fc1->weight, fc1->bias), lengths);
    for (at::Tensor& text : inner) text = activation_(text);
    return kernels::linear_rows(at::cat(inner), fc2->weight, fc2->bias);
  }

  bool has_plain_layers() { return fc1->lora_branches().empty() && fc2->lora_branches().empty(); }

 private:
  Activation activation_;
  Linear fc1{nullptr}, fc2{nullptr};
};

}  // namespace

class ClipEncoderLayerImpl : public torch::nn::Module {
 public:
  explicit ClipEncoderLayerImpl(const ClipEncoderOptions& options) {
    self_attn = register_module("self_attn", std::make_shared<ClipAttentionImpl>(options));
    layer_norm1 = register_module("layer_norm1", LayerNorm(options.hidden_size, options.layer_norm_eps));
    mlp = register_module("mlp", std::make_shared<ClipMlpImpl>(options));
    layer_norm2 = register_module("layer_norm2", LayerNorm(options.hidden_size, options.layer_norm_eps));
  }

  at::Tensor forward(const at::Tensor& input, const AttentionMask& mask) {
    const at::Tensor attended = input + self_attn->forward(layer_norm1(input), mask);
    return attended + mlp->forward(layer_norm2(attended));
  }

  // The first `num_tokens` tokens of forward() without a mask or gradients, where has_plain_layers(); overwrites its
  // argument and returns those of its tokens.
  at::Tensor forward_in_place(const at::Tensor& states, int64_t num_tokens) {
    const at::Tensor keys = layer_norm1(states);
    at::Tensor kept = num_tokens == states.size(1) ? states : states.slice(1, 0, num_tokens).contiguous();
    self_attn->add_to(kept, keys.slice(1, 0, num_tokens), keys);
    mlp->add_to(kept, layer_norm2(kept));
    return kept;
  }

  // forward() of causal texts one behind another, [T, D], where has_exact_rows().
  at::Tensor forward_rows(const at::Tensor& rows, at::IntArrayRef lengths) {
    const at::Tensor attended = rows + self_attn->forward_rows(layer_norm1(rows), lengths);
    return attended + mlp->forward_rows(layer_norm2(attended), lengths);
  }

  bool has_exact_rows() {
    return layer_norm1->weight.is_cpu() && layer_norm1->weight.scalar_type() == at::kFloat && has_plain_layers();
  }
  bool has_plain_layers() { return self_attn->has_plain_layers() && mlp->has_plain_layers(); }

 private:
  std::shared_ptr<ClipAttentionImpl> self_attn;
  LayerNorm layer_norm1{nullptr}, layer_norm2{nullptr};
  std::shared_ptr<ClipMlpImpl> mlp;
};

ClipEncoderImpl::ClipEncoderImpl(const ClipEncoderOptions& options) : layers(std::make_shared<Layers>()) {
  for (int64_t i = 0; i < options.num_layers; ++i) layers->push_back(std::make_shared<ClipEncoderLayerImpl>(options));
  register_module("layers", layers);
}

at::Tensor ClipEncoderImpl::forward_layer(int64_t layer, const at::Tensor& hidden_states, const AttentionMask& mask) {
  const auto& block = (*layers)[static_cast<size_t>(layer)];
  if (!is_recomputed_) return block->forward(hidden_states, mask);
  const auto forward = [block, mask](const std::vector<at::Tensor>& x) { return block->forward(x[0], mask); };
  return run_block(*block, forward, {hidden_states}, /*recompute=*/true);
}

at::Tensor ClipEncoderImpl::forward(const at::Tensor& hidden_states, const AttentionMask& mask) {
  at::Tensor states = hidden_states;
  for (int64_t layer = 0; layer < num_layers(); ++layer) states = forward_layer(layer, states, mask);
  return states;
}

at::Tensor ClipEncoderImpl::forward_first_token(const at::Tensor& hidden_states) {
  bool is_plain = !c10::GradMode::is_enabled() && num_layers() > 0;
  for (auto& layer : *layers) is_plain = is_plain && layer->has_plain_layers();
  if (!is_plain) return forward(hidden_states).select(1, 0);
  at::Tensor states = hidden_states.clone(at::MemoryFormat::Contiguous);
  for (int64_t i = 0; i + 1 < num_layers(); ++i) states = (*layers)[i]->forward_in_place(states, states.size(1));
  return (*layers)[num_layers() - 1]->forward_in_place(states, 1).select(1, 0);
}

void ClipEncoderImpl::forward_texts(int64_t layer, std::vector<at::Tensor>& states) {
  const auto& block = (*layers)[static_cast<size_t>(layer)];
  if (!block->has_exact_rows()) {
    for (at::Tensor& text : states) text = block->forward(text, {.is_causal = true});
    return;
  }
  std::vector<at::Tensor> texts;
  std::vector<int64_t> lengths;
  for (const at::Tensor& text : states) {
    texts.push_back(text[0]);
    lengths.push_back(text.size(1));
  }
  const std::vector<at::Tensor> passed = texts_of(block->forward_rows(at::cat(texts), lengths), lengths);
  for (size_t i = 0; i < states.size(); ++i) states[i] = passed[i].unsqueeze(0);
}

void ClipEncoderImpl::evict_layer(int64_t layer) {
  for (const at::Tensor& weight : (*layers)[static_cast<size_t>(layer)]->parameters()) {
    const bool is_large = weight.is_cpu() && weight.is_contiguous() && weight.nbytes() >= kLargeWeightBytes;
    if (is_large) MappedFile::evict(weight.const_data_ptr(), weight.nbytes());
  }
}

}  // namespace prefusion::nn
