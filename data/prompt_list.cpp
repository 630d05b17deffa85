#include "data/prompt_list.h"

#include <functional>
#include <string_view>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/json_config.h"
#include "text/unicode.h"

namespace prefusion::data {
namespace {

constexpr size_t kMaxBytes = size_t{1} << 30;

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos;
}

PromptEntry parse_object(std::string_view line, const std::string& where) {
  const Json object = parse_json(line, where);
  check_input(object.is_object(), where, ": expected an object such as {\"prompt\": \"a red circle\"}");
  ConfigReader reader(object, where);
  PromptEntry entry;
  entry.prompt = reader.require<std::string>("prompt");
  entry.negative_prompt = reader.optional<std::string>("negative_prompt");
  const Json& seed = reader.raw("seed");
  if (!seed.is_null()) {
    check_input(seed.is_number_unsigned(), where, ": 'seed' must be a whole number of 0 or more, found ", seed.dump());
    entry.seed = seed.get<uint64_t>();
  }
  return entry;
}

void for_each_line(std::string_view text, const std::function<void(std::string_view, size_t)>& visit) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!is_blank(line)) visit(line, number);
  }
}

}  // namespace

std::vector<PromptEntry> read_prompts(const std::filesystem::path& path) {
  const std::string contents = read_file(path, kMaxBytes);
  const bool is_jsonl = path.extension() == ".jsonl";
  check_input(is_jsonl || path.extension() != ".json", path.string(),
              ": a .json file is no list of prompts; use .jsonl (an object with 'prompt' a line) or .txt");
  std::vector<PromptEntry> entries;
  for_each_line(contents, [&](std::string_view line, size_t number) {
    const std::string where = concat(path.string(), " line ", number);
    check_input(text::find_invalid_utf8(line) == std::string_view::npos, where, ": is not valid UTF-8");
    entries.push_back(is_jsonl ? parse_object(line, where) : PromptEntry{.prompt = std::string(line)});
  });
  check_input(!entries.empty(), path.string(), ": holds no prompt");
  return entries;
}

}  // namespace prefusion::data
