#include "kernels/attention/attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <fstream>

#include "core/error.h"
#include "kernels/attention/attention_table.h"
#include "tests/kernels/device_test.h"
#include "tests/support/temp_dir.h"

namespace prefusion::kernels {
namespace {

struct Inputs {
  at::Tensor query, key, value;
};

// Heads beside each other in a row, as a projection leaves them.
Inputs make_inputs(int64_t batch, int64_t heads, int64_t queries, int64_t keys, int64_t width, at::Device device,
                   at::ScalarType dtype) {
  at::manual_seed(queries * 100 + keys);
  const auto make = [&](int64_t rows) {
    const at::Tensor x = at::randn({batch, rows, heads, width}).to(device, dtype);
    return x.transpose(1, 2).detach().requires_grad_();
  };
  return {make(queries), make(keys), make(keys)};
}

// Output and gradients of an attention, by `attend`.
template <typename Attend>
std::vector<at::Tensor> differentiate(const Inputs& inputs, const Attend& attend, at::ScalarType dtype) {
  Inputs own;
  for (const auto& [from, into] :
       {std::pair(&inputs.query, &own.query), std::pair(&inputs.key, &own.key), std::pair(&inputs.value, &own.value)}) {
    *into = from->detach().to(dtype).requires_grad_();
  }
  const at::Tensor output = attend(own.query, own.key, own.value);
  at::manual_seed(9);
  output.backward(at::randn(output.sizes()).to(output.options().requires_grad(false)));
  return {output.detach(), own.query.grad(), own.key.grad(), own.value.grad()};
}

double largest_error(const at::Tensor& found, const at::Tensor& expected) {
  return (found.to(at::kDouble) - expected).abs().max().item<double>();
}

// At most twice the error of ATen in the same precision.
void expect_as_good_as_aten(AttentionPath path, const Inputs& inputs, at::ScalarType dtype) {
  const auto aten = [](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    return at::scaled_dot_product_attention(q, k, v);
  };
  const auto own = [path](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    return attention_by(path, q, k, v);
  };
  const auto expected = differentiate(inputs, aten, at::kDouble);
  const auto theirs = differentiate(inputs, aten, dtype);
  const auto found = differentiate(inputs, own, dtype);
  const char* names[] = {"output", "query", "key", "value"};
  for (size_t i = 0; i < expected.size(); ++i) {
    const double rounding = (dtype == at::kFloat  ? 1e-6
                             : dtype == at::kHalf ? 5e-4
                                                  : 4e-3) *
                            std::max(expected[i].abs().max().item<double>(), 1e-3);
    EXPECT_LE(largest_error(found[i], expected[i]), std::max(2 * largest_error(theirs[i], expected[i]), rounding))
        << names[i];
  }
}

class AttentionTest : public tests::DeviceTest {};

// On processors that have the instructions.
class DotAttentionTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!detail::has_bf16_dots()) GTEST_SKIP() << "this processor does not multiply bf16";
  }
  const at::NoGradGuard no_grad;

  static at::Tensor by_dots(const Inputs& inputs) {
    return attention_by(AttentionPath::kDots, inputs.query, inputs.key, inputs.value);
  }
  static at::Tensor exact(const Inputs& inputs) {
    return at::scaled_dot_product_attention(inputs.query.to(at::kDouble), inputs.key.to(at::kDouble),
                                            inputs.value.to(at::kDouble));
  }
  static void expect_as_good_as_aten(const Inputs& inputs) {
    const at::Tensor expected = exact(inputs);
    const at::Tensor theirs = at::scaled_dot_product_attention(inputs.query, inputs.key, inputs.value);
    const double rounding = 4e-3 * std::max(expected.abs().max().item<double>(), 1e-3);
    EXPECT_LE(largest_error(by_dots(inputs), expected), std::max(2 * largest_error(theirs, expected), rounding));
  }
};

