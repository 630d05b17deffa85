#include "text/graphemes.h"

#include <unicode/uchar.h>

#include <algorithm>

#include "text/unicode.h"
#include "text/unicode_tables.h"

namespace prefusion::text {
namespace {

// Changes of Unicode 16 and 17 to the class Prepend, as the reference has them.
constexpr CodePoint kNewPrepend = 0x113D1;
constexpr CodePoint kFormerPrepend = 0x11A3A;

UGraphemeClusterBreak break_class(CodePoint code_point) {
  const bool is_new_mark =
      code_point >= kNewMarks.front().first && std::any_of(kNewMarks.begin(), kNewMarks.end(), [&](const Range& range) {
        return code_point >= range.first && code_point <= range.last;
      });
  if (is_new_mark) return U_GCB_EXTEND;
  if (code_point == kNewPrepend) return U_GCB_PREPEND;
  if (code_point == kFormerPrepend) return U_GCB_OTHER;
  return static_cast<UGraphemeClusterBreak>(
      u_getIntPropertyValue(static_cast<UChar32>(code_point), UCHAR_GRAPHEME_CLUSTER_BREAK));
}

bool is_pictograph(CodePoint code_point) {
  return u_hasBinaryProperty(static_cast<UChar32>(code_point), UCHAR_EXTENDED_PICTOGRAPHIC);
}

bool is_control(UGraphemeClusterBreak value) {
  return value == U_GCB_CONTROL || value == U_GCB_CR || value == U_GCB_LF;
}

// Rules GB6 to GB8: syllables of Hangul.
bool joins_hangul(UGraphemeClusterBreak left, UGraphemeClusterBreak right) {
  switch (left) {
    case U_GCB_L: return right == U_GCB_L || right == U_GCB_V || right == U_GCB_LV || right == U_GCB_LVT;
    case U_GCB_LV:
    case U_GCB_V: return right == U_GCB_V || right == U_GCB_T;
    case U_GCB_LVT:
    case U_GCB_T: return right == U_GCB_T;
    default: return false;
  }
}

// What the rules remember of a cluster that grows.
struct Cluster {
  UGraphemeClusterBreak last;
  bool ends_in_pictograph;  // a pictograph and extending characters
  bool has_joiner;          // and then a zero width joiner
  int num_regional;         // regional indicators at its end

  bool takes(UGraphemeClusterBreak next, CodePoint code_point) const {
    if (last == U_GCB_CR && next == U_GCB_LF) return true;                                     // GB3
    if (is_control(last) || is_control(next)) return false;                                    // GB4, GB5
    if (joins_hangul(last, next)) return true;                                                 // GB6, GB7, GB8
    if (next == U_GCB_EXTEND || next == U_GCB_ZWJ || next == U_GCB_SPACING_MARK) return true;  // GB9, GB9a
    if (last == U_GCB_PREPEND) return true;                                                    // GB9b
    if (has_joiner && is_pictograph(code_point)) return true;                                  // GB11
    return next == U_GCB_REGIONAL_INDICATOR && num_regional % 2 == 1;                          // GB12, GB13
  }

  void append(UGraphemeClusterBreak next, CodePoint code_point) {
    has_joiner = ends_in_pictograph && next == U_GCB_ZWJ;
    ends_in_pictograph = is_pictograph(code_point) || (ends_in_pictograph && next == U_GCB_EXTEND);
    num_regional = next == U_GCB_REGIONAL_INDICATOR ? num_regional + 1 : 0;
    last = next;
  }
};

}  // namespace

size_t grapheme_end(std::string_view text, size_t begin) {
  size_t end = begin;
  CodePoint code_point = next_code_point(text, end);
  Cluster cluster{};
  cluster.append(break_class(code_point), code_point);
  while (end < text.size()) {
    size_t next_end = end;
    code_point = next_code_point(text, next_end);
    const UGraphemeClusterBreak next = break_class(code_point);
    if (!cluster.takes(next, code_point)) break;
    cluster.append(next, code_point);
    end = next_end;
  }
  return end;
}

}  // namespace prefusion::text
