// The arithmetic of kernels/attention, run by an emulated block: fragments, masks, the running softmax, what is copied
// and stored where. An emulated block runs what the GPU runs but for the instructions themselves.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/attention/backward_block.h"
#include "kernels/attention/forward_block.h"
#include "tests/kernels/emulated_warp.h"

namespace prefusion::kernels::blockwise {
namespace {

struct Problem {
  int64_t batch, heads, queries, keys;
};

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

double largest_error(const at::Tensor& found, const at::Tensor& expected) {
  return (found.to(at::kDouble) - expected).abs().max().item<double>();
}

template <typename Shape, typename Element>
class Emulation {
 public:
  Emulation(const Problem& problem, Arrival arrival, double spread = 1.0)
      : problem_(problem),
        arrival_(arrival),
        query_(make(problem.queries)),
        key_(make(problem.keys)),
        value_(make(problem.keys)),
        output_(make(problem.queries)),
        grad_output_(make(problem.queries)),
        grad_query_(make(problem.queries)),
        grad_key_(make(problem.keys)),
        grad_value_(make(problem.keys)) {
    at::manual_seed(problem.queries * 1000 + problem.keys);
    for (Guarded* input : {&query_, &key_}) input->tensor.normal_(0.0, spread);
    for (Guarded* input : {&value_, &grad_output_}) input->tensor.normal_();
    compute_expected();
  }

  void check() {
    run_forward();
    check_forward();
    run_backward();
    check_backward();
  }

 private:
  Guarded make(int64_t rows) const {
    return {problem_.batch, problem_.heads, rows, Shape::kHeadSize, c10::CppTypeToScalarType<Element>::value};
  }
  Element* data(const Guarded& guarded) const { return guarded.tensor.template mutable_data_ptr<Element>(); }

  // In fp64, and by ATen in the same precision, which is what a kernel's rounding is measured by.
  void compute_expected() {
    const auto differentiate = [&](at::ScalarType dtype) {
      std::vector<at::Tensor> inputs;
      for (const Guarded* input : {&query_, &key_, &value_}) {
        inputs.push_back(input->tensor.to(dtype).contiguous().detach().requires_grad_());
      }
      const at::Tensor output = at::scaled_dot_product_attention(inputs[0], inputs[1], inputs[2]);
      output.backward(grad_output_.tensor.to(dtype));
      std::vector<at::Tensor> results = {output.detach()};
      for (const at::Tensor& input : inputs) results.push_back(input.grad());
      return results;
    };
    expected_ = differentiate(at::kDouble);
    aten_ = differentiate(query_.tensor.scalar_type());
  }

  AttentionArgs<Element> forward_args() {
    AttentionArgs<Element> args;
    args.query = data(query_);
    args.key = data(key_);
    args.value = data(value_);
    args.output = data(output_);
    args.query_layout = query_.layout();
    args.key_layout = key_.layout();
    args.value_layout = value_.layout();
    args.output_layout = output_.layout();
    args.num_heads = problem_.heads;
    args.num_queries = static_cast<int>(problem_.queries);
    args.num_keys = static_cast<int>(problem_.keys);
    args.scale = 1.0f / std::sqrt(static_cast<float>(Shape::kHeadSize));
    args.scale_log2 = args.scale * 1.44269504f;
    args.log_sum = log_sum_.mutable_data_ptr<float>();
    return args;
  }

  AttentionGradArgs<Element> backward_args() {
    AttentionGradArgs<Element> args;
    args.forward = forward_args();
    args.grad_output = data(grad_output_);
    args.grad_output_layout = grad_output_.layout();
    row_product_ = (output_.tensor.to(at::kFloat) * grad_output_.tensor.to(at::kFloat)).sum(-1).contiguous();
    args.row_product = row_product_.const_data_ptr<float>();
    args.grad_query = data(grad_query_);
    args.grad_key = data(grad_key_);
    args.grad_value = data(grad_value_);
    args.grad_query_layout = grad_query_.layout();
    args.grad_key_layout = grad_key_.layout();
    args.grad_value_layout = grad_value_.layout();
    return args;
  }

  // Every block of a grid over `rows` rows of every head.
  template <typename Block, typename Args>
  void run_blocks(const Args& args, int64_t rows, int num_elements, int num_floats) {
    for (int64_t batch = 0; batch < problem_.batch; ++batch) {
      for (int64_t head = 0; head < problem_.heads; ++head) {
        for (int block = 0; block < divide_up(rows, kBlockRows); ++block) {
          EmulatedBlock shared(num_elements, num_floats, arrival_);
          shared.run([&](int index) {
            EmulatedWarp warp(shared, index);
            Block(warp, args, batch, head, block).run();
          });
        }
      }
    }
  }

