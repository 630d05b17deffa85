#pragma once

#include <torch/nn/module.h>

#include <memory>
#include <string>
#include <vector>

namespace prefusion::nn {

// Modules of one kind whose checkpoint keys are "<name>.0", "<name>.1" ...
template <typename Holder>
class ModuleList : public torch::nn::Module {
 public:
  void push_back(Holder module) {
    register_module(std::to_string(modules_.size()), module);
    modules_.push_back(std::move(module));
  }

  size_t size() const { return modules_.size(); }
  Holder& operator[](size_t index) { return modules_[index]; }
  auto begin() { return modules_.begin(); }
  auto end() { return modules_.end(); }

 private:
  std::vector<Holder> modules_;
};

}  // namespace prefusion::nn
