#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"
#include "core/logging.h"
#include "core/progress.h"
#include "kernels/attention/attention.h"
#include "kernels/attention/attention_table.h"
#include "tools/bench_denoiser.h"
#include "tools/bench_parts.h"

namespace prefusion::tools {
namespace {

using kernels::AttentionPath;
using kernels::AttentionShape;

struct Heads {
  at::Tensor query, key, value;
};

// As a projection leaves them: the heads of a token beside each other.
Heads random_heads(const AttentionShape& shape, const BenchOptions& options) {
  const auto make = [&](int64_t rows) {
    return at::randn({shape.batch, rows, shape.heads, shape.head_size},
                     at::TensorOptions().device(options.device).dtype(shape.dtype))
        .transpose(1, 2)
        .detach()
        .requires_grad_();
  };
  return {make(shape.queries), make(shape.keys), make(shape.keys)};
}

void differentiate(AttentionPath path, const Heads& heads) {
  const at::Tensor output = kernels::attention_by(path, heads.query, heads.key, heads.value);
  output.backward(at::ones_like(output));
  for (const at::Tensor* input : {&heads.query, &heads.key, &heads.value}) input->mutable_grad().reset();
}

// The largest differences from attention in fp64, of output and, where they are wanted, gradients, on what fits a few
// heads.
double error_of(AttentionPath path, const AttentionShape& whole, bool has_gradient, const BenchOptions& options) {
  AttentionShape shape = whole;
  shape.batch = 1;
  shape.heads = std::min<int64_t>(2, whole.heads);
  at::manual_seed(options.seed);
  const Heads heads = random_heads(shape, options);
  const auto results = [&](AttentionPath by, at::ScalarType dtype) {
    std::vector<at::Tensor> inputs;
    for (const at::Tensor* input : {&heads.query, &heads.key, &heads.value}) {
      inputs.push_back(input->detach().to(dtype).requires_grad_(has_gradient));
    }
    const at::Tensor output = kernels::attention_by(by, inputs[0], inputs[1], inputs[2]);
    if (!has_gradient) return std::vector<at::Tensor>{output};
    output.backward(at::ones_like(output));
    return std::vector<at::Tensor>{output.detach(), inputs[0].grad(), inputs[1].grad(), inputs[2].grad()};
  };
  const auto expected = results(AttentionPath::kPlain, at::kDouble), found = results(path, shape.dtype);
  double largest = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double scale = std::max(expected[i].abs().max().item<double>(), 1e-6);
    largest = std::max(largest, (found[i].to(at::kDouble) - expected[i]).abs().max().item<double>() / scale);
  }
  return largest;
}

// A path is only taken where it is about as exact as ATen's.
bool is_exact(AttentionPath path, const AttentionShape& shape, bool has_gradient, const BenchOptions& options) {
  if (path == AttentionPath::kAten) return true;
  const double error = error_of(path, shape, has_gradient, options),
               aten = error_of(AttentionPath::kAten, shape, has_gradient, options);
  const double rounding = shape.dtype == at::kFloat ? 1e-5 : shape.dtype == at::kHalf ? 1e-3 : 1e-2;
  if (error <= std::max(2 * aten, rounding)) return true;
  log_warn("attention ", kernels::attention_path_name(path), " is off by ", error, " where ATen is by ", aten,
           "; it is left out");
  return false;
}

// ATen's is the baseline, and always there.
bool is_wanted(AttentionPath path, const BenchOptions& options) {
  const std::string name = kernels::attention_path_name(path);
  return path == AttentionPath::kAten || options.paths.empty() ||
         std::find(options.paths.begin(), options.paths.end(), name) != options.paths.end();
}

std::string shape_name(const AttentionShape& shape, bool has_gradient) {
  return concat(shape.batch, " x ", shape.heads, " heads of ", shape.head_size, ", ", shape.queries, " x ", shape.keys,
                has_gradient ? ", forward and backward" : ", forward");
}

bool can_attend(AttentionPath path, const Heads& heads, bool has_gradient) {
  const at::AutoGradMode gradients(has_gradient);
  return kernels::can_attend(path, heads.query, heads.key);
}

// Adds a row for every path that can, and enters the fastest.
void tune_shape(const AttentionShape& shape, bool has_gradient, const BenchOptions& options,
                std::vector<BenchRow>& rows, kernels::AttentionTable& table) {
  const Heads heads = random_heads(shape, options);
  const std::string baseline = shape_name(shape, has_gradient) + ", aten";
  AttentionPath fastest = AttentionPath::kAten;
  double shortest = 0;
  for (const AttentionPath path : kernels::kAttentionPaths) {
    if (!is_wanted(path, options) || !can_attend(path, heads, has_gradient)) continue;
    if (!is_exact(path, shape, has_gradient, options)) continue;
    const auto forward = [&] {
      const at::NoGradGuard no_grad;
      kernels::attention_by(path, heads.query, heads.key, heads.value);
    };
    const auto both = [&] { differentiate(path, heads); };
    const Timing timing = has_gradient ? time_runs(both, options.device, options.repeats)
                                       : time_runs(forward, options.device, options.repeats);
    rows.push_back({.name = shape_name(shape, has_gradient) + ", " + kernels::attention_path_name(path),
                    .timing = timing,
                    .baseline = path == AttentionPath::kAten ? "" : baseline});
    if (path == AttentionPath::kAten || timing.median < shortest) {
      fastest = path;
      shortest = timing.median;
    }
  }
  table.set(heads.query, heads.key, has_gradient, fastest);
}

std::set<AttentionShape> shapes_of_model(const BenchOptions& options) {
  const DenoiserPass pass(options);
  const kernels::AttentionRecorder recorder;
  pass.forward();
  return recorder.shapes();
}

}  // namespace

std::vector<BenchRow> bench_tune(const BenchOptions& options) {
  const auto path = kernels::attention_table_path();
  check_usage(!path.empty(), "bench tune: there is no place for the table; set PREFUSION_TUNING to a file");
  const auto shapes = shapes_of_model(options);
  check_usage(!shapes.empty(), "bench tune: ", options.model.string(), " has no attention without a mask");
  auto table = kernels::AttentionTable::load(path);
  std::vector<BenchRow> rows;
  Progress progress("tune", static_cast<int64_t>(2 * shapes.size()), "shape", options.shows_progress);
  int64_t done = 0;
  for (const AttentionShape& shape : shapes) {
    for (const bool has_gradient : {false, true}) {
      tune_shape(shape, has_gradient, options, rows, table);
      progress.update(++done);
    }
  }
  if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path());
  table.save(path);
  log_info("wrote the fastest paths to ", path.string());
  return rows;
}

}  // namespace prefusion::tools
