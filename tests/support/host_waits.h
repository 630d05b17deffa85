#pragma once

#include <ATen/record_function.h>

#include <map>
#include <set>
#include <string>

namespace prefusion::tests {

// What this thread asks for, while this lives, that would have to wait for a GPU if the tensors were on one: numbers
// read on the host, and results whose shape depends on values.
class HostWaits {
 public:
  HostWaits()
      : handle_(at::addThreadLocalCallback(at::RecordFunctionCallback(count).scopes({at::RecordScope::FUNCTION}))) {
    found().clear();
  }
  ~HostWaits() { at::removeCallback(handle_); }
  HostWaits(const HostWaits&) = delete;
  HostWaits& operator=(const HostWaits&) = delete;

  // "aten::item (2), ..."; empty where nothing waits.
  static std::string text() {
    std::string text;
    for (const auto& [name, times] : found()) {
      text += (text.empty() ? "" : ", ") + name + " (" + std::to_string(times) + ")";
    }
    return text;
  }

 private:
  static std::map<std::string, int>& found() {
    thread_local std::map<std::string, int> found;
    return found;
  }
  static std::unique_ptr<at::ObserverContext> count(const at::RecordFunction& function) {
    static const std::set<std::string> waiting = {"aten::item",          "aten::_local_scalar_dense",
                                                  "aten::is_nonzero",    "aten::nonzero",
                                                  "aten::masked_select", "aten::equal",
                                                  "aten::_unique2",      "aten::bincount"};
    if (waiting.contains(function.name())) ++found()[function.name()];
    return nullptr;
  }

  at::CallbackHandle handle_;
};

}  // namespace prefusion::tests
