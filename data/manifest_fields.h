#pragma once

#include <optional>
#include <string>

#include "core/json_config.h"

namespace prefusion::data {

// The names under which a prompt is looked for, in this order; the same for JSON keys and for columns.
inline constexpr const char* kPromptNames[] = {"prompt", "caption", "text"};
// The same of a path or reference of one picture.
inline constexpr const char* kImageNames[] = {"image", "file_name", "image_path", "file_path", "path", "file"};

// The prompt of an object; nothing when it has none. Input error when it is no text.
std::optional<std::string> prompt_field(const Json& json);

// The text of a prompt file: without the line end and blanks behind it.
std::string trimmed_prompt(std::string text);

}  // namespace prefusion::data