TEST_F(DotAttentionTest, EqualsAttentionForEverySize) {
  for (const int64_t width : {1, 3, 8, 16, 17, 40, 64, 80, 96, 128, 160, 512}) {
    for (const auto& [queries, keys] :
         {std::pair{1, 1}, {5, 77}, {6, 16}, {7, 17}, {48, 512}, {49, 513}, {130, 1030}}) {
      SCOPED_TRACE(testing::Message() << queries << " queries, " << keys << " keys, heads of " << width);
      expect_as_good_as_aten(make_inputs(2, 3, queries, keys, width, at::kCPU, at::kBFloat16));
    }
  }
}

TEST_F(DotAttentionTest, LargeScoresStayFiniteAndRowsAddUpToOne) {
  Inputs inputs = make_inputs(1, 2, 70, 1100, 40, at::kCPU, at::kBFloat16);
  inputs.query = inputs.query * 30;
  expect_as_good_as_aten(inputs);
  inputs.value = at::ones_like(inputs.value);
  EXPECT_LE(largest_error(by_dots(inputs), at::ones_like(inputs.query).to(at::kDouble)), 4e-3);
}

TEST_F(DotAttentionTest, TakesAnyStrides) {
  Inputs inputs = make_inputs(2, 3, 20, 33, 24, at::kCPU, at::kBFloat16);
  const at::Tensor expected = by_dots(inputs);
  const Inputs turned{inputs.query.contiguous(), inputs.key.transpose(2, 3).contiguous().transpose(2, 3),
                      inputs.value.contiguous()};
  EXPECT_TRUE(at::equal(by_dots(turned), expected));
  const Inputs repeated{inputs.query, inputs.key.narrow(0, 0, 1).expand({2, 3, 33, 24}),
                        inputs.value.narrow(1, 0, 1).expand({2, 3, 33, 24})};
  const Inputs copied{repeated.query, repeated.key.contiguous(), repeated.value.contiguous()};
  EXPECT_TRUE(at::equal(by_dots(repeated), by_dots(copied)));
}

TEST_F(DotAttentionTest, ShowsWhatIsNotANumber) {
  const Inputs inputs = make_inputs(1, 1, 4, 40, 8, at::kCPU, at::kBFloat16);
  const at::Tensor key = inputs.key.clone();
  key[0][0][33].fill_(NAN);
  EXPECT_TRUE(attention_by(AttentionPath::kDots, inputs.query, key, inputs.value).isnan().all().item<bool>());
}

TEST_F(DotAttentionTest, DoesNotDependOnTheNumberOfThreads) {
  const Inputs inputs = make_inputs(2, 3, 200, 600, 40, at::kCPU, at::kBFloat16);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor one = by_dots(inputs);
  at::set_num_threads(3);
  const at::Tensor three = by_dots(inputs);
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(one, three));
}

TEST_F(DotAttentionTest, IsTakenWhereNothingWillBeDifferentiated) {
  const Inputs inputs = make_inputs(1, 2, 200, 300, 40, at::kCPU, at::kBFloat16);
  const auto attend = [&] { return attention(inputs.query, inputs.key, inputs.value).detach(); };
  const at::Tensor dots = by_dots(inputs), undecided = attend();
  EXPECT_FALSE(at::equal(undecided, dots));
  const ForwardOnly forward_only;
  EXPECT_TRUE(at::equal(attend(), dots));
  const at::AutoGradMode with_gradients(true);
  EXPECT_FALSE(can_attend(AttentionPath::kDots, inputs.query, inputs.key));
  EXPECT_TRUE(at::equal(attend(), undecided));  // a reference and its policy go the same way
  attention(inputs.query, inputs.key, inputs.value).sum().backward();
  EXPECT_TRUE(inputs.query.grad().defined());
  EXPECT_FALSE(can_attend(AttentionPath::kDots, inputs.query.to(at::kFloat), inputs.key));
  EXPECT_THROW(attention_by(AttentionPath::kDots, inputs.query.detach(), inputs.key.detach(), inputs.value), Error);
}

