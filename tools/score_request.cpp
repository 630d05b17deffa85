#include "tools/score_request.h"

#include <algorithm>
#include <array>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/json_config.h"

namespace prefusion::tools {
namespace {

std::array<int8_t, 256> base64_values() {
  std::array<int8_t, 256> values;
  values.fill(-1);
  const std::string_view alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
  for (size_t i = 0; i < alphabet.size(); ++i) values[static_cast<unsigned char>(alphabet[i])] = static_cast<int8_t>(i);
  values['+'] = values['-'] = 62;
  values['/'] = values['_'] = 63;
  return values;
}

std::string read_allowed(const std::string& text, const RequestLimits& limits) {
  if (limits.allowed_folder.empty()) {
    throw RequestError(403, "'image_path' is not allowed; the server runs without --allow-paths");
  }
  std::error_code error;
  const std::filesystem::path path = std::filesystem::canonical(limits.allowed_folder / text, error);
  const auto [end, at] =
      std::mismatch(limits.allowed_folder.begin(), limits.allowed_folder.end(), path.begin(), path.end());
  // A path that does not exist is answered like one that lies elsewhere: the answer tells nothing about other folders.
  if (error || end != limits.allowed_folder.end() || !std::filesystem::is_regular_file(path, error)) {
    throw RequestError(403, "'image_path' names no file below the folder of --allow-paths");
  }
  if (std::filesystem::file_size(path, error) > limits.max_picture_bytes || error) {
    throw RequestError(413, "the file of 'image_path' is too large");
  }
  try {
    return read_file(path, limits.max_picture_bytes);
  } catch (const Error&) {
    throw RequestError(400, "the file of 'image_path' cannot be read");
  }
}

RequestItem parse_item(const Json& json, size_t index, const RequestLimits& limits) {
  const std::string where = concat("item ", index, ": ");
  if (!json.is_object()) throw RequestError(400, where + "is no JSON object");
  RequestItem item;
  if (const auto prompt = json.find("prompt"); prompt != json.end() && !prompt->is_null()) {
    if (!prompt->is_string()) throw RequestError(400, where + "'prompt' must be text");
    item.prompt = prompt->get<std::string>();
  }
  const bool has_path = json.contains("image_path");
  const auto image = json.find(has_path ? "image_path" : "image");
  if (image == json.end() || !image->is_string()) {
    throw RequestError(400, where + "'image' must be the base64 text of a picture file");
  }
  const auto& text = image->get_ref<const std::string&>();
  try {
    item.encoded = has_path ? read_allowed(text, limits) : decode_base64(text);
  } catch (const RequestError& error) {
    throw RequestError(error.status(), where + error.what());
  }
  return item;
}

}  // namespace

std::string decode_base64(std::string_view text) {
  static const std::array<int8_t, 256> kValues = base64_values();
  if (text.starts_with("data:")) {
    const size_t comma = text.find(";base64,");
    if (comma == std::string_view::npos) throw RequestError(400, "a data URL without base64");
    text.remove_prefix(comma + 8);
  }
  std::string bytes;
  bytes.reserve(text.size() / 4 * 3 + 3);
  uint32_t bits = 0;
  int count = 0;  // of digits in `bits`
  size_t padding = 0;
  for (const char c : text) {
    if (c == '\n' || c == '\r') continue;
    if (c == '=') {
      ++padding;
      continue;
    }
    const int8_t value = kValues[static_cast<unsigned char>(c)];
    if (value < 0 || padding > 0) throw RequestError(400, "'image' is no base64 text");
    bits = bits << 6 | static_cast<uint32_t>(value);
    if (++count == 4) {
      for (const int shift : {16, 8, 0}) bytes += static_cast<char>(bits >> shift & 0xff);
      bits = 0;
      count = 0;
    }
  }
  const bool is_whole = count != 1 && (padding == 0 || (count > 0 && padding == static_cast<size_t>(4 - count)));
  if (!is_whole) throw RequestError(400, "'image' is base64 text that is cut off");
  if (count >= 2) bytes += static_cast<char>(bits >> (6 * count - 8) & 0xff);
  if (count == 3) bytes += static_cast<char>(bits >> 2 & 0xff);
  return bytes;
}

std::vector<RequestItem> parse_score_request(std::string_view body, const RequestLimits& limits) {
  Json json;
  try {
    json = parse_json(body, "the request");
  } catch (const Error& error) {
    throw RequestError(400, error.what());
  }
  const auto items = json.is_object() ? json.find("items") : json.end();
  if (!json.is_object() || items == json.end() || !items->is_array() || items->empty()) {
    throw RequestError(400,
                       "expected {\"items\": [{\"image\": BASE64, \"prompt\": TEXT}, ...]} with at least one item");
  }
  if (items->size() > limits.max_items) {
    throw RequestError(413, concat(items->size(), " items, at most ", limits.max_items, " are taken (--max-items)"));
  }
  std::vector<RequestItem> parsed;
  for (size_t i = 0; i < items->size(); ++i) parsed.push_back(parse_item((*items)[i], i, limits));
  return parsed;
}

}  // namespace prefusion::tools
