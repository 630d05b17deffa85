#include "text/t5_tokenizer_files.h"

#include <algorithm>

#include "core/error.h"
#include "core/json_config.h"
#include "core/logging.h"
#include "text/base64.h"
#include "text/sentence_piece_file.h"
#include "text/special_tokens.h"
#include "text/tokenizer_json.h"

namespace prefusion::text {
namespace {

namespace fs = std::filesystem;
using NumberedTokens = std::vector<std::pair<int64_t, AddedToken>>;

// False for the class of transformers that obeys all of a tokenizer.json, which then must be T5's own.
bool is_t5_class(ConfigReader& reader) {
  const std::string name = reader.get<std::string>("tokenizer_class", "T5Tokenizer");
  const bool is_t5 = name == "T5Tokenizer" || name == "T5TokenizerFast";
  if (!is_t5 && name != "PreTrainedTokenizerFast" && name != "TokenizersBackend")
    reader.refuse("tokenizer_class", name);
  return is_t5;
}

std::string sentinel(int64_t number) {
  return concat("<extra_id_", number, ">");
}

int64_t read_extra_ids(ConfigReader& reader) {
  const int64_t count = reader.get<int64_t>("extra_ids", 100);
  if (count < 0 || count > 1'000'000) reader.refuse("extra_ids", count);
  return count;
}

bool is_sentinel(const Json& token) {
  const Json& text = token.is_object() && token.contains("content") ? token.at("content") : token;
  return text.is_string() && text.get<std::string>().find("<extra_id_") != std::string::npos;
}

// T5Tokenizer adds its sentinels to special tokens that have none, and wants to see as many as `extra_ids` says else.
Json with_sentinels(const Json& additional, int64_t extra_ids, const std::string& where) {
  Json tokens = additional.is_null() ? Json::array() : additional;
  check_input(tokens.is_array(), where, ": 'additional_special_tokens' is not a list");
  const int64_t count = std::count_if(tokens.begin(), tokens.end(), is_sentinel);
  check_input(count == 0 || extra_ids == 0 || count == extra_ids, where, ": 'extra_ids' is ", extra_ids, " and ", count,
              " of 'additional_special_tokens' are such tokens");
  for (int64_t i = 0; count == 0 && i < extra_ids; ++i) tokens.push_back(sentinel(i));
  return tokens;
}

// The one charsmap among the normalizer's steps; SentencePiece has no other step that T5Tokenizer would take over.
std::string read_charsmap(const Json& normalizer, const std::string& where) {
  if (normalizer.is_null()) return {};
  check_input(normalizer.is_object(), where, ": the normalizer is not an object");
  const bool is_sequence = normalizer.value("type", "") == "Sequence";
  const Json steps = is_sequence ? normalizer.at("normalizers") : Json::array({normalizer});
  check_input(steps.is_array(), where, ": the steps of the normalizer are not a list");
  std::string charsmap;
  for (const Json& step : steps) {
    check_input(step.is_object(), where, ": a step of the normalizer is not an object");
    const std::string type = step.value("type", "");
    if (type == "Precompiled") {
      if (!charsmap.empty() || !step.contains("precompiled_charsmap")) continue;
      const Json& text = step.at("precompiled_charsmap");
      check_input(text.is_string(), where, ": 'precompiled_charsmap' is not a text");
      charsmap = decode_base64(text.get<std::string>(), where + " ('precompiled_charsmap')");
    } else if (type != "Strip" && type != "Replace") {  // those two are in every conversion of a spiece.model
      log_warn(where, ": T5 tokenizers take nothing but the charsmap from a normalizer; its step '", type,
               "' has no effect");
    }
  }
  return charsmap;
}

std::vector<std::pair<std::string, double>> read_pieces(const Json& model, const std::string& where) {
  check_input(model.is_object(), where, ": 'model' is not an object");
  const std::string type = model.value("type", "Unigram");
  check_input(type == "Unigram", where, ": the model is '", type, "'; expected 'Unigram', a T5 tokenizer");
  check_input(model.contains("vocab") && model.at("vocab").is_array(), where, ": the vocabulary is not a list");
  std::vector<std::pair<std::string, double>> pieces;
  for (const Json& piece : model.at("vocab")) {
    const bool is_pair = piece.is_array() && piece.size() == 2 && piece[0].is_string() && piece[1].is_number();
    check_input(is_pair, where, ": vocabulary entry ", pieces.size(), " is ", piece.dump(),
                "; expected a text and a score");
    pieces.emplace_back(piece[0].get<std::string>(), piece[1].get<double>());
  }
  return pieces;
}

// Refuses steps that are not those T5Tokenizer puts in the place of whatever a file has.
void require_t5_steps(const Json& file, const std::string& where) {
  const auto refuse_unless = [&](bool is_t5, const char* part) {
    check_input(is_t5, where, ": its ", part, " is not that of a T5 tokenizer, which only 'tokenizer_class' = ",
                "\"T5Tokenizer\" would put in its place");
  };
  const auto part = [&](const char* name) { return file.contains(name) ? file.at(name) : Json(); };
  const Json splitting = Json::parse(R"({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"},
      {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": true}]})");
  const Json normalizer = part("normalizer");
  refuse_unless(normalizer.is_null() || normalizer.value("type", "") == "Precompiled", "normalizer");
  refuse_unless(part("pre_tokenizer") == splitting, "pre_tokenizer");
  const Json processor = part("post_processor");
  const bool ends_in_eos = processor.is_object() && processor.value("type", "") == "TemplateProcessing" &&
                           processor.at("single").size() == 2 && processor.at("single")[0].contains("Sequence") &&
                           processor.at("single")[1].at("SpecialToken").at("id") == "</s>";
  refuse_unless(ends_in_eos, "post_processor");
  const Json model = part("model");
  refuse_unless(model.is_object() && model.value("unk_id", int64_t{-1}) == 2 && !model.value("byte_fallback", false),
                "model");
}

NumberedTokens read_from_tokenizer_json(const fs::path& path, bool is_t5, T5TokenizerFiles& files) {
  const std::string where = path.string();
  const Json file = read_json(path);
  ConfigReader reader(file, where);
  if (!is_t5) require_t5_steps(file, where);
  // T5Tokenizer puts its own splitting and its own end token in place of these.
  reader.ignore({"version", "decoder", "pre_tokenizer", "post_processor"});
  files.pieces = read_pieces(reader.require<Json>("model"), where);
  files.precompiled_charsmap = read_charsmap(reader.raw("normalizer"), where);
  files.truncates_left = is_left(reader.raw("truncation"), where + " (truncation)");
  files.pads_left = is_left(reader.raw("padding"), where + " (padding)");
  NumberedTokens added = read_added_tokens(reader.raw("added_tokens"), where);
  reader.finish();
  return added;
}

// Returns the tokens that are special in the file: control tokens, and what its user defined.
Json read_from_sentence_piece(const fs::path& path, int64_t extra_ids, T5TokenizerFiles& files) {
  SentencePieceFile file = read_sentence_piece_file(path);
  check_input(file.model_type == SentencePieceFile::ModelType::kUnigram, path.string(),
              ": is no unigram model (its type is ", static_cast<int>(file.model_type), "), and so no T5 tokenizer");
  Json special = Json::array();
  for (SentencePiece& piece : file.pieces) {
    const bool is_control = piece.type == SentencePiece::Type::kControl;
    if (is_control || piece.type == SentencePiece::Type::kUserDefined) {
      special.push_back({{"content", piece.text}, {"normalized", false}, {"special", is_control}});
    }
    files.pieces.emplace_back(std::move(piece.text), static_cast<double>(piece.score));
  }
  for (int64_t i = extra_ids; i-- > 0;) files.pieces.emplace_back(sentinel(i), 0.0);
  files.precompiled_charsmap = std::move(file.precompiled_charsmap);
  return special;
}

T5TokenizerFiles read_files(const fs::path& folder) {
  const fs::path config_path = folder / "tokenizer_config.json";
  const Json config = fs::exists(config_path) ? read_json(config_path) : Json::object();
  ConfigReader reader(config, config_path.string());
  const bool is_t5 = is_t5_class(reader);
  const int64_t extra_ids = is_t5 ? read_extra_ids(reader) : 0;

  T5TokenizerFiles files;
  files.where = folder.string();
  NumberedTokens from_json;
  std::optional<Json> from_model;
  if (fs::exists(folder / "tokenizer.json")) {
    from_json = read_from_tokenizer_json(folder / "tokenizer.json", is_t5, files);
  } else {
    check_input(is_t5 && fs::exists(folder / "spiece.model"), folder.string(),
                ": holds no T5 tokenizer; expected tokenizer.json or spiece.model");
    from_model = read_from_sentence_piece(folder / "spiece.model", extra_ids, files);
  }
  files.pads_left = read_side(reader, "padding_side", files.pads_left);
  files.truncates_left = read_side(reader, "truncation_side", files.truncates_left);
  files.split_special_tokens = reader.get("split_special_tokens", false);
  // No finish(): transformers hands every other key through without an effect on tokens, and folders are full of them.

  const auto complete = [&](const Json& additional) {
    return with_sentinels(from_model.value_or(additional), extra_ids, config_path.string());
  };
  const SpecialTokens special = read_special_tokens(
      folder, config, from_json, {{"eos_token", "</s>"}, {"unk_token", "<unk>"}, {"pad_token", "<pad>"}}, complete);
  files.added_tokens = special.to_add;
  files.eos_token = special.named_or("eos_token", files.eos_token);
  files.pad_token = special.named_or("pad_token", files.pad_token);
  return files;
}

}  // namespace

T5TokenizerFiles read_t5_tokenizer_files(const fs::path& folder) {
  check_input(fs::is_directory(folder), folder.string(), ": no such folder; expected a T5 tokenizer");
  try {
    return read_files(folder);
  } catch (const Json::exception& error) {
    fail_input(folder.string(), ": unexpected structure of the tokenizer (", error.what(), ")");
  }
}

}  // namespace prefusion::text
