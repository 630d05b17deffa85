// What misread text looks like, as a table: categories of the few hundred characters that occur in it, and the
// neighbourhoods of categories that mean it. The categories and neighbourhoods are those of ftfy 6.3, whose judgement
// decides what open_clip's tokens are; tests/text compares the two.
#include <algorithm>
#include <array>
#include <unordered_map>
#include <vector>

#include "text/mojibake.h"
#include "text/unicode.h"

namespace prefusion::text {
namespace {

using Mask = uint32_t;
constexpr Mask kCommon = 1 << 0;   // in ordinary text as well
constexpr Mask kControl = 1 << 1;  // U+0080 to U+009F
constexpr Mask kBad = 1 << 2;      // hardly ever meant
constexpr Mask kLaw = 1 << 3;
constexpr Mask kCurrency = 1 << 4;
constexpr Mask kOpening = 1 << 5;  // punctuation before a word
constexpr Mask kClosing = 1 << 6;  // punctuation behind a word
constexpr Mask kNumeric = 1 << 7;
constexpr Mask kFace = 1 << 8;         // letters that emoticons are made of
constexpr Mask kUpper = 1 << 9;        // accented capitals
constexpr Mask kLower = 1 << 10;       // accented small letters
constexpr Mask kOtherUpper = 1 << 11;  // Greek and Cyrillic capitals
constexpr Mask kOtherLower = 1 << 12;
constexpr Mask kBox = 1 << 13;  // box drawing
constexpr Mask kAsciiUpper = 1 << 14;
constexpr Mask kAsciiLower = 1 << 15;
constexpr Mask kSpace = 1 << 16;
constexpr Mask kWord = 1 << 17;
constexpr Mask kStart = 1 << 18;  // the place before the first character

struct Category {
  Mask mask;
  std::u32string_view characters;  // one by one, or "first-last"
};

constexpr std::array kCategories = {
    Category{kCommon, U"\u00A0\u00AD·´–—―…’"},
    Category{kControl, U"\u0080-\u009F"},
    Category{kBad, U"¦¤¨¬¯¸ƒˆˇ˘˛˜†‡‰⌐◊\uFFFDªº"},
    Category{kLaw, U"¶§"},
    Category{kCurrency, U"¢£¥₧€"},
    Category{kOpening, U"¡«¿©΄΅‘‚“„•‹\uF8FF"},
    Category{kClosing, U"®»˝”›™"},
    Category{kNumeric, U"²³¹±¼½¾×µ÷⁄∂∆∏∑√∞∩∫≈≠≡≤≥№"},
    Category{kFace, U"Ò-ÖÙ-Üò-öø-üŐŌŪŲ°"},
    Category{kUpper, U"À-ÑØÜÝĂĀĄĆČĎĐĘĚĒĖĞĢİĪĶĹĽŁĻŃŇŅŒŘŚŞŠŢŤŮŰŸŹŻŽҐ"},
    Category{kLower, U"ßà-ñăąāćčďđęěēėğģįīķĺľłļœŕśşšťüźżžґﬁﬂ"},
    Category{kOtherUpper, U"ÞΑ-ΩΆΈΉΊΌΎΏΪΫЁ-Я"},
    Category{kOtherLower, U"α-ωάέήίΰа-џ"},
    Category{kBox, U"│┌┐┘├┤┬┼═-╬▀▄█▌▐░▒▓"},
    Category{kAsciiUpper, U"A-Z"},
    Category{kAsciiLower, U"a-z"},
};

using Categories = std::unordered_map<CodePoint, Mask>;

Categories make_categories() {
  Categories masks;
  for (const auto& [mask, characters] : kCategories) {
    for (size_t i = 0; i < characters.size(); ++i) {
      const bool is_range = i + 2 < characters.size() && characters[i + 1] == U'-';
      const CodePoint last = is_range ? characters[i + 2] : characters[i];
      for (CodePoint character = characters[i]; character <= last; ++character) masks[character] |= mask;
      if (is_range) i += 2;
    }
  }
  return masks;
}

Mask categories_of(CodePoint character) {
  static const Categories kMasks = make_categories();
  const auto found = kMasks.find(character);
  Mask mask = found == kMasks.end() ? 0 : found->second;
  const CharClass char_kind = char_class(character);
  if (char_kind == CharClass::kSpace || (character >= 0x1C && character <= 0x1F)) mask |= kSpace;
  if (char_kind == CharClass::kLetter || char_kind == CharClass::kNumber || character == U'_') mask |= kWord;
  return mask;
}

// A character of a sign: of one of the categories, or one of the list.
struct Place {
  Mask mask = 0;
  std::u32string_view list = {};
  bool is_negated = false;  // none of them

