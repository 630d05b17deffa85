#include "kernels/attention/attention.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "core/error.h"
#include "kernels/attention/attention_table.h"

namespace prefusion::kernels {
namespace {

constexpr const char* kName = "attention";

thread_local AttentionRecorder* recorder = nullptr;
thread_local bool is_forward_only = false;

void check_arguments(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value) {
  const bool fits = query.dim() == 4 && key.dim() == 4 && key.sizes() == value.sizes() &&
                    query.size(0) == key.size(0) && query.size(1) == key.size(1) && query.size(3) == key.size(3);
  check_run(fits, kName, ": query ", shape_text(query.sizes()), ", key ", shape_text(key.sizes()), " and value ",
            shape_text(value.sizes()), " do not fit; expected [B, H, L, D] and twice [B, H, S, D]");
  check_run(key.size(2) > 0, kName, ": there is nothing to attend to");
  for (const at::Tensor* other : {&key, &value}) {
    check_run(other->scalar_type() == query.scalar_type() && other->device() == query.device(), kName,
              ": query, key and value differ in dtype or device");
  }
}

at::Tensor attend_plainly(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value) {
  const double root = std::pow(static_cast<double>(query.size(3)), -0.25);  // of the scale, on either side
  const at::Tensor scores = at::matmul(query * root, (key * root).transpose(2, 3));
  return at::matmul(at::softmax(scores, -1), value);
}

// [B, H, N, D] that lies as [B, N, H, D], which the next projection takes without a copy.
at::Tensor empty_rows(const at::Tensor& like) {
  return at::empty({like.size(0), like.size(2), like.size(1), like.size(3)}, like.options()).transpose(1, 2);
}

at::Tensor attend_by_dots(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value) {
  const at::NoGradGuard no_grad;
  const auto dense_rows = [](const at::Tensor& t) { return t.stride(3) == 1 ? t : t.contiguous(); };
  const detail::AttentionForward tensors{dense_rows(query), dense_rows(key), dense_rows(value), empty_rows(query), {}};
  if (query.numel() > 0) detail::attention_forward_dots(tensors);
  return tensors.output;
}

#ifdef PREFUSION_HAS_CUDA
constexpr std::array<int64_t, 7> kHeadSizes = {40, 64, 72, 80, 96, 128, 160};

// Rows as the kernels copy them: dense, 16 bytes at a time, each in a place of its own.
at::Tensor aligned(const at::Tensor& tensor) {
  const int64_t chunk = 16 / tensor.element_size();
  bool is_aligned = tensor.stride(3) == 1 && reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 16 == 0;
  for (int dim = 0; dim < 3; ++dim) {
    const bool is_repeated = tensor.stride(dim) == 0 && tensor.size(dim) > 1;
    is_aligned = is_aligned && tensor.stride(dim) % chunk == 0 && !is_repeated;
  }
  return is_aligned ? tensor : tensor.contiguous();
}

class BlockAttention : public torch::autograd::Function<BlockAttention> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& query, const at::Tensor& key,
                            const at::Tensor& value, bool is_hopper) {
    detail::AttentionForward tensors{
        aligned(query), aligned(key), aligned(value), empty_rows(query),
        at::empty({query.size(0), query.size(1), query.size(2)}, query.options().dtype(at::kFloat))};
    if (query.numel() > 0) compute(tensors, is_hopper);
    context->saved_data["is_hopper"] = is_hopper;
    context->save_for_backward({tensors.query, tensors.key, tensors.value, tensors.output, tensors.log_sum});
    return tensors.output;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    check_run(!at::GradMode::is_enabled(), kName, ": second derivatives are not available");
    const auto saved = context->get_saved_variables();
    detail::AttentionBackward tensors{{saved[0], saved[1], saved[2], saved[3], saved[4]},
                                      aligned(grads[0]),
                                      empty_rows(saved[0]),
                                      empty_rows(saved[1]),
                                      empty_rows(saved[2])};
    if (saved[0].numel() > 0) {
      differentiate(tensors, context->saved_data["is_hopper"].toBool());
    } else {
      tensors.grad_key.zero_();
      tensors.grad_value.zero_();
    }
    return {tensors.grad_query, tensors.grad_key, tensors.grad_value, {}};
  }

 private:
  static void compute(detail::AttentionForward& tensors, bool is_hopper) {
#ifdef PREFUSION_HAS_HOPPER
    if (is_hopper) return detail::attention_forward_hopper(tensors);
#endif
    detail::attention_forward_cuda(tensors);
  }

  static void differentiate(detail::AttentionBackward& tensors, bool is_hopper) {
#ifdef PREFUSION_HAS_HOPPER
    if (is_hopper) return detail::attention_backward_hopper(tensors);
#endif
    detail::attention_backward_cuda(tensors);
  }
};
#endif

