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

}  // namespace prefusion::training