TEST_P(AttentionTest, PlainPathEqualsAttention) {
  for (const auto& [queries, keys, width] : {std::tuple{17, 9, 40}, {1, 1, 8}, {5, 77, 3}}) {
    const Inputs inputs = make_inputs(2, 3, queries, keys, width, device(), at::kFloat);
    expect_as_good_as_aten(AttentionPath::kPlain, inputs, at::kFloat);
  }
}

// Kernels of a GPU; their arithmetic is tested everywhere, by AttentionEmulation and AttentionHopperEmulation.
class AttentionBlocksTest : public testing::TestWithParam<AttentionPath> {
 protected:
  void SetUp() override {
    const std::string reason = tests::skip_reason("cuda");
    if (!reason.empty()) GTEST_SKIP() << reason;
    const at::Tensor probe = at::zeros({1, 1, 1, 64}, at::TensorOptions().device(device_).dtype(at::kHalf));
    if (!can_attend(GetParam(), probe, probe)) GTEST_SKIP() << "not for this GPU";
  }

  void expect_as_good(int64_t batch, int64_t heads, int64_t queries, int64_t keys, int64_t width,
                      at::ScalarType dtype) {
    SCOPED_TRACE(testing::Message() << queries << " x " << keys << " of " << width);
    expect_as_good_as_aten(GetParam(), make_inputs(batch, heads, queries, keys, width, device_, dtype), dtype);
  }

  const at::Device device_ = at::kCUDA;
};

TEST_P(AttentionBlocksTest, EqualAttentionForEveryHeadSize) {
  for (const int64_t width : {40, 64, 72, 80, 96, 128, 160}) {
    for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf}) {
      for (const auto& [queries, keys] :
           {std::pair<int64_t, int64_t>{1, 1}, {63, 65}, {130, 77}, {257, 333}, {650, 77}, {77, 650}}) {
        expect_as_good(2, 2, queries, keys, width, dtype);
      }
    }
  }
}

TEST_P(AttentionBlocksTest, EqualAttentionOverLongRows) {
  for (const int64_t width : {40, 64, 128}) expect_as_good(2, 4, 4096, 4096, width, at::kBFloat16);
}

