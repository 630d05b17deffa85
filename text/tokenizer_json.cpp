#include "text/tokenizer_json.h"

#include <sstream>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/json_config.h"
#include "text/special_tokens.h"

namespace prefusion::text {
namespace {

namespace fs = std::filesystem;
using Pair = std::pair<std::string, std::string>;

int64_t read_id(const Json& value, const std::string& where, const std::string& token) {
  check_input(value.is_number_integer(), where, ": token '", token, "' has the id ", value.dump(),
              "; expected a whole number");
  return value.get<int64_t>();
}

// "a b" -> {a, b}
Pair split_merge(const std::string& text, const std::string& where, size_t number) {
  const size_t space = text.find(' ');
  check_input(space != std::string::npos && text.find(' ', space + 1) == std::string::npos, where, ": merge ", number,
              " is '", text, "'; expected two tokens separated by one space");
  return {text.substr(0, space), text.substr(space + 1)};
}

std::vector<Pair> read_merges(const Json& json, const std::string& where) {
  check_input(json.is_array(), where, ": 'merges' is not a list");
  std::vector<Pair> merges;
  merges.reserve(json.size());
  for (const Json& merge : json) {
    if (merge.is_string()) {
      merges.push_back(split_merge(merge.get<std::string>(), where, merges.size() + 1));
    } else {
      const bool is_pair = merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string();
      check_input(is_pair, where, ": merge ", merges.size() + 1, " is ", merge.dump(), "; expected two tokens");
      merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
    }
  }
  return merges;
}

BytePairFiles read_model(const Json& json, const std::string& where) {
  ConfigReader reader(json, where + " (model)");
  reader.only<std::string>("type", "BPE");
  reader.only<std::string>("end_of_word_suffix", "</w>");
  reader.only<std::string>("continuing_subword_prefix", "");
  reader.only("byte_fallback", false);
  reader.only("ignore_merges", false);
  if (reader.get("dropout", 0.0) != 0.0) reader.refuse("dropout", reader.raw("dropout"));
  // CLIPTokenizer takes the unknown token from tokenizer_config.json and never fuses it.
  reader.ignore({"unk_token", "fuse_unk"});
  BytePairFiles files;
  files.where = where;
  files.vocab = read_vocab(reader.raw("vocab"), where);
  const Json& merges = reader.raw("merges");
  if (!merges.is_null()) files.merges = read_merges(merges, where);
  reader.finish();
  return files;
}

// Refuses a normalizer, pre-tokenizer or post-processor that contains a step CLIP tokenizers do not have: CLIPTokenizer
// puts its own in place, so that such a file would not be obeyed.
void check_steps(const Json& json, std::initializer_list<const char*> allowed, const std::string& where) {
  if (json.is_null()) return;
  const std::string type = json.is_object() ? json.value("type", "") : "";
  if (type == "Sequence") {
    for (const char* list : {"normalizers", "pretokenizers", "processors"}) {
      if (!json.contains(list)) continue;
      for (const Json& step : json.at(list)) check_steps(step, allowed, where);
    }
    return;
  }
  for (const char* name : allowed) {
    if (type == name) return;
  }
  fail_input(where, ": step '", type.empty() ? json.dump() : type, "' is not part of a CLIP tokenizer");
}

TokenizerJson parse_tokenizer_json(const Json& json, const std::string& where) {
  ConfigReader reader(json, where);
  reader.ignore({"version", "decoder"});
  check_steps(reader.raw("normalizer"), {"NFC", "Replace", "Lowercase"}, where + " (normalizer)");
  check_steps(reader.raw("pre_tokenizer"), {"Split", "ByteLevel"}, where + " (pre_tokenizer)");
  check_steps(reader.raw("post_processor"), {"RobertaProcessing", "TemplateProcessing", "ByteLevel"},
              where + " (post_processor)");
  TokenizerJson result;
  result.truncates_left = is_left(reader.raw("truncation"), where + " (truncation)");
  result.pads_left = is_left(reader.raw("padding"), where + " (padding)");
  result.model = read_model(reader.require<Json>("model"), where);
  result.added_tokens = read_added_tokens(reader.raw("added_tokens"), where);
  reader.finish();
  return result;
}

}  // namespace

bool is_left(const Json& section, const std::string& where) {
  if (section.is_null()) return false;
  check_input(section.is_object(), where, ": is neither null nor an object");
  const std::string direction = section.value("direction", "Right");
  check_input(direction == "Left" || direction == "Right", where, ": direction '", direction, "' is not supported");
  return direction == "Left";
}

bool read_side(ConfigReader& reader, const std::string& key, bool fallback) {
  const std::string side = reader.get<std::string>(key, fallback ? "left" : "right");
  if (side != "left" && side != "right") reader.refuse(key, side);
  return side == "left";
}

Vocabulary read_vocab(const Json& json, const std::string& where) {
  Vocabulary vocab;
  check_input(json.is_object() || json.is_array(), where, ": the vocabulary is not a JSON object but ",
              json.type_name());
  if (json.is_array()) {
    for (const Json& entry : json) {
      const Json& token = entry.is_array() && !entry.empty() ? entry.front() : entry;
      check_input(token.is_string(), where, ": vocabulary entry ", vocab.size(), " is not a text");
      vocab.emplace(token.get<std::string>(), static_cast<int64_t>(vocab.size()));
    }
  } else {
    vocab.reserve(json.size());
    for (const auto& [token, id] : json.items()) vocab.emplace(token, read_id(id, where, token));
  }
  check_input(!vocab.empty(), where, ": the vocabulary is empty");
  return vocab;
}

std::vector<std::pair<int64_t, AddedToken>> read_added_tokens(const Json& json, const std::string& where) {
  check_input(json.is_null() || json.is_array(), where, ": 'added_tokens' is not a list");
  std::vector<std::pair<int64_t, AddedToken>> tokens;
  for (const Json& token : json) {
    check_input(token.is_object() && token.contains("id"), where, ": added token ", token.dump(), " has no id");
    const AddedToken parsed = parse_added_token(token, where);
    tokens.emplace_back(read_id(token.at("id"), where, parsed.content), parsed);
  }
  return tokens;
}

TokenizerJson read_tokenizer_json(const fs::path& path) {
  try {
    return parse_tokenizer_json(read_json(path), path.string());
  } catch (const Json::exception& error) {
    fail_input(path.string(), ": unexpected structure (", error.what(), ")");
  }
}

BytePairFiles read_vocab_and_merges(const fs::path& folder) {
  const fs::path vocab_path = folder / "vocab.json";
  const fs::path merges_path = folder / "merges.txt";
  check_input(fs::exists(vocab_path) && fs::exists(merges_path), folder.string(),
              ": holds no tokenizer; expected tokenizer.json, or vocab.json and merges.txt");
  BytePairFiles files;
  files.where = folder.string();
  files.vocab = read_vocab(read_json(vocab_path), vocab_path.string());
  std::istringstream lines(read_file(merges_path));
  std::string line;
  for (size_t number = 1; std::getline(lines, line); ++number) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty() || line.starts_with("#version")) continue;
    files.merges.push_back(split_merge(line, merges_path.string() + " line " + std::to_string(number), number));
  }
  return files;
}

}  // namespace prefusion::text
