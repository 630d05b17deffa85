#include "text/byte_pair_encoding.h"

#include <queue>
#include <unordered_set>

#include "core/error.h"
#include "text/unicode.h"

namespace prefusion::text {
namespace {

constexpr int64_t kMaxId = (int64_t{1} << 31) - 1;

uint64_t pair_key(int64_t left, int64_t right) {
  return static_cast<uint64_t>(left) << 32 | static_cast<uint64_t>(right);
}

// GPT-2's alphabet: printable Latin-1 stands for itself, the other bytes follow from U+0100 on.
std::vector<std::string> make_byte_symbols() {
  std::vector<std::string> symbols(256);
  CodePoint next = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const bool is_printable =
        (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
    append_utf8(symbols[byte], is_printable ? byte : next++);
  }
  return symbols;
}

}  // namespace

const std::vector<std::string>& byte_symbols() {
  static const std::vector<std::string> kSymbols = make_byte_symbols();
  return kSymbols;
}

BytePairEncoding::BytePairEncoding(BytePairFiles files)
    : vocab_(std::move(files.vocab)), unk_token_(std::move(files.unk_token)), where_(std::move(files.where)) {
  std::unordered_set<int64_t> ids;
  for (const auto& [token, id] : vocab_) {
    check_input(id >= 0 && id <= kMaxId, where_, ": token '", token, "' has the id ", id, ", which is out of range");
    check_input(ids.insert(id).second, where_, ": token '", token, "' shares its id ", id, " with another token");
  }
  int64_t rank = 0;
  for (const auto& merge : files.merges) {
    const auto& [left, right] = merge;
    const auto id_in_merge = [&](const std::string& token) {
      const int64_t id = id_of(token);
      check_input(id >= 0, where_, ": merge ", rank + 1, " ('", merge.first, "' '", merge.second,
                  "') needs the token '", token, "', which is not in the vocabulary");
      return id;
    };
    // A repeated merge counts at its last place, as in the reference.
    merges_[pair_key(id_in_merge(left), id_in_merge(right))] = Merge{rank, id_in_merge(left + right)};
    ++rank;
  }
}

int64_t BytePairEncoding::id_of(const std::string& token) const {
  const auto found = vocab_.find(token);
  return found == vocab_.end() ? -1 : found->second;
}

const BytePairEncoding::Merge* BytePairEncoding::find_merge(int64_t left, int64_t right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

std::vector<int64_t> BytePairEncoding::symbols_of(std::string_view word) const {
  std::vector<int64_t> symbols;
  symbols.reserve(word.size());
  for (size_t i = 0; i < word.size(); ++i) {
    std::string symbol = byte_symbols()[static_cast<unsigned char>(word[i])];
    if (i + 1 == word.size()) symbol += kEndOfWord;
    int64_t id = id_of(symbol);
    if (id < 0) id = id_of(unk_token_);
    check_input(id >= 0, where_, ": neither the symbol '", symbol, "' nor the unknown token '", unk_token_,
                "' is in the vocabulary");
    symbols.push_back(id);
  }
  return symbols;
}

// A pair of neighbours that can be merged; the lowest rank goes first, the leftmost of equals.
struct BytePairEncoding::Candidate {
  int64_t rank;
  int64_t left;  // index of the left symbol
  int64_t left_id, right_id;
  bool operator<(const Candidate& other) const { return rank != other.rank ? rank > other.rank : left > other.left; }
};

void BytePairEncoding::encode_word(std::string_view word, std::vector<int64_t>& tokens) const {
  std::vector<int64_t> ids = symbols_of(word);
  const auto count = static_cast<int64_t>(ids.size());
  constexpr int64_t kGone = -1;  // id of a symbol merged into its left neighbour
  std::vector<int64_t> previous(ids.size()), next(ids.size());
  std::priority_queue<Candidate> queue;
  const auto consider = [&](int64_t left) {
    if (left < 0 || next[left] >= count) return;
    const int64_t right = next[left];
    if (const Merge* merge = find_merge(ids[left], ids[right])) queue.push({merge->rank, left, ids[left], ids[right]});
  };
  for (int64_t i = 0; i < count; ++i) {
    previous[i] = i - 1;
    next[i] = i + 1;
  }
  for (int64_t i = 0; i < count; ++i) consider(i);
  while (!queue.empty()) {
    const Candidate candidate = queue.top();
    queue.pop();
    const int64_t left = candidate.left;
    const int64_t right = next[left];
    // Outdated when either side has changed since it was queued.
    if (ids[left] != candidate.left_id || right >= count || ids[right] != candidate.right_id) continue;
    ids[left] = find_merge(candidate.left_id, candidate.right_id)->merged_id;
    ids[right] = kGone;
    next[left] = next[right];
    if (next[left] < count) previous[next[left]] = left;
    consider(previous[left]);
    consider(left);
  }
  for (int64_t i = 0; i < count; i = next[i]) tokens.push_back(ids[i]);
}

std::string BytePairEncoding::token_bytes(std::string_view token) {
  static const std::unordered_map<std::string, char> kBytes = [] {
    std::unordered_map<std::string, char> bytes;
    for (unsigned byte = 0; byte < 256; ++byte) bytes.emplace(byte_symbols()[byte], static_cast<char>(byte));
    return bytes;
  }();
  const bool ends_word = token.ends_with(kEndOfWord);
  if (ends_word) token.remove_suffix(kEndOfWord.size());
  std::string text;
  for (size_t position = 0; position < token.size();) {
    const size_t start = position;
    next_code_point(token, position);
    const std::string symbol(token.substr(start, position - start));
    const auto byte = kBytes.find(symbol);
    if (byte != kBytes.end()) {
      text.push_back(byte->second);
    } else {
      text += symbol;
    }
  }
  if (ends_word) text.push_back(' ');
  return text;
}

}  // namespace prefusion::text
