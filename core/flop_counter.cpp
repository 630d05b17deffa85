#include "core/flop_counter.h"

#include <ATen/core/Tensor.h>
#include <ATen/record_function.h>
#include <c10/util/accumulate.h>

#include <atomic>
#include <mutex>
#include <string_view>
#include <unordered_map>

namespace prefusion {
namespace {

using Inputs = c10::ArrayRef<const c10::IValue>;
using Formula = int64_t (*)(Inputs);

at::IntArrayRef sizes_of(Inputs inputs, size_t index) {
  return inputs.at(index).toTensor().sizes();
}

// [..., m, k] by [..., k, n].
int64_t product(at::IntArrayRef left, at::IntArrayRef right) {
  return 2 * c10::multiply_integers(left) * right.back();
}

template <size_t left>
int64_t matrix_product(Inputs inputs) {
  return product(sizes_of(inputs, left), sizes_of(inputs, left + 1));
}

// A weight [C_out, C_in / groups, ...] meets every place of the output, or of the input where it is transposed.
int64_t convolution_at(at::IntArrayRef weight, int64_t batch, at::IntArrayRef places) {
  return 2 * batch * c10::multiply_integers(weight) * c10::multiply_integers(places);
}

// input, weight, bias, stride, padding, dilation, transposed, ...
int64_t convolution(Inputs inputs) {
  const auto input = sizes_of(inputs, 0), weight = sizes_of(inputs, 1);
  c10::SmallVector<int64_t, 3> places(input.begin() + 2, input.end());
  if (!inputs.at(6).toBool()) {
    const auto stride = inputs.at(3).toIntVector(), padding = inputs.at(4).toIntVector(),
               dilation = inputs.at(5).toIntVector();
    for (size_t i = 0; i < places.size(); ++i) {
      const auto of = [i](const std::vector<int64_t>& values) { return values.at(values.size() == 1 ? 0 : i); };
      places[i] = (places[i] + 2 * of(padding) - of(dilation) * (weight[i + 2] - 1) - 1) / of(stride) + 1;
    }
  }
  return convolution_at(weight, input.front(), places);
}

// grad_output, input, weight, bias_sizes, stride, padding, dilation, transposed, output_padding, groups, output_mask
int64_t convolution_backward(Inputs inputs) {
  const bool is_transposed = inputs.at(7).toBool();
  const auto seen = sizes_of(inputs, is_transposed ? 1 : 0);
  const auto mask = inputs.at(10).toBoolList();
  const int64_t gradients = static_cast<int64_t>(mask[0]) + static_cast<int64_t>(mask[1]);
  return gradients * convolution_at(sizes_of(inputs, 2), seen.front(), seen.slice(2));
}

// query [B, H, L, D], key [B, H', S, D], value [B, H', S, E]: the scores, and their product with the values.
int64_t attention_products(Inputs inputs, size_t query, int64_t of_scores, int64_t of_values) {
  const auto q = sizes_of(inputs, query), k = sizes_of(inputs, query + 1), v = sizes_of(inputs, query + 2);
  const int64_t scores = 2 * c10::multiply_integers(q.slice(0, 3)) * k[2];
  return scores * (of_scores * q[3] + of_values * v[3]);
}

int64_t attention(Inputs inputs) {
  return attention_products(inputs, 0, 1, 1);
}

// grad_out, query, key, value, ...: the scores again and the gradients of query and key; those of scores and values.
int64_t attention_backward(Inputs inputs) {
  return attention_products(inputs, 1, 3, 2);
}

// By the operator's name. Operators made of these (linear, matmul, conv2d, einsum) are counted by their parts.
Formula find_formula(std::string_view name) {
  static const std::unordered_map<std::string_view, Formula> formulas = {
      {"aten::mm", matrix_product<0>},
      {"aten::bmm", matrix_product<0>},
      {"aten::addmm", matrix_product<1>},
      {"aten::addmm_", matrix_product<1>},
      {"aten::baddbmm", matrix_product<1>},
      {"aten::baddbmm_", matrix_product<1>},
      {"aten::_scaled_mm", matrix_product<0>},
      {"aten::convolution", convolution},
      {"aten::convolution_backward", convolution_backward},
      {"aten::_scaled_dot_product_flash_attention", attention},
      {"aten::_scaled_dot_product_flash_attention_backward", attention_backward},
      {"aten::_scaled_dot_product_flash_attention_for_cpu", attention},
      {"aten::_scaled_dot_product_flash_attention_for_cpu_backward", attention_backward},
      {"aten::_scaled_dot_product_efficient_attention", attention},
      {"aten::_scaled_dot_product_efficient_attention_backward", attention_backward},
      {"aten::_scaled_dot_product_cudnn_attention", attention},
      {"aten::_scaled_dot_product_cudnn_attention_backward", attention_backward},
  };
  const auto found = formulas.find(name);
  return found == formulas.end() ? nullptr : found->second;
}

std::atomic<int64_t> counted = 0;  // by all threads, since the program began

std::unique_ptr<at::ObserverContext> count(const at::RecordFunction& function) {
  if (const Formula formula = find_formula(function.name())) counted += formula(function.inputs());
  return nullptr;
}

// The callback is there while any counter is.
std::mutex counters_mutex;
int num_counters = 0;
at::CallbackHandle handle;

}  // namespace

FlopCounter::FlopCounter() {
  const std::lock_guard lock(counters_mutex);
  if (num_counters++ == 0) {
    handle =
        at::addGlobalCallback(at::RecordFunctionCallback(count).needsInputs(true).scopes({at::RecordScope::FUNCTION}));
  }
  start_ = counted;
}

FlopCounter::~FlopCounter() {
  const std::lock_guard lock(counters_mutex);
  if (--num_counters == 0) at::removeCallback(handle);
}

void FlopCounter::add(int64_t operations) {
  counted += operations;
}

int64_t FlopCounter::total() const {
  return counted - start_;
}

}  // namespace prefusion
