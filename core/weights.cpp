#include "core/weights.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <map>

#include "core/error.h"

namespace prefusion {
namespace {

// The first few of a list of keys, with the count of the rest.
void append_keys(std::string& message, const char* title, const std::vector<std::string>& keys) {
  if (keys.empty()) return;
  constexpr size_t kShown = 20;
  message += concat("; ", keys.size(), " ", title, ": ");
  for (size_t i = 0; i < std::min(keys.size(), kShown); ++i) message += (i ? ", " : "") + keys[i];
  if (keys.size() > kShown) message += concat(" and ", keys.size() - kShown, " more");
}

}  // namespace

void check_weights(const std::vector<NamedTensor>& destination, const TensorMap& source, const std::string& where) {
  std::vector<std::string> missing, unexpected, misshaped;
  std::map<std::string, bool> known;
  for (const auto& [name, tensor] : destination) {
    known[name] = true;
    const auto found = source.find(name);
    if (found == source.end()) {
      missing.push_back(name);
    } else if (found->second.sizes() != tensor.sizes()) {
      misshaped.push_back(
          concat(name, " (expected ", shape_text(tensor.sizes()), ", found ", shape_text(found->second.sizes()), ")"));
    }
  }
  for (const auto& [name, tensor] : source) {
    if (!known.contains(name)) unexpected.push_back(name);
  }
  if (missing.empty() && unexpected.empty() && misshaped.empty()) return;
  std::string message = where + ": weights do not fit the config";
  append_keys(message, "missing", missing);
  append_keys(message, "unexpected", unexpected);
  append_keys(message, "with another shape", misshaped);
  fail_input(message);
}

void load_weights_strict(const std::vector<NamedTensor>& destination, const TensorMap& source,
                         std::optional<at::ScalarType> dtype, at::Device device, const std::string& where) {
  check_weights(destination, source, where);
  at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : destination) {
    const at::Tensor& loaded = source.at(name);
    // Integer buffers (position ids) keep their own type.
    const bool is_floating = at::isFloatingType(tensor.scalar_type());
    const at::ScalarType target = is_floating ? dtype.value_or(loaded.scalar_type()) : tensor.scalar_type();
    at::Tensor(tensor).set_data(loaded.to(at::TensorOptions().dtype(target).device(device)).contiguous());
  }
}

}  // namespace prefusion
