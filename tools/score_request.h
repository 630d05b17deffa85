#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace prefusion::tools {

// What is wrong with a request, with the HTTP status that says so.
class RequestError : public std::runtime_error {
 public:
  RequestError(int status, const std::string& message) : std::runtime_error(message), status_(status) {}
  int status() const { return status_; }

 private:
  int status_;
};

// A picture of a request, not decoded yet.
struct RequestItem {
  std::string encoded;
  std::optional<std::string> prompt;
};

struct RequestLimits {
  size_t max_items = 256;
  size_t max_picture_bytes = size_t{32} << 20;
  std::filesystem::path allowed_folder;  // canonical; empty: no paths
};

// Bytes of standard or URL-safe base64 text, also with line ends and a "data:...;base64," prefix. RequestError 400 for
// other text.
std::string decode_base64(std::string_view text);

// The items of {"items": [{"image": BASE64 | "image_path": PATH, "prompt": TEXT}]}. RequestError: 400 for another form,
// 403 for a path that is not allowed, 413 for too many items or a file that is too large.
std::vector<RequestItem> parse_score_request(std::string_view body, const RequestLimits& limits);

}  // namespace prefusion::tools
