#include "training/weights_key.h"

#include <ATen/ATen.h>

#include "core/error.h"

namespace prefusion::training {

void add_tensor(ContentHasher& hash, const at::Tensor& tensor) {
  const at::Tensor bytes = tensor.cpu().contiguous();
  hash.add(c10::toString(bytes.scalar_type())).add(shape_text(bytes.sizes()));
  hash.add(std::string_view(static_cast<const char*>(bytes.data_ptr()), bytes.nbytes()));
}

std::string weights_key(const std::string& what, const TensorMap& weights) {
  ContentHasher hash;
  hash.add(what);
  for (const auto& [name, tensor] : weights) {
    hash.add(name);
    add_tensor(hash, tensor);
  }
  return hash.finish().hex();
}

std::string sampled_weights_key(const TensorMap& weights) {
  constexpr int64_t kNumbers = 64;
  ContentHasher hash;
  for (const auto& [name, tensor] : weights) {
    hash.add(name).add(shape_text(tensor.sizes()));
    add_tensor(hash, tensor.flatten().slice(0, 0, kNumbers));
  }
  return hash.finish().hex();
}

}  // namespace prefusion::training
