#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace prefusion::reward_models {

// One --reward argument: KIND=PATH, or KIND alone where the kind needs no weights. A kind that is used twice is told
// apart by a name of its own, KIND/NAME=PATH; the name of its column is then KIND/NAME.
struct RewardSpec {
  std::string column;  // "pickscore", "clip/b32"
  std::string kind;    // "pickscore", "clip"
  std::filesystem::path path;
  std::map<std::string, std::string> options;  // of --reward-args
};

// Usage error for text of another form.
RewardSpec parse_reward_spec(const std::string& text);

// All --reward arguments, with the --reward-args COLUMN.NAME=VALUE,... among them. Usage error for a column given twice
// or arguments for one that is not there.
std::vector<RewardSpec> parse_reward_specs(const std::vector<std::string>& rewards,
                                           const std::vector<std::string>& arguments);

// Reads the options of a spec one by one; finish() refuses what nobody asked for.
class RewardOptions {
 public:
  explicit RewardOptions(const RewardSpec& spec) : spec_(spec), left_(spec.options) {}

  // Usage error for a value that is none of the choices; the first is the default.
  std::string choice(const std::string& name, const std::vector<std::string>& choices);
  double number(const std::string& name, double fallback);
  std::string text(const std::string& name, const std::string& fallback);
  // Usage error naming the options that the kind does not have.
  void finish() const;

 private:
  const RewardSpec& spec_;
  std::map<std::string, std::string> left_;
};

}  // namespace prefusion::reward_models