TEST_P(AttentionBlocksTest, RepeatToTheBit) {
  const Inputs inputs = make_inputs(2, 4, 300, 200, 64, device_, at::kBFloat16);
  const auto own = [](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    return attention_by(GetParam(), q, k, v);
  };
  const auto first = differentiate(inputs, own, at::kBFloat16), second = differentiate(inputs, own, at::kBFloat16);
  for (size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(at::equal(first[i], second[i]));
}

TEST_P(AttentionBlocksTest, HeadsThatAreOneInMemoryAreReadAsMany) {
  const Inputs inputs = make_inputs(2, 1, 70, 90, 64, device_, at::kBFloat16);
  const auto spread = [](const at::Tensor& x) { return x.detach().expand({-1, 3, -1, -1}); };
  const at::Tensor q = spread(inputs.query), k = spread(inputs.key), v = spread(inputs.value);
  const at::Tensor expected = attention_by(GetParam(), q.contiguous(), k.contiguous(), v.contiguous());
  EXPECT_TRUE(at::equal(attention_by(GetParam(), q, k, v), expected));
}

TEST_P(AttentionBlocksTest, AGradientThatIsOneNumberInMemoryIsReadAsMany) {
  const Inputs inputs = make_inputs(2, 3, 70, 90, 64, device_, at::kBFloat16);
  const auto differentiate_by = [&](const at::Tensor& grad) {
    const at::Tensor output = attention_by(GetParam(), inputs.query, inputs.key, inputs.value);
    return torch::autograd::grad({output}, {inputs.query, inputs.key, inputs.value}, {grad});
  };
  const at::Tensor one = at::ones({1, 1, 1, 1}, inputs.query.options().requires_grad(false));
  const at::Tensor grad = one.expand(inputs.query.sizes());
  const auto found = differentiate_by(grad), expected = differentiate_by(grad.contiguous());
  for (size_t i = 0; i < found.size(); ++i) EXPECT_TRUE(at::equal(found[i], expected[i]));
}

TEST_P(AttentionTest, RefusesWhatDoesNotFit) {
  const at::Tensor query = at::ones({1, 2, 3, 8}, device()), key = at::ones({1, 2, 5, 8}, device());
  EXPECT_THROW(attention(query, key, at::ones({1, 2, 4, 8}, device())), Error);
  EXPECT_THROW(attention(query, at::ones({1, 2, 5, 4}, device()), at::ones({1, 2, 5, 4}, device())), Error);
  EXPECT_THROW(attention(query, key.to(at::kDouble), key.to(at::kDouble)), Error);
  EXPECT_THROW(attention(query, key.slice(2, 0, 0), key.slice(2, 0, 0)), Error);
  EXPECT_FALSE(can_attend(AttentionPath::kBlocks, query, key)) << "fp32";
  EXPECT_FALSE(can_attend(AttentionPath::kHopper, query, key)) << "fp32";
  EXPECT_FALSE(can_attend(AttentionPath::kPlain, query.to(at::kHalf), key.to(at::kHalf)));
  EXPECT_THROW(attention_by(AttentionPath::kBlocks, query, key, key), Error);
}

INSTANTIATE_TEST_SUITE_P(Devices, AttentionTest, testing::Values("cpu", "cuda"), tests::device_name);
INSTANTIATE_TEST_SUITE_P(Cuda, AttentionBlocksTest, testing::Values(AttentionPath::kBlocks, AttentionPath::kHopper),
                         [](const auto& info) { return std::string(attention_path_name(info.param)); });

TEST(AttentionTable, KnowsWhatWasMeasuredAndNothingElse) {
  const tests::TempDir folder;
  const at::Tensor query = at::ones({2, 3, 16, 8}), key = at::ones({2, 3, 77, 8});
  AttentionTable table;
  table.set(query, key, /*has_gradient=*/true, AttentionPath::kPlain);
  table.save(folder / "table.json");
  const AttentionTable loaded = AttentionTable::load(folder / "table.json");
  EXPECT_EQ(loaded.size(), 1U);
  EXPECT_EQ(loaded.find(query, key, true), AttentionPath::kPlain);
  EXPECT_EQ(loaded.find(at::ones({5, 1, 16, 8}), at::ones({5, 1, 77, 8}), true), AttentionPath::kPlain)
      << "items and heads do not matter";
  EXPECT_EQ(loaded.find(query, key, false), std::nullopt);
  EXPECT_EQ(loaded.find(query, query, true), std::nullopt);
  EXPECT_EQ(loaded.find(query.to(at::kBFloat16), key.to(at::kBFloat16), true), std::nullopt);
  EXPECT_EQ(AttentionTable::load(folder / "missing.json").size(), 0U);
}

TEST(AttentionTable, RefusesOtherFiles) {
  const tests::TempDir folder;
  for (const char* text :
       {"{}", "[1]", "nonsense", R"({"format": "prefusion attention table 1", "fastest": {"x": "quick"}})"}) {
    std::ofstream(folder / "table.json") << text;
    EXPECT_THROW(AttentionTable::load(folder / "table.json"), Error) << text;
  }
}

TEST(AttentionRecorder, CollectsShapesWhileItLives) {
  const at::Tensor query = at::ones({2, 3, 4, 8}), key = at::ones({2, 3, 5, 8});
  AttentionRecorder outer;
  {
    AttentionRecorder inner;
    attention(query, key, key);
    attention(query, key, key);
    attention(query, query, query);
    EXPECT_EQ(inner.shapes().size(), 2U);
  }
  attention(query, key, key);
  ASSERT_EQ(outer.shapes().size(), 1U);
  EXPECT_EQ(outer.shapes().begin()->keys, 5);
}

}  // namespace
}  // namespace prefusion::kernels
