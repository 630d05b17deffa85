#include "tools/png_text.h"

#include <zlib.h>

#include <cstdint>
#include <optional>

#include "core/error.h"

namespace prefusion::tools {
namespace {

constexpr std::string_view kSignature("\x89PNG\r\n\x1a\n", 8);
constexpr size_t kHeaderEnd = 8 + 4 + 4 + 13 + 4;  // signature and the IHDR chunk

void append_uint32(std::string& out, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(value >> shift & 0xFF);
}

uint32_t read_uint32(std::string_view bytes) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

uint32_t checksum(std::string_view bytes) {
  return static_cast<uint32_t>(
      crc32(0, reinterpret_cast<const unsigned char*>(bytes.data()), static_cast<unsigned>(bytes.size())));
}

void append_chunk(std::string& out, std::string_view type, std::string_view data) {
  append_uint32(out, static_cast<uint32_t>(data.size()));
  const std::string body = std::string(type).append(data);
  out += body;
  append_uint32(out, checksum(body));
}

// UTF-8 to Latin-1, or nothing when a character has no place in it.
std::optional<std::string> to_latin1(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte < 0x80) {
      out += text[i];
    } else if ((byte == 0xC2 || byte == 0xC3) && i + 1 < text.size()) {
      const auto next = static_cast<unsigned char>(text[++i]);
      const int code = (byte & 0x03) << 6 | (next & 0x3F);
      if (code < 0xA0) return std::nullopt;  // controls are not allowed
      out += static_cast<char>(code);
    } else {
      return std::nullopt;
    }
  }
  return out;
}

std::string from_latin1(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80) {
      out += c;
    } else {
      out += static_cast<char>(0xC0 | byte >> 6);
      out += static_cast<char>(0x80 | (byte & 0x3F));
    }
  }
  return out;
}

std::string without_nul(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c != '\0') out += c;
  }
  return out;
}

// keyword NUL compression-flag compression-method language NUL translated-keyword NUL text
std::optional<PngText> parse_itxt(std::string_view data) {
  const size_t keyword_end = data.find('\0');
  if (keyword_end == std::string_view::npos || keyword_end + 3 > data.size() || data[keyword_end + 1] != 0) {
    return std::nullopt;
  }
  const size_t language_end = data.find('\0', keyword_end + 3);
  if (language_end == std::string_view::npos) return std::nullopt;
  const size_t translated_end = data.find('\0', language_end + 1);
  if (translated_end == std::string_view::npos) return std::nullopt;
  return PngText{std::string(data.substr(0, keyword_end)), std::string(data.substr(translated_end + 1))};
}

}  // namespace

std::string insert_png_text(std::string_view png, const std::vector<PngText>& texts) {
  check_run(png.size() > kHeaderEnd && png.starts_with(kSignature), "not a PNG: cannot add text to it");
  std::string out(png.substr(0, kHeaderEnd));
  for (const PngText& item : texts) {
    const std::string text = without_nul(item.text);
    const std::string keyword = item.keyword + '\0';
    if (const auto latin1 = to_latin1(text)) {
      append_chunk(out, "tEXt", keyword + *latin1);
    } else {
      append_chunk(out, "iTXt", keyword + std::string(4, '\0') + text);
    }
  }
  return out.append(png.substr(kHeaderEnd));
}

std::vector<PngText> read_png_text(std::string_view png) {
  std::vector<PngText> texts;
  if (!png.starts_with(kSignature)) return texts;
  png.remove_prefix(kSignature.size());
  while (png.size() >= 12) {
    const size_t length = read_uint32(png);
    if (length > png.size() - 12) break;
    const std::string_view body = png.substr(4, 4 + length);
    if (checksum(body) != read_uint32(png.substr(8 + length))) break;
    const std::string_view type = body.substr(0, 4);
    const std::string_view data = body.substr(4);
    if (type == "tEXt") {
      const size_t end = data.find('\0');
      if (end != std::string_view::npos) {
        texts.push_back({std::string(data.substr(0, end)), from_latin1(data.substr(end + 1))});
      }
    } else if (type == "iTXt") {
      if (auto text = parse_itxt(data)) texts.push_back(std::move(*text));
    }
    png.remove_prefix(12 + length);
  }
  return texts;
}

}  // namespace prefusion::tools
