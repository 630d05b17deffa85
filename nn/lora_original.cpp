#include "nn/lora_original.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <string_view>

#include "core/error.h"
#include "layouts/network_layouts.h"

namespace prefusion::nn {
namespace {

// Every part of a layer's path that has an underscore of its own, in any of the layouts.
constexpr std::array kWords = {"adaLN_modulation",
                               "add_embedding",
                               "add_k_proj",
                               "add_q_proj",
                               "add_v_proj",
                               "context_block",
                               "context_embedder",
                               "conv_in",
                               "conv_norm_out",
                               "conv_out",
                               "conv_shortcut",
                               "double_blocks",
                               "down_blocks",
                               "emb_layers",
                               "ff_context",
                               "final_layer",
                               "final_layer_norm",
                               "group_norm",
                               "guidance_embedder",
                               "guidance_in",
                               "img_attn",
                               "img_in",
                               "img_mlp",
                               "img_mod",
                               "in_layer",
                               "in_layers",
                               "input_blocks",
                               "joint_blocks",
                               "k_proj",
                               "label_emb",
                               "layer_norm1",
                               "layer_norm2",
                               "linear_1",
                               "linear_2",
                               "mid_block",
                               "middle_block",
                               "norm1_context",
                               "norm_out",
                               "out_layer",
                               "out_layers",
                               "out_proj",
                               "output_blocks",
                               "patch_embedding",
                               "pos_embed",
                               "position_embedding",
                               "proj_in",
                               "proj_mlp",
                               "proj_out",
                               "q_proj",
                               "self_attn",
                               "single_blocks",
                               "single_transformer_blocks",
                               "skip_connection",
                               "t_embedder",
                               "text_embedder",
                               "text_model",
                               "text_projection",
                               "time_emb_proj",
                               "time_embed",
                               "time_embedding",
                               "time_in",
                               "time_text_embed",
                               "timestep_embedder",
                               "to_add_out",
                               "to_k",
                               "to_out",
                               "to_q",
                               "to_v",
                               "token_embedding",
                               "transformer_blocks",
                               "txt_attn",
                               "txt_in",
                               "txt_mlp",
                               "txt_mod",
                               "up_blocks",
                               "v_proj",
                               "vector_in",
                               "x_block",
                               "x_embedder",
                               "y_embedder"};

// The longest word at the front that ends where the name or a part of it ends.
size_t word_length(std::string_view name) {
  size_t longest = 0;
  for (const std::string_view word : kWords) {
    const bool fits = name.starts_with(word) && (name.size() == word.size() || name[word.size()] == '_');
    if (fits) longest = std::max(longest, word.size());
  }
  return longest > 0 ? longest : std::min(name.find('_'), name.size());
}

// The layout of the original code that the names are of.
class OriginalLayout {
 public:
  // Nothing for names of another network. `modules` are looked at for the sizes the layout depends on.
  static std::optional<OriginalLayout> of(const std::vector<LoraFileModule>& modules) {
    for (const auto& module : modules) {
      if (!is_denoiser(module.component)) continue;
      const std::string name = dotted_name(module.name);
      if (name.starts_with("joint_blocks.")) return OriginalLayout(/*is_flux=*/false);
      if (name.starts_with("double_blocks.") || name.starts_with("single_blocks.")) return OriginalLayout(true);
    }
    return std::nullopt;
  }

  // The blocks of SD3 and the double blocks of FLUX have the same names in diffusers: without another sign, their width
  // tells, which in FLUX is 3072.
  static std::optional<OriginalLayout> of_diffusers(const std::vector<LoraFileModule>& modules, bool is_flux) {
    constexpr int64_t kFluxWidth = 3072;
    bool is_transformer = false;
    for (const auto& module : modules) {
      if (!is_denoiser(module.component)) continue;
      const bool is_single = module.name.starts_with("single_transformer_blocks.");
      const bool is_query = module.name.ends_with("attn.to_q") && module.A.size(1) == kFluxWidth;
      is_transformer |= module.component == LoraComponent::kTransformer || is_single ||
                        module.name.starts_with("transformer_blocks.");
      is_flux |=
          is_single || module.name == "x_embedder" || (is_query && module.name.starts_with("transformer_blocks."));
    }
    if (!is_transformer) return std::nullopt;
    return OriginalLayout(is_flux);
  }