  bool matches(CodePoint character, Mask categories) const {
    const bool is_in = (categories & mask) != 0 || list.find(character) != std::u32string_view::npos;
    return is_in != is_negated;
  }
};

using Sign = std::vector<Place>;

constexpr Mask kAscii = kAsciiLower | kAsciiUpper;
constexpr Mask kPunctuation = kOpening | kClosing;
// What no bad character stands beside.
constexpr Mask kMeant = kLower | kUpper | kBox | kPunctuation | kCurrency | kNumeric | kLaw;
// Second bytes of Arabic letters, of Cyrillic and of Greek ones.
constexpr Place kArabicSecond{kCommon | kCurrency | kBad | kNumeric | kOpening, U"ŸŠ®°µ»"};
constexpr Place kArabicFirst{0, U"ØÙ"};
constexpr Place kCyrillicFirst{0, U"ВГРС"};
constexpr Place kGreekFirst{0, U"ΒΓΞΟ"};

const std::vector<Sign>& signs() {
  static const std::vector<Sign> kSigns = {
      {{kControl}},
      {{kMeant | kBad}, {kBad}},
      {{kAscii}, {kOtherLower | kOtherUpper}, {kBad}},
      {{kBad}, {kMeant}},
      {{kLower | kOtherLower | kBox | kClosing | kCurrency | kNumeric}, {kUpper}},
      {{kBox | kClosing | kCurrency | kNumeric}, {kLower}},
      {{kLower | kBox | kClosing}, {kCurrency}},
      {{kSpace}, {kUpper}, {kCurrency}},
      {{kUpper | kBox}, {kNumeric | kLaw}},
      {{kLower | kUpper | kBox | kCurrency | kClosing}, {kOpening}, {kNumeric}},
      {{kLower | kUpper | kCurrency | kNumeric | kBox | kLaw}, {kClosing}, {kOpening}},
      {{kCurrency | kNumeric | kBox}, {kOpening}},
      {{kAsciiLower}, {kUpper}, {kOpening | kCurrency}},
      {{kBox}, {kFace}},
      {{kLower | kUpper | kCurrency | kNumeric | kPunctuation | kLaw}, {kBox}},
      {{kBox}, {kClosing}},
      {{kLower | kUpper}, {kPunctuation}, {kWord}},
      {{0, U"Œœ"}, {kAscii, U"", /*is_negated=*/true}},
      {{kUpper}, {0, U"°"}},
      // Windows-1252, two bytes
      {{0, U"ÂÃÎÐ"}, {kPunctuation, U"€œŠš¢£Ÿž\u00A0\u00AD®©°·»–—´"}},
      {{0, U"×"}, {0, U"²³"}},
      {kArabicFirst, kArabicSecond, kArabicFirst, kArabicSecond},
      // of three bytes
      {{0, U"à"}, {0, U"²µ¹¼½¾"}},
      // Macintosh
      {{0, U"√"}, {0, U"±∂†≠®™´≤≥¥µø"}},
      {{0, U"≈"}, {0, U"°¢"}},
      {{0, U"‚"}, {0, U"Ä"}, {0, U"ìîïòôúùû†°¢π"}},
      {{0, U"‚"}, {0, U"âó"}, {0, U"àä°ê"}},
      // Windows-1251
      {{0, U"в"}, {0, U"Ђ"}},
      {kCyrillicFirst, {kControl | kBad | kPunctuation | kCurrency, U"°µ"}, kCyrillicFirst},
      {{0, U"Г"}, {0, U"ў"}, {0, U"В"}, {0, U"Ђ"}, {0, U"В"}, {0, U"\n", /*is_negated=*/true}, {kAscii, U" "}},
      // à and no-break spaces whose second byte became a space
      {{0, U"Ã"}, {0, U"\u00A0¡"}},
      {{kAsciiLower}, {0, U"ÃÂ"}, {0, U" "}},
      {{kAsciiLower}, {kSpace}, {0, U"ÃÂ"}, {0, U" "}},
      {{kStart}, {0, U"ÃÂ"}, {0, U" "}},
      // Â before what it encodes itself
      {{kAsciiLower | kClosing, U".,?!"}, {0, U"Â"}, {kPunctuation, U" "}},
      // Windows-1253 and -1257
      {{0, U"β"}, {0, U"€"}, {0, U"™\u00A0Ά\u00AD®°"}},
      {kGreekFirst, {kControl | kBad | kPunctuation | kCurrency, U"°"}, kGreekFirst},
      {{0, U"ā"}, {0, U"€"}},
  };
  return kSigns;
}

}  // namespace

bool looks_like_mojibake(std::u32string_view text) {
  // The place before the text counts as one more character, of which nothing but that is known.
  std::u32string characters = U"\u0001";
  characters += text;
  std::vector<Mask> masks(characters.size());
  std::transform(characters.begin() + 1, characters.end(), masks.begin() + 1, categories_of);
  masks[0] = kStart;
  const auto begins_at = [&](const Sign& sign, size_t position) {
    if (sign.size() > characters.size() - position) return false;
    for (size_t i = 0; i < sign.size(); ++i) {
      if (!sign[i].matches(characters[position + i], masks[position + i])) return false;
    }
    return true;
  };
  for (size_t position = 0; position < characters.size(); ++position) {
    for (const Sign& sign : signs()) {
      if (begins_at(sign, position)) return true;
    }
  }
  return false;
}

}  // namespace prefusion::text
