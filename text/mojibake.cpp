#include "text/mojibake.h"

#include <algorithm>
#include <optional>

#include "text/single_byte_encodings.h"
#include "text/unicode.h"

namespace prefusion::text {
namespace {

uint8_t byte_at(std::string_view bytes, size_t position) {
  return position < bytes.size() ? static_cast<uint8_t>(bytes[position]) : 0;
}
bool in(uint8_t byte, uint8_t first, uint8_t last) {
  return byte >= first && byte <= last;
}
bool continues(uint8_t byte) {
  return in(byte, 0x80, 0xBF);
}

// Length of a UTF-8 sequence at `position` in which a space stands for the byte A0, or 0. Only sequences that make
// likely characters count.
size_t spaced_sequence(std::string_view bytes, size_t position) {
  const uint8_t b0 = byte_at(bytes, position), b1 = byte_at(bytes, position + 1), b2 = byte_at(bytes, position + 2),
                b3 = byte_at(bytes, position + 3);
  const auto likely = [](uint8_t byte) { return continues(byte) && byte != 0x85 && byte != 0xA0; };
  if (b1 == ' ' && std::string_view("\xC2\xC3\xC5\xCE\xD0\xD9").find(static_cast<char>(b0)) != std::string_view::npos) {
    return 2;
  }
  if ((b0 == 0xE2 || b0 == 0xE3) && b1 == ' ' && likely(b2)) return 3;
  if (in(b0, 0xE0, 0xE3) && likely(b1) && b2 == ' ') return 3;
  if (b0 != 0xF0) return 0;
  const bool fits = (b1 == ' ' && continues(b2) && continues(b3)) || (continues(b1) && b2 == ' ' && continues(b3)) ||
                    (continues(b1) && continues(b2) && b3 == ' ');
  return fits ? 4 : 0;
}

bool has_spaced_sequence(std::string_view bytes) {
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (spaced_sequence(bytes, i) > 0) return true;
  }
  return false;
}

// "Ã " is most often the word "à", whose second byte and the blank behind it became one; not so in "às" and "àquele".
bool is_word_a_grave(std::string_view bytes, size_t position) {
  if (!bytes.substr(position).starts_with("\xC3 ")) return false;
  const std::string_view next = bytes.substr(position + 2);
  return !next.starts_with(" ") && !next.starts_with("quele") && !next.starts_with("quela") &&
         !next.starts_with("quilo") && !next.starts_with("s ");
}

std::string restore_spaces(std::string_view bytes) {
  std::string words;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (is_word_a_grave(bytes, i)) {
      words += "\xC3\xA0 ";
      ++i;
    } else {
      words += bytes[i];
    }
  }
  for (size_t i = 0; i < words.size();) {
    const size_t length = spaced_sequence(words, i);
    std::replace(words.begin() + static_cast<std::ptrdiff_t>(i),
                 words.begin() + static_cast<std::ptrdiff_t>(i + length), ' ', '\xA0');
    i += std::max<size_t>(length, 1);
  }
  return words;
}

// Length of a UTF-8 sequence with bytes that were lost (1A, or one '?'), or 0.
size_t lossy_sequence(std::string_view bytes, size_t position) {
  const uint8_t b0 = byte_at(bytes, position);
  const auto lost = [&](size_t i) {
    const uint8_t byte = byte_at(bytes, position + i);
    return position + i < bytes.size() && (byte == 0x1A || byte == '?');
  };
  const auto kept = [&](size_t i) {
    const uint8_t byte = byte_at(bytes, position + i);
    return byte == 0x1A || continues(byte);
  };
  const uint8_t b1 = byte_at(bytes, position + 1);
  if (in(b0, 0xC2, 0xDF) && b1 == 0x1A) return 2;
  if (in(b0, 0xC2, 0xC3) && b1 == '?') return 2;
  const bool is_pair = b0 == 0xED && in(b1, 0xA0, 0xAF) && byte_at(bytes, position + 3) == 0xED &&
                       in(byte_at(bytes, position + 4), 0xB0, 0xBF);
  if (is_pair && ((lost(2) && (lost(5) || kept(5))) || (kept(2) && lost(5)))) return 6;
  if (in(b0, 0xE0, 0xEF) && ((lost(1) && kept(2)) || (kept(1) && lost(2)))) return 3;
  const bool is_four =
      (lost(1) && kept(2) && kept(3)) || (kept(1) && lost(2) && kept(3)) || (kept(1) && kept(2) && lost(3));
  if (in(b0, 0xF0, 0xF4) && is_four) return 4;
  return b0 == 0x1A ? 1 : 0;
}

std::string replace_lossy(std::string_view bytes) {
  std::string replaced;
  for (size_t i = 0; i < bytes.size();) {
    const size_t length = lossy_sequence(bytes, i);
    if (length > 0) {
      replaced += "\uFFFD";
    } else {
      replaced += bytes[i];
    }
    i += std::max<size_t>(length, 1);
  }
  return replaced;
}