  // The table for one module. In SD3 the last block's context has a norm without a gate: two rows a column, not six.
  layouts::KeyMap table(const LoraFileModule& module, const std::string& name) const {
    if (is_flux_) return layouts::flux_layout(module.A.size(1));
    const bool is_context_norm =
        name.ends_with("context_block.adaLN_modulation.1") || name.ends_with("norm1_context.linear");
    const bool is_last = is_context_norm && module.B.size(0) == 2 * module.A.size(1);
    const size_t number = name.find('.') + 1;
    return layouts::sd3_layout(is_last ? std::atoll(name.c_str() + number) + 1 : 0);
  }

 private:
  explicit OriginalLayout(bool is_flux) : is_flux_(is_flux) {}
  bool is_flux_;
};

constexpr std::string_view kWeight = ".weight";

std::string without_weight(const std::string& name) {
  return name.substr(0, name.size() - kWeight.size());
}

bool is_zero(const at::Tensor& tensor) {
  return tensor.count_nonzero().item<int64_t>() == 0;
}

at::Tensor swapped_halves(const at::Tensor& tensor) {
  const auto halves = tensor.chunk(2, 0);
  return at::cat({halves[1], halves[0]}, 0);
}

LoraFileModule part_of(const LoraFileModule& whole, std::string name, at::Tensor A, at::Tensor B, double share = 1.0) {
  LoraFileModule part = whole;
  part.component = LoraComponent::kTransformer;
  part.name = std::move(name);
  part.A = std::move(A);
  part.B = std::move(B);
  if (part.alpha) *part.alpha *= share;
  return part;
}

// Whether B [rows, r] is made of blocks, each part with its own share of the rank.
bool is_in_blocks(const std::vector<at::Tensor>& parts, int64_t rank) {
  const auto count = static_cast<int64_t>(parts.size());
  if (rank % count != 0) return false;
  const int64_t share = rank / count;
  for (int64_t i = 0; i < count; ++i) {
    const at::Tensor own = parts[i].narrow(1, i * share, share);
    if (parts[i].count_nonzero().item<int64_t>() != own.count_nonzero().item<int64_t>()) return false;
  }
  return true;
}

std::vector<LoraFileModule> split(const LoraFileModule& module, const layouts::KeyMatch& match,
                                  const std::string& what) {
  const std::vector<int64_t> rows = layouts::part_rows(*match.rule, module.B.size(0), what);
  const std::vector<at::Tensor> parts = module.B.split_with_sizes(rows, 0);
  const auto count = static_cast<int64_t>(parts.size());
  const bool in_blocks = is_in_blocks(parts, module.rank());
  const int64_t share = in_blocks ? module.rank() / count : module.rank();
  const bool all_zero = is_zero(module.B);
  std::vector<LoraFileModule> modules;
  for (int64_t i = 0; i < count; ++i) {
    if (!all_zero && is_zero(parts[i])) continue;
    const std::string name = without_weight(match.diffusers[i]);
    if (in_blocks) {
      modules.push_back(part_of(module, name, module.A.narrow(0, i * share, share),
                                parts[i].narrow(1, i * share, share), 1.0 / static_cast<double>(count)));
    } else {
      modules.push_back(part_of(module, name, module.A, parts[i]));
    }
  }
  return modules;
}

double scale_of(const LoraFileModule& module) {
  return module.alpha.value_or(static_cast<double>(module.rank())) / static_cast<double>(module.rank());
}

// Zeros for the rows of parts that are not there: all parts of a packed layer read the same input.
int64_t missing_rows(const layouts::KeyRule& rule, const std::vector<const LoraFileModule*>& parts, size_t index) {
  for (size_t i = 0; i < parts.size(); ++i) {
    if (!parts[i]) continue;
    const bool is_equal = rule.rows.empty() || (rule.rows[i] >= 0 && rule.rows[index] >= 0);
    if (is_equal) return parts[i]->B.size(0);
  }
  // Only the wide part of a single block is there, or only the wide one is missing: four times the width.
  for (const auto* part : parts) {
    if (part) return rule.rows[index] < 0 ? 4 * part->A.size(1) : part->A.size(1);
  }
  return 0;
}

LoraFileModule packed(const layouts::KeyMatch& match, const std::vector<const LoraFileModule*>& parts) {
  const LoraFileModule& first = **std::find_if(parts.begin(), parts.end(), [](const auto* part) { return part; });
  const double scale = scale_of(first);
  const bool shares_A = std::all_of(parts.begin(), parts.end(), [&](const LoraFileModule* part) {
    return part && scale_of(*part) == scale && part->A.sizes() == first.A.sizes() && at::equal(part->A, first.A);
  });
  LoraFileModule whole = first;
  whole.name = without_weight(match.original);
  std::vector<at::Tensor> A, B;
  int64_t rank = 0;
  for (const auto* part : parts) rank += part ? part->rank() : 0;
  if (shares_A) rank = first.rank();
  int64_t column = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (shares_A) {
      B.push_back(parts[i]->B);
      continue;
    }
    const int64_t rows = parts[i] ? parts[i]->B.size(0) : missing_rows(*match.rule, parts, i);
    at::Tensor block = at::zeros({rows, rank}, first.B.options());
    if (parts[i]) {
      const double factor = scale_of(*parts[i]) / scale;
      block.narrow(1, column, parts[i]->rank())
          .copy_(factor == 1.0 ? parts[i]->B : parts[i]->B.to(at::kFloat) * factor);
      A.push_back(parts[i]->A);
      column += parts[i]->rank();
    }
    B.push_back(block);
  }
  whole.A = shares_A ? first.A : at::cat(A, 0);
  whole.B = at::cat(B, 0);
  whole.alpha = scale * static_cast<double>(rank);
  return whole;
}

}  // namespace

