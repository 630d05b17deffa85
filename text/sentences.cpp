#include "text/sentences.h"

#include <algorithm>

namespace prefusion::text {
namespace {

// Bytes of the mark that ends a sentence at `position`; 0 where there is none.
size_t mark_at(const std::string& caption, size_t position) {
  if (caption[position] == '.' || caption[position] == '?') return 1;
  return caption.compare(position, 2, "\"!") == 0 || caption.compare(position, 2, ";\"") == 0 ? 2 : 0;
}

}  // namespace

std::vector<std::string> split_caption(const std::string& caption) {
  std::vector<std::string> sentences;
  size_t begin = 0;
  const auto end_sentence = [&](size_t end) {
    if (end > begin) sentences.push_back(caption.substr(begin, end - begin) + ".");
  };
  for (size_t position = 0; position < caption.size();) {
    const size_t mark = mark_at(caption, position);
    if (mark > 0) {
      end_sentence(position);
      begin = position + mark;
    }
    position += std::max<size_t>(mark, 1);
  }
  end_sentence(caption.size());
  if (sentences.empty()) sentences.push_back(caption);
  return sentences;
}

}  // namespace prefusion::text
