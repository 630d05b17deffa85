#include <algorithm>
#include <array>
#include <sstream>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/json_config.h"
#include "text/special_tokens.h"
#include "text/tokenizer_json.h"
#include "text/word_piece_tokenizer.h"

namespace prefusion::text {
namespace {

namespace fs = std::filesystem;

void check_tokenizer_class(ConfigReader& reader) {
  const std::string name = reader.get<std::string>("tokenizer_class", "BertTokenizer");
  constexpr std::array kKnown = {"BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"};
  if (std::find(kKnown.begin(), kKnown.end(), name) == kKnown.end()) reader.refuse("tokenizer_class", name);
}

BertNormalization read_normalization(ConfigReader& reader) {
  BertNormalization options;
  options.lowercases = reader.get("do_lower_case", true);
  options.strips_accents = reader.get("strip_accents", options.lowercases);
  options.spaces_ideographs = reader.get("tokenize_chinese_chars", true);
  reader.only("do_basic_tokenize", true);
  if (!reader.raw("never_split").is_null() && !reader.raw("never_split").empty()) {
    reader.refuse("never_split", reader.raw("never_split"));
  }
  for (const char* side : {"padding_side", "truncation_side"}) reader.only<std::string>(side, "right");
  return options;
}

// transformers builds its own normalizer from tokenizer_config.json; a file that says something else would give other
// tokens elsewhere.
void check_normalizer(const Json& json, const BertNormalization& options, const std::string& where) {
  if (json.is_null()) return;
  ConfigReader reader(json, where + " (normalizer)");
  reader.only<std::string>("type", "BertNormalizer");
  reader.only("clean_text", true);
  const bool lowercases = reader.get("lowercase", true);
  const bool agrees = lowercases == options.lowercases &&
                      reader.get("strip_accents", lowercases) == options.strips_accents &&
                      reader.get("handle_chinese_chars", true) == options.spaces_ideographs;
  check_input(agrees, where, ": the normalizer ", json.dump(),
              " contradicts do_lower_case, strip_accents or tokenize_chinese_chars of tokenizer_config.json");
  reader.finish();
}

Vocabulary read_model(const Json& json, const std::string& where) {
  ConfigReader reader(json, where + " (model)");
  reader.only<std::string>("type", "WordPiece");
  reader.only<std::string>("continuing_subword_prefix", "##");
  reader.only("max_input_chars_per_word", 100);
  reader.ignore({"unk_token"});  // BertTokenizer takes it from tokenizer_config.json
  Vocabulary vocab = read_vocab(reader.raw("vocab"), where);
  reader.finish();
  return vocab;
}

std::vector<std::pair<int64_t, AddedToken>> read_tokenizer_json(const fs::path& path, WordPieceFiles& files) {
  const std::string where = path.string();
  ConfigReader reader(read_json(path), where);
  reader.ignore({"version", "decoder", "post_processor", "truncation", "padding"});
  check_normalizer(reader.raw("normalizer"), files.normalization, where);
  const Json& splitter = reader.raw("pre_tokenizer");
  if (!splitter.is_null() && splitter.value("type", "") != "BertPreTokenizer") {
    reader.refuse("pre_tokenizer", splitter);
  }
  files.vocab = read_model(reader.require<Json>("model"), where);
  auto added = read_added_tokens(reader.raw("added_tokens"), where);
  reader.finish();
  return added;
}

// A token a line; of equal tokens the last one's line counts.
Vocabulary read_vocab_lines(const fs::path& path) {
  std::istringstream lines(read_file(path));
  Vocabulary vocab;
  std::string line;
  for (int64_t id = 0; std::getline(lines, line); ++id) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    vocab[line] = id;
  }
  check_input(!vocab.empty(), path.string(), ": the vocabulary is empty");
  return vocab;
}

WordPieceFiles read_files(const fs::path& folder) {
  const fs::path config_path = folder / "tokenizer_config.json";
  const Json config = fs::exists(config_path) ? read_json(config_path) : Json::object();
  ConfigReader reader(config, config_path.string());
  check_tokenizer_class(reader);
  WordPieceFiles files;
  files.where = folder.string();
  files.normalization = read_normalization(reader);
  files.split_special_tokens = reader.get("split_special_tokens", false);
  // No finish(): transformers hands every other key through without an effect on tokens, and folders are full of them.

  std::vector<std::pair<int64_t, AddedToken>> from_json;
  if (fs::exists(folder / "tokenizer.json")) {
    from_json = read_tokenizer_json(folder / "tokenizer.json", files);
  } else {
    const fs::path vocab_path = folder / "vocab.txt";
    check_input(fs::exists(vocab_path), folder.string(),
                ": holds no BERT tokenizer; expected tokenizer.json or vocab.txt");
    files.vocab = read_vocab_lines(vocab_path);
  }
  const SpecialTokens special = read_special_tokens(folder, config, from_json,
                                                    {{"unk_token", files.unk_token},
                                                     {"sep_token", files.sep_token},
                                                     {"pad_token", files.pad_token},
                                                     {"cls_token", files.cls_token},
                                                     {"mask_token", "[MASK]"}});
  files.added_tokens = special.to_add;
  files.unk_token = special.named_or("unk_token", files.unk_token);
  files.cls_token = special.named_or("cls_token", files.cls_token);
  files.sep_token = special.named_or("sep_token", files.sep_token);
  files.pad_token = special.named_or("pad_token", files.pad_token);
  return files;
}

}  // namespace

WordPieceFiles read_word_piece_files(const fs::path& folder) {
  check_input(fs::is_directory(folder), folder.string(), ": no such folder; expected a BERT tokenizer");
  try {
    return read_files(folder);
  } catch (const Json::exception& error) {
    fail_input(folder.string(), ": unexpected structure of the tokenizer (", error.what(), ")");
  }
}

}  // namespace prefusion::text
