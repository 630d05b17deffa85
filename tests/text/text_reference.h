#pragma once

#include <filesystem>

namespace prefusion::text {

// The folder make_text.py wrote, made on first use.
const std::filesystem::path& text_reference();

}  // namespace prefusion::text