// UTF-8 with two habits of other software: C0 80 for U+0000, and surrogate pairs encoded one by one.
std::optional<std::u32string> decode_utf8(std::string_view bytes) {
  std::string plain;
  for (size_t i = 0; i < bytes.size();) {
    const auto at = [&](size_t offset) { return byte_at(bytes, i + offset); };
    if (at(0) == 0xC0 && at(1) == 0x80) {
      plain += '\0';
      i += 2;
    } else if (at(0) == 0xED && in(at(1), 0xA0, 0xAF) && continues(at(2)) && at(3) == 0xED && in(at(4), 0xB0, 0xBF) &&
               continues(at(5))) {
      append_utf8(plain, ((at(1) & 0x0Fu) << 16) + ((at(2) & 0x3Fu) << 10) + ((at(4) & 0x0Fu) << 6) + (at(5) & 0x3Fu) +
                             0x10000);
      i += 6;
    } else {
      plain += bytes[i++];
    }
  }
  if (find_invalid_utf8(plain) != std::string_view::npos) return std::nullopt;
  std::u32string text;
  for (size_t position = 0; position < plain.size();) text += next_code_point(plain, position);
  return text;
}

// Which bytes of UTF-8 a character can be, misread in one of the Western, Central European, Cyrillic, Greek, Turkish
// and Baltic encodings.
struct Roles {
  std::u32string first_of_2, first_of_3, first_of_4, continuation, strict_continuation;
};

Roles make_roles() {
  constexpr std::u32string_view kPunctuation = U"–—―‘’‚“”„•…";  // stands for itself beside misread text as well
  Roles roles;
  roles.continuation = U" ";
  for (size_t i = 0; i < 7; ++i) {
    for (unsigned byte = 0x80; byte < 0x100; ++byte) {
      const CodePoint character = misread_encodings()[i].decode(static_cast<uint8_t>(byte));
      if (byte < 0xC0) {
        roles.continuation += character;
        if (kPunctuation.find(character) == std::u32string_view::npos) roles.strict_continuation += character;
      }
      if (in(static_cast<uint8_t>(byte), 0xC2, 0xDF)) roles.first_of_2 += character;
      if (in(static_cast<uint8_t>(byte), 0xE0, 0xEF)) roles.first_of_3 += character;
      if (byte == 0xF0 || byte == 0xF3) roles.first_of_4 += character;
    }
  }
  return roles;
}

// Length of the run of misread UTF-8 sequences at `position`, or 0.
size_t misread_run(std::u32string_view text, size_t position) {
  static const Roles kRoles = make_roles();
  const auto is = [&](const std::u32string& role, size_t at) {
    return at < text.size() && role.find(text[at]) != std::u32string::npos;
  };
  if (position > 0 && is(kRoles.strict_continuation, position - 1)) return 0;
  size_t end = position;
  for (bool grows = true; grows;) {
    const size_t following = is(kRoles.first_of_2, end)   ? 1
                             : is(kRoles.first_of_3, end) ? 2
                             : is(kRoles.first_of_4, end) ? 3
                                                          : 0;
    grows = following > 0;
    for (size_t i = 1; i <= following; ++i) grows = grows && is(kRoles.continuation, end + i);
    if (grows) end += following + 1;
  }
  return end - position;
}

// Repairs pieces that are misread within a text that is not.
std::u32string repair_pieces(std::u32string_view text) {
  std::u32string repaired;
  for (size_t i = 0; i < text.size();) {
    const size_t length = misread_run(text, i);
    const std::u32string_view piece = text.substr(i, std::max<size_t>(length, 1));
    const bool repairs = length > 0 && length < text.size() && looks_like_mojibake(piece);
    repaired += repairs ? repair_mojibake(std::u32string(piece)) : std::u32string(piece);
    i += piece.size();
  }
  return repaired;
}

// The text as the UTF-8 it was before it was read in `encoding`; nothing where it was not.
std::optional<std::u32string> undo(std::u32string_view text, const SingleByteEncoding& encoding) {
  std::optional<std::string> bytes = encoding.encode(text);
  if (!bytes) return std::nullopt;
  // In the Macintosh encoding such a sequence is a dash before a blank.
  if (encoding.name() != "macintosh" && has_spaced_sequence(*bytes)) bytes = restore_spaces(*bytes);
  if (encoding.is_sloppy()) bytes = replace_lossy(*bytes);
  return decode_utf8(*bytes);
}

bool is_control(CodePoint character) {
  return character >= 0x80 && character <= 0x9F;
}

std::u32string repair_once(const std::u32string& text) {
  const bool is_ascii = std::all_of(text.begin(), text.end(), [](CodePoint c) { return c < 0x80; });
  if (is_ascii || !looks_like_mojibake(text)) return text;
  for (const SingleByteEncoding& encoding : misread_encodings()) {
    if (const auto fixed = undo(text, encoding)) return *fixed;
  }
  const std::u32string repaired = repair_pieces(text);
  if (repaired != text) return repaired;
  // What is left are the controls of Latin-1, which nobody means: Windows-1252 has characters in their place.
  std::u32string fixed = text;
  for (CodePoint& character : fixed) {
    if (is_control(character)) character = windows_1252_character(static_cast<uint8_t>(character));
  }
  return fixed;
}

}  // namespace

std::u32string repair_mojibake(std::u32string text) {
  while (true) {
    std::u32string repaired = repair_once(text);
    if (repaired == text) return text;
    text = std::move(repaired);
  }
}

}  // namespace prefusion::text
