#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace prefusion::tools {

// Which prompts there are to choose from: those of a file, or one with every choice of modifiers behind it.
struct CandidateSource {
  std::filesystem::path candidates;  // a prompt a line, or .jsonl with `prompt`
  std::string prompt;                // what the pictures should show
  std::filesystem::path modifiers;   // a line each
  int64_t max_modifiers = 2;         // of one prompt
};

// "prompt", "prompt, m" for every modifier, "prompt, m, n" for every two of them and so on up to `most`, each in the
// order of the modifiers. Usage error for more than 20000 prompts.
std::vector<std::string> modified_prompts(const std::string& prompt, const std::vector<std::string>& modifiers,
                                          int64_t most);

// The distinct prompts of a source, in order. Input error for fewer than two.
std::vector<std::string> read_candidates(const CandidateSource& source);

}  // namespace prefusion::tools