at::Tensor attend_by_blocks(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, bool is_hopper) {
#ifdef PREFUSION_HAS_CUDA
  return BlockAttention::apply(query, key, value, is_hopper);
#else
  fail_run(kName, ": prefusion was built without CUDA; build it where nvcc is");
#endif
}

}  // namespace

const char* attention_path_name(AttentionPath path) {
  switch (path) {
    case AttentionPath::kAten: return "aten";
    case AttentionPath::kPlain: return "plain";
    case AttentionPath::kBlocks: return "blocks";
    case AttentionPath::kHopper: return "hopper";
    case AttentionPath::kDots: return "dots";
  }
  return "";
}

std::string attention_path_names() {
  std::string names;
  for (const AttentionPath path : kAttentionPaths)
    names += (names.empty() ? "" : ", ") + std::string(attention_path_name(path));
  return names;
}

std::optional<AttentionPath> parse_attention_path(const std::string& name) {
  for (const AttentionPath path : kAttentionPaths) {
    if (attention_path_name(path) == name) return path;
  }
  return std::nullopt;
}

bool can_attend(AttentionPath path, const at::Tensor& query, const at::Tensor& key) {
  if (path == AttentionPath::kAten) return true;
  // Scores rounded to 16 bits are too coarse.
  if (path == AttentionPath::kPlain) return query.element_size() >= 4;
  if (path == AttentionPath::kDots) {
    const bool has_gradient = at::GradMode::is_enabled() && (query.requires_grad() || key.requires_grad());
    return query.is_cpu() && query.scalar_type() == at::kBFloat16 && query.size(3) > 0 && !has_gradient &&
           detail::has_bf16_dots();
  }
#ifdef PREFUSION_HAS_CUDA
  const bool is_half = query.scalar_type() == at::kBFloat16 || query.scalar_type() == at::kHalf;
  const bool has_size = std::find(kHeadSizes.begin(), kHeadSizes.end(), query.size(3)) != kHeadSizes.end();
  // A launch has at most 65535 items and heads, and counts rows in 32 bits.
  const bool fits =
      query.size(0) <= 65535 && query.size(1) <= 65535 && query.size(2) < (1 << 30) && key.size(2) < (1 << 30);
  if (!is_half || !has_size || !fits) return false;
#ifdef PREFUSION_HAS_HOPPER
  if (path == AttentionPath::kHopper) return detail::is_hopper_device(query.device());
#endif
  return path == AttentionPath::kBlocks && detail::is_attention_device(query.device());
#else
  return false;
#endif
}

at::Tensor attention_by(AttentionPath path, const at::Tensor& query, const at::Tensor& key, const at::Tensor& value) {
  check_arguments(query, key, value);
  check_run(can_attend(path, query, key), kName, ": no kernel for ", c10::toString(query.scalar_type()), " heads of ",
            query.size(3), " on ", query.device().str());
  switch (path) {
    case AttentionPath::kPlain: return attend_plainly(query, key, value);
    case AttentionPath::kBlocks: return attend_by_blocks(query, key, value, /*is_hopper=*/false);
    case AttentionPath::kHopper: return attend_by_blocks(query, key, value, /*is_hopper=*/true);
    case AttentionPath::kDots:
      check_run(!at::GradMode::is_enabled() || !value.requires_grad(), kName, ": the path has no gradients");
      return attend_by_dots(query, key, value);
    case AttentionPath::kAten: break;
  }
  return at::scaled_dot_product_attention(query, key, value);
}

ForwardOnly::ForwardOnly() : outer_(std::exchange(is_forward_only, true)) {}

ForwardOnly::~ForwardOnly() {
  is_forward_only = outer_;
}

AttentionRecorder::AttentionRecorder() : outer_(std::exchange(recorder, this)) {}

AttentionRecorder::~AttentionRecorder() {
  recorder = outer_;
}

void AttentionRecorder::add(const at::Tensor& query, const at::Tensor& key) {
  shapes_.insert({query.scalar_type(), query.size(0), query.size(1), query.size(2), key.size(2), query.size(3)});
}

at::Tensor attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value) {
  if (recorder) recorder->add(query, key);
  const bool has_gradient =
      at::GradMode::is_enabled() && (query.requires_grad() || key.requires_grad() || value.requires_grad());
  const bool as_differentiated = has_gradient || !is_forward_only;
  const auto known = attention_table().find(query, key, as_differentiated);
  if (known && can_attend(*known, query, key)) return attention_by(*known, query, key, value);
  const bool by_dots = !as_differentiated && can_attend(AttentionPath::kDots, query, key);
  return attention_by(by_dots ? AttentionPath::kDots : AttentionPath::kAten, query, key, value);
}

}  // namespace prefusion::kernels
