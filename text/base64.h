#pragma once

#include <string>
#include <string_view>

namespace prefusion::text {

// The bytes of base64 text (RFC 4648, padded). Input error naming `where` for anything else.
std::string decode_base64(std::string_view text, const std::string& where);

}  // namespace prefusion::text
