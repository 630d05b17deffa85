#include "text/clip_tokenizer_files.h"

#include <algorithm>
#include <array>

#include "core/error.h"
#include "core/json_config.h"
#include "text/special_tokens.h"
#include "text/tokenizer_json.h"

namespace prefusion::text {
namespace {

namespace fs = std::filesystem;

void check_tokenizer_class(ConfigReader& reader) {
  const std::string name = reader.get<std::string>("tokenizer_class", "CLIPTokenizer");
  constexpr std::array kKnown = {"CLIPTokenizer", "CLIPTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"};
  if (std::find(kKnown.begin(), kKnown.end(), name) == kKnown.end()) reader.refuse("tokenizer_class", name);
}

// transformers writes 1e30 for "no limit".
std::optional<int64_t> read_max_length(ConfigReader& reader) {
  const Json& first = reader.raw("model_max_length");
  const Json& value = first.is_null() ? reader.raw("max_len") : first;
  if (value.is_null()) return std::nullopt;
  if (!value.is_number()) reader.refuse("model_max_length", value);
  const double length = value.get<double>();
  constexpr double kNoLimit = 1e6;
  if (length > kNoLimit) return std::nullopt;
  // Begin and end token always fit.
  if (length < 2) reader.refuse("model_max_length", value);
  return static_cast<int64_t>(length);
}

}  // namespace

ClipTokenizerFiles read_clip_tokenizer_files(const fs::path& folder) {
  check_input(fs::is_directory(folder), folder.string(), ": no such folder; expected a tokenizer");
  const fs::path config_path = folder / "tokenizer_config.json";
  const Json config = fs::exists(config_path) ? read_json(config_path) : Json::object();
  ConfigReader reader(config, config_path.string());
  check_tokenizer_class(reader);

  ClipTokenizerFiles files;
  TokenizerJson tokenizer_json;
  const fs::path json_path = folder / "tokenizer.json";
  const bool has_tokenizer_json = fs::exists(json_path);
  if (has_tokenizer_json) tokenizer_json = read_tokenizer_json(json_path);
  files.model_max_length = read_max_length(reader);
  files.pads_left = read_side(reader, "padding_side", tokenizer_json.pads_left);
  files.truncates_left = read_side(reader, "truncation_side", tokenizer_json.truncates_left);
  files.split_special_tokens = reader.get("split_special_tokens", false);
  // No finish(): transformers hands every other key through without an effect on tokens, and folders are full of them.

  const SpecialTokens special = read_special_tokens(folder, config, tokenizer_json.added_tokens, clip_default_tokens());
  files.added_tokens = special.to_add;
  files.bos_token = special.named_or("bos_token", files.bos_token);
  files.eos_token = special.named_or("eos_token", files.eos_token);
  files.pad_token = special.named_or("pad_token", files.pad_token);
  files.model = has_tokenizer_json ? std::move(tokenizer_json.model) : read_vocab_and_merges(folder);
  files.model.unk_token = special.named_or("unk_token", "<|endoftext|>");
  return files;
}

}  // namespace prefusion::text
