#include "tools/shard.h"

#include <charconv>

#include "core/error.h"

namespace prefusion::tools {
namespace {

bool parse_size(std::string_view text, size_t& value) {
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  return code == std::errc() && end == text.data() + text.size();
}

}  // namespace

Shard parse_shard(const std::string& text) {
  const size_t slash = text.find('/');
  const std::string_view view = text;
  Shard shard;
  check_usage(slash != std::string::npos && parse_size(view.substr(0, slash), shard.index) &&
                  parse_size(view.substr(slash + 1), shard.count) && shard.index < shard.count,
              "--shard ", text, ": expected I/N with I from 0 to N - 1, as in 0/4");
  return shard;
}

}  // namespace prefusion::tools
