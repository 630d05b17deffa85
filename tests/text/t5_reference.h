#pragma once

#include <filesystem>

namespace prefusion::text {

// The folder make_t5.py wrote, made on first use.
const std::filesystem::path& t5_reference();

}  // namespace prefusion::text