  void run_forward() {
    log_sum_ = at::full({problem_.batch, problem_.heads, problem_.queries}, std::nan(""));
    run_blocks<ForwardBlock<Shape, Element, EmulatedWarp>>(forward_args(), problem_.queries, Shape::kForwardElements,
                                                           0);
  }

  void run_backward() {
    const auto args = backward_args();
    constexpr int kFloats = kStages * 2 * Shape::kTileRows;
    run_blocks<QueryGradBlock<Shape, Element, EmulatedWarp>>(args, problem_.queries, Shape::kBackwardElements, kFloats);
    run_blocks<KeyGradBlock<Shape, Element, EmulatedWarp>>(args, problem_.keys, Shape::kBackwardElements, kFloats);
  }

  // At most twice ATen's error, or what two roundings of the largest number are.
  void expect_close(const Guarded& found, size_t which, const char* name) {
    const double rounding = std::is_same_v<Element, c10::BFloat16> ? 1.0 / 256 : 1.0 / 2048;
    constexpr double kNoise = 1e-6;  // of fp32, where the exact gradient is zero: a single key
    const double allowed = std::max({2 * largest_error(aten_[which], expected_[which]),
                                     rounding * expected_[which].abs().max().item<double>(), kNoise});
    EXPECT_LE(largest_error(found.tensor, expected_[which]), allowed) << name;
    found.expect_untouched_surroundings();
  }

  void check_forward() {
    expect_close(output_, 0, "output");
    const double scale = 1 / std::sqrt(static_cast<double>(Shape::kHeadSize));
    const at::Tensor scores = query_.tensor.to(at::kDouble).matmul(key_.tensor.to(at::kDouble).transpose(2, 3)) * scale;
    EXPECT_LE(largest_error(log_sum_, scores.logsumexp(-1) / std::log(2.0)),
              1e-4 * (1 + scores.abs().max().item<double>()));
  }

  void check_backward() {
    expect_close(grad_query_, 1, "gradient of the queries");
    expect_close(grad_key_, 2, "gradient of the keys");
    expect_close(grad_value_, 3, "gradient of the values");
  }

  Problem problem_;
  Arrival arrival_;
  Guarded query_, key_, value_, output_, grad_output_, grad_query_, grad_key_, grad_value_;
  at::Tensor log_sum_, row_product_;
  std::vector<at::Tensor> expected_, aten_;
};

// Sizes around the edges of fragments, tiles and blocks.
constexpr Problem kProblems[] = {{1, 1, 1, 1},   {1, 2, 3, 5},   {2, 1, 16, 16}, {1, 1, 17, 31},   {1, 1, 63, 64},
                                 {1, 1, 64, 65}, {1, 1, 65, 33}, {1, 2, 70, 77}, {1, 1, 130, 129}, {1, 1, 9, 154}};

template <typename Shape, typename Element>
void check_all(Arrival arrival) {
  for (const Problem& problem : kProblems) {
    SCOPED_TRACE(testing::Message() << problem.queries << " queries, " << problem.keys << " keys, heads of "
                                    << Shape::kHeadSize);
    Emulation<Shape, Element>(problem, arrival).check();
  }
}

TEST(AttentionEmulation, EqualsAttentionForEveryHeadSize) {
  check_all<BlockShape<40, 64>, c10::BFloat16>(Arrival::kWhenWaitedFor);
  check_all<BlockShape<64, 64>, c10::Half>(Arrival::kWhenWaitedFor);
  check_all<BlockShape<72, 64>, c10::BFloat16>(Arrival::kWhenWaitedFor);
  check_all<BlockShape<80, 32>, c10::BFloat16>(Arrival::kWhenWaitedFor);
  check_all<BlockShape<96, 32>, c10::Half>(Arrival::kWhenWaitedFor);
  check_all<BlockShape<128, 32>, c10::BFloat16>(Arrival::kWhenWaitedFor);
  check_all<BlockShape<160, 32>, c10::BFloat16>(Arrival::kWhenWaitedFor);
}

TEST(AttentionEmulation, TilesOf80KeysTakeAPromptAtOnce) {
  check_all<BlockShape<40, 80>, c10::BFloat16>(Arrival::kWhenWaitedFor);
  check_all<BlockShape<64, 80>, c10::BFloat16>(Arrival::kWhenWaitedFor);
}

TEST(AttentionEmulation, CopiesMayArriveAtOnce) {
  check_all<BlockShape<40, 64>, c10::BFloat16>(Arrival::kAtOnce);
  check_all<BlockShape<64, 32>, c10::Half>(Arrival::kAtOnce);
}

TEST(AttentionEmulation, LargeScoresStayFinite) {
  // Scores of hundreds: the softmax is nearly one-hot, and a sum relative to anything but the row's largest overflows.
  Emulation<BlockShape<64, 64>, c10::BFloat16>({1, 1, 70, 130}, Arrival::kWhenWaitedFor, /*spread=*/8.0).check();
}

}  // namespace
}  // namespace prefusion::kernels::blockwise
