#include "text/word_tokenizer.h"

#include <map>
#include <set>
#include <utility>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/json_config.h"
#include "text/byte_pair_encoding.h"
#include "text/clip_pre_tokenizer.h"
#include "text/unicode.h"

namespace prefusion::text {
namespace {

using Pair = std::pair<std::string, std::string>;

class MergeBuilder {
 public:
  // A new merge ranks after all older ones. The words that are whole already get there with older merges alone, each
  // step of which goes before any newer merge: so they stay whole.
  void add_word(const std::string& word) {
    for (std::vector<std::string> symbols = encode(word); symbols.size() > 1; symbols = encode(word)) {
      ranks_.emplace(Pair(symbols[0], symbols[1]), merges_.size());
      merges_.emplace_back(symbols[0], symbols[1]);
    }
  }
  const std::vector<Pair>& merges() const { return merges_; }

 private:
  std::vector<std::string> encode(const std::string& word) const {
    std::vector<std::string> symbols;
    for (const char byte : word) symbols.push_back(byte_symbols()[static_cast<unsigned char>(byte)]);
    symbols.back() += kEndOfWord;
    while (true) {
      size_t best_rank = merges_.size(), best = 0;
      for (size_t i = 0; i + 1 < symbols.size(); ++i) {
        const auto found = ranks_.find({symbols[i], symbols[i + 1]});
        if (found == ranks_.end() || found->second >= best_rank) continue;
        best_rank = found->second;
        best = i;
      }
      if (best_rank == merges_.size()) return symbols;
      symbols[best] += symbols[best + 1];
      symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    }
  }

  std::vector<Pair> merges_;
  std::map<Pair, size_t> ranks_;
};

// The 256 byte symbols in the order of CLIP's own vocabulary: printable bytes first.
std::vector<std::string> ordered_byte_symbols() {
  std::vector<std::string> printable, others;
  for (size_t byte = 0; byte < 256; ++byte) {
    const std::string& symbol = byte_symbols()[byte];
    size_t position = 0;
    (next_code_point(symbol, position) == byte ? printable : others).push_back(symbol);
  }
  printable.insert(printable.end(), others.begin(), others.end());
  return printable;
}

constexpr const char* kBos = "<|startoftext|>";
constexpr const char* kEos = "<|endoftext|>";

std::string vocab_json(const std::vector<Pair>& merges) {
  // Written by hand because a JSON object does not keep the order, and ids in order are what people expect to read.
  std::string text = "{";
  int64_t next_id = 0;
  std::set<std::string> known;  // two merges may give the same token
  const auto add = [&](const std::string& token) {
    if (!known.insert(token).second) return;
    text += (next_id ? ", " : "") + Json(token).dump() + ": " + std::to_string(next_id);
    ++next_id;
  };
  const std::vector<std::string> bytes = ordered_byte_symbols();
  for (const std::string& symbol : bytes) add(symbol);
  for (const std::string& symbol : bytes) add(symbol + std::string(kEndOfWord));
  for (const auto& [left, right] : merges) add(left + right);
  add(kBos);
  add(kEos);
  return text + "}\n";
}

}  // namespace

void write_word_tokenizer(const std::filesystem::path& folder, const std::vector<std::string>& words,
                          int64_t model_max_length) {
  check_usage(model_max_length >= 2, "a tokenizer needs a model_max_length of at least 2, found ", model_max_length);
  MergeBuilder builder;
  for (const std::string& word : words) {
    const bool is_valid = !word.empty() && find_invalid_utf8(word) == std::string::npos && normalize_clip(word) == word;
    check_usage(is_valid && split_clip_words(word) == std::vector<std::string_view>{word}, "'", word,
                "' cannot be one token of a CLIP tokenizer: expected lower-case letters, or punctuation alone");
    builder.add_word(word);
  }
  std::string merges = "#version: 0.2\n";
  for (const auto& [left, right] : builder.merges()) merges += left + " " + right + "\n";
  const Json specials = {{"bos_token", kBos}, {"eos_token", kEos}, {"pad_token", kEos}, {"unk_token", kEos}};
  Json config = specials;
  config["add_prefix_space"] = false;
  config["do_lower_case"] = true;
  config["errors"] = "replace";
  config["model_max_length"] = model_max_length;
  config["tokenizer_class"] = "CLIPTokenizer";
  make_folder(folder);
  write_file(folder / "vocab.json", vocab_json(builder.merges()));
  write_file(folder / "merges.txt", merges);
  write_file(folder / "special_tokens_map.json", specials.dump(2) + "\n");
  write_file(folder / "tokenizer_config.json", config.dump(2) + "\n");
}

}  // namespace prefusion::text
