#include <ATen/ATen.h>

#include <map>
#include <numeric>

#include "core/error.h"
#include "layouts/network_layouts.h"

namespace prefusion::layouts {
namespace {

std::string joined(const std::vector<std::string>& names) {
  constexpr size_t kShown = 5;
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kShown); ++i) text += (i ? ", " : "") + names[i];
  if (names.size() > kShown) text += concat(" and ", names.size() - kShown, " more");
  return text;
}

TensorSource swapped_halves(const TensorSource& source, const std::string& what) {
  check_input(!source.shape.empty() && source.shape[0] % 2 == 0, what, " has shape ", shape_text(source.shape),
              ", expected an even number of rows (shift and scale)");
  return {source.dtype, source.shape, [load = source.load] {
            const auto halves = load().chunk(2, 0);
            return at::cat({halves[1], halves[0]}, 0);
          }};
}

TensorSource transposed(const TensorSource& source, const std::string& what) {
  check_input(source.shape.size() == 2, what, " has shape ", shape_text(source.shape), ", expected a matrix");
  return {source.dtype, {source.shape[1], source.shape[0]}, [load = source.load] { return load().t().contiguous(); }};
}

TensorSource reshaped(const TensorSource& source, std::vector<int64_t> shape) {
  return {source.dtype, shape, [load = source.load, shape] { return load().reshape(shape); }};
}

// A linear layer's matrix of a 1x1 convolution's weight; the old 1D convolutions have three dimensions.
TensorSource as_linear(const TensorSource& source, const std::string& what) {
  if (source.shape.size() < 3) return source;
  for (size_t i = 2; i < source.shape.size(); ++i) {
    check_input(source.shape[i] == 1, what, " has shape ", shape_text(source.shape), ", expected a 1x1 convolution");
  }
  return reshaped(source, {source.shape[0], source.shape[1]});
}

TensorSource as_convolution(const TensorSource& source) {
  if (source.shape.size() != 2) return source;
  return reshaped(source, {source.shape[0], source.shape[1], 1, 1});
}

// Halves and transposes are their own inverses.
TensorSource changed(const TensorSource& source, Change change, bool to_diffusers, const std::string& what) {
  switch (change) {
    case Change::kNone: return source;
    case Change::kSwapHalves: return swapped_halves(source, what);
    case Change::kTranspose: return transposed(source, what);
    case Change::kPointwiseConv: return to_diffusers ? as_linear(source, what) : as_convolution(source);
  }
  return source;
}

TensorSource sliced(const TensorSource& source, int64_t begin, int64_t rows) {
  std::vector<int64_t> shape = source.shape;
  shape[0] = rows;
  return {source.dtype, shape, [load = source.load, begin, rows] { return load().narrow(0, begin, rows); }};
}

TensorSource stacked(const std::vector<TensorSource>& parts, const std::string& what) {
  std::vector<int64_t> shape = parts.front().shape;
  check_input(!shape.empty(), what, ": a part of it is a single number");
  shape[0] = 0;
  for (const TensorSource& part : parts) {
    const bool fits = part.dtype == parts.front().dtype && part.shape.size() == shape.size() &&
                      std::equal(shape.begin() + 1, shape.end(), part.shape.begin() + 1);
    check_input(fits, what, ": its parts have shapes ", shape_text(parts.front().shape), " and ",
                shape_text(part.shape), " or several dtypes and cannot be packed");
    shape[0] += part.shape[0];
  }
  return {parts.front().dtype, shape, [parts] {
            std::vector<at::Tensor> loaded;
            for (const TensorSource& part : parts) loaded.push_back(part.load());
            return at::cat(loaded, 0);
          }};
}

void check_known(const std::vector<std::string>& unknown, const std::string& where, const char* layout) {
  check_input(unknown.empty(), where, ": ", unknown.size(), " tensors belong to no layer of this network in ", layout,
              " names: ", joined(unknown));
}

}  // namespace

std::vector<int64_t> part_rows(const KeyRule& rule, int64_t rows, const std::string& what) {
  std::vector<int64_t> parts = rule.rows;
  const auto count = static_cast<int64_t>(rule.diffusers.size());
  if (parts.empty()) {
    check_input(rows % count == 0, what, " has ", rows, " rows, which ", count, " parts cannot share equally");
    return std::vector<int64_t>(count, rows / count);
  }
  int64_t known = 0;
  for (const int64_t part : parts) known += std::max<int64_t>(part, 0);
  for (int64_t& part : parts) part = part < 0 ? rows - known : part;
  const int64_t total = std::accumulate(parts.begin(), parts.end(), int64_t{0});
  check_input(total == rows && parts.back() > 0, what, " has ", rows, " rows, more than ", known, " were expected");
  return parts;
}

TensorSources original_to_diffusers(const TensorSources& tensors, const KeyMap& layout, const std::string& where) {
  TensorSources converted;
  std::vector<std::string> unknown;
  for (const auto& [name, source] : tensors) {
    const auto match = layout.from_original(name);
    if (!match) {
      unknown.push_back(name);
      continue;
    }
    const std::string what = where + ": '" + name + "'";
    if (match->diffusers.size() == 1) {
      converted.emplace(match->diffusers.front(), changed(source, match->rule->change, /*to_diffusers=*/true, what));
      continue;
    }
    check_input(!source.shape.empty(), what, " is a single number");
    const auto rows = part_rows(*match->rule, source.shape.front(), what);
    int64_t begin = 0;
    for (size_t i = 0; i < rows.size(); begin += rows[i], ++i) {
      converted.emplace(match->diffusers[i], sliced(source, begin, rows[i]));
    }
  }
  check_known(unknown, where, "the original");
  return converted;
}

TensorSources diffusers_to_original(const TensorSources& tensors, const KeyMap& layout, const std::string& where) {
  TensorSources converted;
  std::vector<std::string> unknown;
  for (const auto& [name, source] : tensors) {
    const auto match = layout.from_diffusers(name);
    if (!match) {
      unknown.push_back(name);
      continue;
    }
    const std::string what = where + ": '" + name + "'";
    if (match->diffusers.size() == 1) {
      const auto [entry, is_new] =
          converted.emplace(match->original, changed(source, match->rule->change, /*to_diffusers=*/false, what));
      check_input(is_new, what, " is there twice, under names of two versions");
      continue;
    }
    if (converted.contains(match->original)) continue;
    std::vector<TensorSource> parts;
    for (const auto& part : match->diffusers) {
      const auto found = tensors.find(part);
      check_input(found != tensors.end(), where, ": '", part, "' is missing beside '", name, "'");
      parts.push_back(found->second);
    }
    converted.emplace(match->original, stacked(parts, what));
  }
  check_known(unknown, where, "diffusers'");
  return converted;
}

int64_t count_numbered(const TensorSources& tensors, const std::string& prefix) {
  int64_t count = 0;
  for (auto entry = tensors.lower_bound(prefix); entry != tensors.end() && entry->first.starts_with(prefix); ++entry) {
    const int64_t number = std::atoll(entry->first.c_str() + prefix.size());
    count = std::max(count, number + 1);
  }
  return count;
}

}  // namespace prefusion::layouts
