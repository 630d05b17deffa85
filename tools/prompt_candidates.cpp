#include "tools/prompt_candidates.h"

#include <algorithm>
#include <unordered_set>

#include "core/error.h"
#include "data/prompt_list.h"

namespace prefusion::tools {
namespace {

constexpr size_t kMostPrompts = 20000;

std::vector<std::string> read_lines(const std::filesystem::path& path) {
  std::vector<std::string> lines;
  for (const data::PromptEntry& entry : data::read_prompts(path)) lines.push_back(entry.prompt);
  return lines;
}

}  // namespace

std::vector<std::string> modified_prompts(const std::string& prompt, const std::vector<std::string>& modifiers,
                                          int64_t most) {
  struct Choice {
    std::string text;
    size_t next = 0;  // the first modifier that may follow
  };
  std::vector<Choice> choices = {{prompt, 0}};
  size_t begin = 0;  // of the choices with as many modifiers as the last round gave them
  for (int64_t round = 0; round < most; ++round) {
    const size_t end = choices.size();
    for (size_t i = begin; i < end; ++i) {
      for (size_t m = choices[i].next; m < modifiers.size(); ++m) {
        choices.push_back({choices[i].text + ", " + modifiers[m], m + 1});
        check_usage(choices.size() <= kMostPrompts, "up to ", most, " of ", modifiers.size(),
                    " modifiers make more than ", kMostPrompts, " prompts; use a smaller --max-modifiers");
      }
    }
    begin = end;
  }
  std::vector<std::string> prompts;
  for (Choice& choice : choices) prompts.push_back(std::move(choice.text));
  return prompts;
}

std::vector<std::string> read_candidates(const CandidateSource& source) {
  const bool is_file = !source.candidates.empty();
  const std::vector<std::string> all =
      is_file ? read_lines(source.candidates)
              : modified_prompts(source.prompt, read_lines(source.modifiers), source.max_modifiers);
  std::vector<std::string> distinct;
  std::unordered_set<std::string> seen;
  for (const std::string& prompt : all) {
    if (seen.insert(prompt).second) distinct.push_back(prompt);
  }
  check_input(distinct.size() >= 2, (is_file ? source.candidates : source.modifiers).string(),
              ": a choice needs at least two different prompts, found ", distinct.size());
  return distinct;
}

}  // namespace prefusion::tools
