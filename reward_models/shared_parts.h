#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

namespace prefusion::reward_models {

class ClipPromptEncoder;
class PictureTower;

// Parts that are loaded, by key: who asks for one that is there already gets that one.
template <typename Part>
class LoadedParts {
 public:
  std::shared_ptr<Part> get(const std::string& key, const std::function<std::shared_ptr<Part>()>& load) {
    std::shared_ptr<Part>& part = parts_[key];
    if (!part) part = load();
    return part;
  }

 private:
  std::map<std::string, std::shared_ptr<Part>> parts_;
};

// What the rewards of one run have in common: a model's halves are loaded once, whichever heads stand on them.
struct SharedParts {
  LoadedParts<PictureTower> towers;
  LoadedParts<ClipPromptEncoder> prompt_encoders;
};

}  // namespace prefusion::reward_models
