#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace prefusion::tests {

// Runs tests/reference/SCRIPT with the project's Python and a fresh folder as its first argument, and returns the
// folder (removed when the test program ends). Throws with the script's output when it exits with an error.
std::filesystem::path run_reference_script(const std::string& script, const std::vector<std::string>& arguments = {});

}  // namespace prefusion::tests
