#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/attention/block_shape.h"

// What the emulations of attention are tested on and measured by.
namespace prefusion::kernels::blockwise {

struct Problem {
  int64_t batch, heads, queries, keys;
};

// Sizes around the edges of fragments, tiles and blocks.
inline constexpr Problem kProblems[] = {{1, 1, 1, 1},     {1, 2, 3, 5},   {2, 1, 16, 16}, {1, 1, 17, 31},
                                        {1, 1, 63, 64},   {1, 1, 64, 65}, {1, 1, 65, 33}, {1, 2, 70, 77},
                                        {1, 1, 130, 129}, {1, 1, 9, 154}};

// Heads lie beside each other in a row, as a projection leaves them; what surrounds a tensor is NaN and must stay so.
struct Guarded {
  at::Tensor whole;   // [B, rows + 2, H, D + 8]
  at::Tensor tensor;  // [B, H, rows, D] of it

  Guarded(int64_t batch, int64_t heads, int64_t rows, int64_t head_size, at::ScalarType dtype)
      : whole(at::full({batch, rows + 2, heads, head_size + 8}, std::nan(""), dtype)),
        tensor(whole.slice(1, 1, rows + 1).slice(3, 0, head_size).transpose(1, 2)) {}

  Layout layout() const { return {tensor.stride(0), tensor.stride(1), tensor.stride(2)}; }

  void expect_untouched_surroundings() const {
    at::Tensor rest = whole.clone();
    rest.slice(1, 1, whole.size(1) - 1).slice(3, 0, tensor.size(3)).fill_(std::nan(""));
    EXPECT_TRUE(at::isnan(rest).all().item<bool>());
    EXPECT_EQ(at::isnan(whole).sum().item<int64_t>(), whole.numel() - tensor.numel()) << "not everything was written";
  }
};

inline double largest_error(const at::Tensor& found, const at::Tensor& expected) {
  return (found.to(at::kDouble) - expected).abs().max().item<double>();
}

// The tensors of an attention, its results in fp64, and those of ATen in the same precision, which is what a kernel's
// rounding is measured by.
template <typename Element>
class AttentionProblem {
 public:
  // Numbers of queries and keys spread around +-`offset`: then all scores are negative.
  AttentionProblem(const Problem& problem, int64_t head_size, double spread, double offset = 0)
      : problem_(problem),
        head_size_(head_size),
        query(make(problem.queries)),
        key(make(problem.keys)),
        value(make(problem.keys)),
        output(make(problem.queries)),
        grad_output(make(problem.queries)),
        grad_query(make(problem.queries)),
        grad_key(make(problem.keys)),
        grad_value(make(problem.keys)),
        log_sum(at::full({problem.batch, problem.heads, problem.queries}, std::nan(""))) {
    at::manual_seed(problem.queries * 1000 + problem.keys);
    query.tensor.normal_(offset, spread);
    key.tensor.normal_(-offset, spread);
    for (Guarded* input : {&value, &grad_output}) input->tensor.normal_();
    expected_ = differentiate(at::kDouble);
    aten_ = differentiate(query.tensor.scalar_type());
  }

  static Element* data(const Guarded& guarded) { return guarded.tensor.template mutable_data_ptr<Element>(); }

  AttentionArgs<Element> args() const {
    AttentionArgs<Element> args;
    args.query = data(query);
    args.key = data(key);
    args.value = data(value);
    args.output = data(output);
    args.query_layout = query.layout();
    args.key_layout = key.layout();
    args.value_layout = value.layout();
    args.output_layout = output.layout();
    args.num_heads = problem_.heads;
    args.num_queries = static_cast<int>(problem_.queries);
    args.num_keys = static_cast<int>(problem_.keys);
    args.scale = 1.0f / std::sqrt(static_cast<float>(head_size_));
    args.scale_log2 = args.scale * 1.44269504f;
    args.log_sum = log_sum.mutable_data_ptr<float>();
    return args;
  }

  // Of the outputs that are there by now.
  AttentionGradArgs<Element> grad_args() {
    AttentionGradArgs<Element> args;
    args.forward = this->args();
    args.grad_output = data(grad_output);
    args.grad_output_layout = grad_output.layout();
    row_product_ = (output.tensor.to(at::kFloat) * grad_output.tensor.to(at::kFloat)).sum(-1).contiguous();
    args.row_product = row_product_.const_data_ptr<float>();
    args.grad_query = data(grad_query);
    args.grad_key = data(grad_key);
    args.grad_value = data(grad_value);
    args.grad_query_layout = grad_query.layout();
    args.grad_key_layout = grad_key.layout();
    args.grad_value_layout = grad_value.layout();
    return args;
  }

  void check_forward() const {
    expect_close(output, 0, "output");
    const double scale = 1 / std::sqrt(static_cast<double>(head_size_));
    const at::Tensor scores = query.tensor.to(at::kDouble).matmul(key.tensor.to(at::kDouble).transpose(2, 3)) * scale;
    EXPECT_LE(largest_error(log_sum, scores.logsumexp(-1) / std::log(2.0)),
              1e-4 * (1 + scores.abs().max().item<double>()));
  }

  void check_backward() const {
    expect_close(grad_query, 1, "gradient of the queries");
    expect_close(grad_key, 2, "gradient of the keys");
    expect_close(grad_value, 3, "gradient of the values");
  }

  const Problem& sizes() const { return problem_; }

 private:
  Guarded make(int64_t rows) const {
    return {problem_.batch, problem_.heads, rows, head_size_, c10::CppTypeToScalarType<Element>::value};
  }

  std::vector<at::Tensor> differentiate(at::ScalarType dtype) const {
    std::vector<at::Tensor> inputs;
    for (const Guarded* input : {&query, &key, &value}) {
      inputs.push_back(input->tensor.to(dtype).contiguous().detach().requires_grad_());
    }
    const at::Tensor found = at::scaled_dot_product_attention(inputs[0], inputs[1], inputs[2]);
    found.backward(grad_output.tensor.to(dtype));
    std::vector<at::Tensor> results = {found.detach()};
    for (const at::Tensor& input : inputs) results.push_back(input.grad());
    return results;
  }

  // At most twice ATen's error, or what two roundings of the largest number are.
  void expect_close(const Guarded& found, size_t which, const char* name) const {
    const double rounding = std::is_same_v<Element, c10::BFloat16> ? 1.0 / 256 : 1.0 / 2048;
    constexpr double kNoise = 1e-6;  // of fp32, where the exact gradient is zero: a single key
    const double allowed = std::max({2 * largest_error(aten_[which], expected_[which]),
                                     rounding * expected_[which].abs().max().template item<double>(), kNoise});
    EXPECT_LE(largest_error(found.tensor, expected_[which]), allowed) << name;
    found.expect_untouched_surroundings();
  }

  Problem problem_;
  int64_t head_size_;

 public:
  Guarded query, key, value, output, grad_output, grad_query, grad_key, grad_value;
  at::Tensor log_sum;  // [B, H, queries]

 private:
  std::vector<at::Tensor> expected_, aten_;
  at::Tensor row_product_;
};

}  // namespace prefusion::kernels::blockwise
