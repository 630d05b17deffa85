#include "text/open_clip_tokenizer.h"

#include <unicode/bytestream.h>
#include <unicode/casemap.h>
#include <zlib.h>

#include <array>

#include "core/atomic_file.h"
#include "core/error.h"
#include "text/clip_pre_tokenizer.h"
#include "text/embedded_files.h"
#include "text/fix_text.h"
#include "text/html_entities.h"
#include "text/tokenizer_json.h"
#include "text/unicode.h"

namespace prefusion::text {
namespace {

namespace fs = std::filesystem;

constexpr const char* kMergesName = "bpe_simple_vocab_16e6.txt.gz";
constexpr const char* kStart = "<start_of_text>";
constexpr const char* kEnd = "<end_of_text>";
// The file goes on with merges that CLIP does not use.
constexpr size_t kNumMerges = 49152 - 256 - 2;
constexpr size_t kMaxTextBytes = size_t{64} << 20;

std::string gunzip(std::string_view bytes, const std::string& where) {
  z_stream stream{};
  constexpr int kGzip = 16;
  check_run(inflateInit2(&stream, kGzip + MAX_WBITS) == Z_OK, "zlib could not be started");
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  std::string text;
  std::array<char, 65536> part;
  int status = Z_OK;
  while (status == Z_OK && text.size() < kMaxTextBytes) {
    stream.next_out = reinterpret_cast<Bytef*>(part.data());
    stream.avail_out = part.size();
    status = inflate(&stream, Z_NO_FLUSH);
    text.append(part.data(), part.size() - stream.avail_out);
  }
  inflateEnd(&stream);
  check_input(status == Z_STREAM_END, where, ": is no complete gzip file of merges");
  return text;
}

std::string lower_whole(const std::string& text) {
  std::string lower;
  icu::StringByteSink<std::string> sink(&lower);
  UErrorCode status = U_ZERO_ERROR;
  icu::CaseMap::utf8ToLower("", 0, text, sink, nullptr, status);
  check_run(U_SUCCESS(status), "Unicode case mapping failed: ", u_errorName(status));
  return lower;
}

}  // namespace

BytePairFiles read_merge_list(std::string_view lines, const std::string& where) {
  BytePairFiles files{.where = where};
  std::vector<std::string> tokens;
  for (const char* suffix : {"", "</w>"}) {
    // The symbols in the order of the alphabet: bytes that stand for themselves before the others.
    for (const bool is_itself : {true, false}) {
      for (unsigned byte = 0; byte < 256; ++byte) {
        const std::string& symbol = byte_symbols()[byte];
        size_t end = 0;
        if ((next_code_point(symbol, end) == byte) == is_itself) tokens.push_back(symbol + suffix);
      }
    }
  }
  lines.remove_prefix(std::min(lines.find('\n'), lines.size() - 1) + 1);  // a heading
  while (!lines.empty() && files.merges.size() < kNumMerges) {
    const std::string_view line = lines.substr(0, lines.find('\n'));
    lines.remove_prefix(std::min(line.size() + 1, lines.size()));
    const size_t blank = line.find(' ');
    check_input(blank != std::string_view::npos && blank > 0 && blank + 1 < line.size(), where, ": line ",
                files.merges.size() + 2, " is no pair of symbols");
    files.merges.emplace_back(line.substr(0, blank), line.substr(blank + 1));
    tokens.push_back(files.merges.back().first + files.merges.back().second);
  }
  tokens.insert(tokens.end(), {kStart, kEnd});
  for (size_t i = 0; i < tokens.size(); ++i) files.vocab[tokens[i]] = static_cast<int64_t>(i);
  return files;
}

OpenClipTokenizer OpenClipTokenizer::load(const fs::path& place, bool is_required) {
  const auto from_merges = [](std::string_view bytes, const std::string& where) {
    return OpenClipTokenizer(read_merge_list(gunzip(bytes, where), where));
  };
  const auto from_json = [](const fs::path& path) {
    TokenizerJson json = read_tokenizer_json(path);
    for (const auto& [id, token] : json.added_tokens) json.model.vocab.emplace(token.content, id);
    return OpenClipTokenizer(std::move(json.model));
  };
  const std::string where = place.string();
  if (!fs::is_directory(place) && fs::exists(place)) {
    return place.extension() == ".json" ? from_json(place) : from_merges(read_file(place), where);
  }
  if (fs::exists(place / kMergesName))
    return from_merges(read_file(place / kMergesName), (place / kMergesName).string());
  if (fs::exists(place / "vocab.json")) return OpenClipTokenizer(read_vocab_and_merges(place));
  if (fs::exists(place / "tokenizer.json")) return from_json(place / "tokenizer.json");
  check_input(!is_required, where, ": has neither ", kMergesName, " nor vocab.json with merges.txt nor tokenizer.json");
  const std::string_view embedded = embedded_open_clip_merges();
  check_input(!embedded.empty(), where, ": has no tokenizer, and this build has none of its own; put ", kMergesName,
              ", vocab.json with merges.txt, or tokenizer.json beside the weights, or name their folder: --reward-args "
              "hpsv2.tokenizer=DIR");
  return from_merges(embedded, kMergesName);
}

OpenClipTokenizer::OpenClipTokenizer(BytePairFiles files)
    : where_(files.where),
      model_(std::move(files)),
      start_id_(special_id({kStart, "<|startoftext|>"})),
      end_id_(special_id({kEnd, "<|endoftext|>"})) {}

int64_t OpenClipTokenizer::special_id(std::initializer_list<const char*> spellings) const {
  for (const char* spelling : spellings) {
    if (const int64_t id = model_.id_of(spelling); id >= 0) return id;
  }
  fail_input(where_, ": the token '", *spellings.begin(), "' is not in the vocabulary");
}

std::vector<int64_t> OpenClipTokenizer::encode(std::string_view prompt) const {
  const size_t invalid = find_invalid_utf8(prompt);
  check_input(invalid == std::string_view::npos, "prompt is not valid UTF-8: byte ", invalid,
              " does not begin a character");
  const std::string text = clean_open_clip(prompt);
  std::vector<int64_t> tokens;
  for (const std::string_view word : split_open_clip_words(text)) {
    if (word == kStart || word == kEnd) {
      tokens.push_back(word == kStart ? start_id_ : end_id_);
    } else {
      model_.encode_word(word, tokens);
    }
  }
  return tokens;
}

std::string clean_open_clip(std::string_view prompt) {
  const std::string text = unescape_html(unescape_html(fix_text(prompt)));
  std::string single;
  bool is_between_words = false;
  for (size_t position = 0; position < text.size();) {
    const size_t start = position;
    const CodePoint code_point = next_code_point(text, position);
    if (is_space(code_point) || (code_point >= 0x1C && code_point <= 0x1F)) {
      is_between_words = !single.empty();
      continue;
    }
    if (is_between_words) single += ' ';
    is_between_words = false;
    single.append(text, start, position - start);
  }
  return lower_whole(single);
}

}  // namespace prefusion::text
