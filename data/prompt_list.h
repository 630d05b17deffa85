#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace prefusion::data {

// A prompt with what its line may set for itself.
struct PromptEntry {
  std::string prompt;
  std::optional<std::string> negative_prompt;
  std::optional<uint64_t> seed;
};

// Prompts of a file: .jsonl has an object a line with `prompt` and perhaps `negative_prompt` and `seed` (other keys are
// notes), any other name a prompt a line. Blank lines are skipped, a byte order mark and CR before LF are dropped.
// Input error (file, line) for a missing or malformed file or one without prompts.
std::vector<PromptEntry> read_prompts(const std::filesystem::path& path);

}  // namespace prefusion::data
