#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <set>
#include <string>
#include <tuple>

namespace prefusion::kernels {

// Who computes an attention.
enum class AttentionPath {
  kAten,    // scaled_dot_product_attention, whose own choice among flash, cuDNN, efficient and plain products stands
  kPlain,   // products and softmax of their own, keeping the weights for the backward pass
  kBlocks,  // kernels/attention on CUDA: "FlashAttention-2" (arXiv 2307.08691) for the head sizes of diffusion models
  kHopper,  // the same for compute capability 9.0: groups of warps multiply from shared memory while another fetches
            // ("FlashAttention-3", arXiv 2407.08608)
  kDots     // blocks of queries by the bf16 products of a CPU (AVX-512 BF16), without gradients
};
constexpr AttentionPath kAttentionPaths[] = {AttentionPath::kAten, AttentionPath::kPlain, AttentionPath::kBlocks,
                                             AttentionPath::kHopper, AttentionPath::kDots};

const char* attention_path_name(AttentionPath path);
// "aten, plain, ..."
std::string attention_path_names();
std::optional<AttentionPath> parse_attention_path(const std::string& name);

// softmax(query key^T / sqrt(D)) value, without a mask.
//   query [B, H, L, D], key and value [B, H, S, D]; one floating dtype and device; any strides
//   returns [B, H, L, D]
// The path is the one that attention_table() has for the shape; where it has none, kDots where that exists under
// ForwardOnly, else kAten. Differentiable in all inputs, once with kBlocks and kHopper, whose gradients repeat to
// the bit.
at::Tensor attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value);

// While one lives, what this thread attends to without gradients may go another way than what is differentiated.
// Without one both go the same way: predictions of equal weights are then equal to the bit, whether somebody
// differentiates them or not, which references and replayed decisions rely on.
class ForwardOnly {
 public:
  ForwardOnly();
  ~ForwardOnly();
  ForwardOnly(const ForwardOnly&) = delete;
  ForwardOnly& operator=(const ForwardOnly&) = delete;

 private:
  bool outer_;
};

// The same on a given path. Run error where can_attend() is false.
at::Tensor attention_by(AttentionPath path, const at::Tensor& query, const at::Tensor& key, const at::Tensor& value);

// Whether a path exists for such inputs: kPlain for fp32 and fp64, kBlocks for bf16 and fp16 on a GPU from sm_80 on,
// kHopper on one of sm_90, head sizes 40, 64, 72, 80, 96, 128 and 160; kDots for bf16 on a CPU that multiplies it,
// where gradients are off or query and key need none.
bool can_attend(AttentionPath path, const at::Tensor& query, const at::Tensor& key);

// One attention that was asked for.
struct AttentionShape {
  at::ScalarType dtype = at::kFloat;
  int64_t batch = 0, heads = 0, queries = 0, keys = 0, head_size = 0;

  bool operator<(const AttentionShape& other) const {
    const auto numbers = [](const AttentionShape& s) {
      return std::make_tuple(s.dtype, s.batch, s.heads, s.queries, s.keys, s.head_size);
    };
    return numbers(*this) < numbers(other);
  }
};

// Collects the shapes this thread asks attention() for while it lives.
class AttentionRecorder {
 public:
  AttentionRecorder();
  ~AttentionRecorder();
  AttentionRecorder(const AttentionRecorder&) = delete;
  AttentionRecorder& operator=(const AttentionRecorder&) = delete;

  const std::set<AttentionShape>& shapes() const { return shapes_; }
  void add(const at::Tensor& query, const at::Tensor& key);

 private:
  std::set<AttentionShape> shapes_;
  AttentionRecorder* outer_;
};

// Per-device implementations; attention.cpp checks and allocates. Rows of all tensors are dense and begin at multiples
// of 16 bytes.
namespace detail {

struct AttentionForward {
  at::Tensor query, key, value;
  at::Tensor output, log_sum;  // to fill; log_sum [B, H, L] fp32 as in block_shape.h
};

struct AttentionBackward {
  AttentionForward forward;
  at::Tensor grad_output;
  at::Tensor grad_query, grad_key, grad_value;  // to fill
};

void attention_forward_dots(const AttentionForward& tensors);
bool has_bf16_dots();
void attention_forward_cuda(AttentionForward& tensors);
void attention_backward_cuda(AttentionBackward& tensors);
bool is_attention_device(at::Device device);
void attention_forward_hopper(const AttentionForward& tensors);
void attention_backward_hopper(const AttentionBackward& tensors);
bool is_hopper_device(at::Device device);

}  // namespace detail
}  // namespace prefusion::kernels