std::string dotted_name(const std::string& flat) {
  if (flat.find('.') != std::string::npos) return flat;
  std::string dotted;
  std::string_view rest = flat;
  while (!rest.empty()) {
    const size_t length = word_length(rest);
    dotted += (dotted.empty() ? "" : ".") + std::string(rest.substr(0, length));
    rest.remove_prefix(std::min(length + 1, rest.size()));
  }
  return dotted;
}

bool is_transformer_lora(const std::vector<LoraFileModule>& modules) {
  return OriginalLayout::of_diffusers(modules, /*is_flux=*/false).has_value();
}

void expand_original_modules(LoraFile& file) {
  const auto layout = OriginalLayout::of(file.modules);
  if (!layout) return;
  std::vector<LoraFileModule> expanded;
  for (LoraFileModule& module : file.modules) {
    const std::string name = dotted_name(module.name);
    const bool is_layer = is_denoiser(module.component) && module.A.dim() == 2;
    const layouts::KeyMap table = layout->table(module, name);
    const auto match = is_layer ? table.from_original(name + std::string(kWeight)) : std::nullopt;
    if (!match) {
      expanded.push_back(std::move(module));
    } else if (match->diffusers.size() == 1) {
      const bool swaps = match->rule->change == layouts::Change::kSwapHalves;
      const at::Tensor B = swaps ? swapped_halves(module.B) : module.B;
      expanded.push_back(part_of(module, without_weight(match->diffusers.front()), module.A, B));
    } else {
      for (auto& part : split(module, *match, file.path.string() + ": '" + module.name + "'")) {
        expanded.push_back(std::move(part));
      }
    }
  }
  file.modules = std::move(expanded);
}

std::vector<LoraFileModule> original_modules(const std::vector<LoraFileModule>& modules, bool is_flux,
                                             const std::string& where) {
  const auto layout = OriginalLayout::of_diffusers(modules, is_flux);
  if (!layout) return modules;
  std::map<std::string, const LoraFileModule*> by_name;
  for (const auto& module : modules) {
    if (is_denoiser(module.component)) by_name[module.name] = &module;
  }
  std::vector<LoraFileModule> originals;
  std::map<std::string, bool> done;
  for (const auto& module : modules) {
    if (!is_denoiser(module.component)) {
      originals.push_back(module);
      continue;
    }
    const layouts::KeyMap table = layout->table(module, module.name);
    const auto match = table.from_diffusers(module.name + std::string(kWeight));
    check_input(match.has_value(), where, ": layer '", module.name, "' has no name in the original code");
    if (match->diffusers.size() == 1) {
      const bool swaps = match->rule->change == layouts::Change::kSwapHalves;
      originals.push_back(
          part_of(module, without_weight(match->original), module.A, swaps ? swapped_halves(module.B) : module.B));
    } else if (!done[match->original]) {
      done[match->original] = true;
      std::vector<const LoraFileModule*> parts;
      for (const auto& name : match->diffusers) {
        const auto found = by_name.find(without_weight(name));
        parts.push_back(found == by_name.end() ? nullptr : found->second);
      }
      originals.push_back(packed(*match, parts));
    }
  }
  return originals;
}

}  // namespace prefusion::nn
