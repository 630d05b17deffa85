#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/mapped_file.h"
#include "core/pickle.h"

namespace prefusion {

// A run of bytes that tensors of a torch file look into.
struct TorchStorage {
  std::string key;                      // names its bytes in the file
  std::optional<at::ScalarType> dtype;  // absent: the tensors say
  int64_t numel = 0;                    // elements; bytes where there is no dtype
};

// The bytes behind a storage, with what keeps them alive.
struct StorageBytes {
  char* data = nullptr;
  size_t size = 0;
  std::shared_ptr<void> owner;
};

// Collects the storages and tensors that the pickle of a torch file describes.
class TorchPickle {
 public:
  explicit TorchPickle(std::string where);

  // To read the pickle with.
  const PickleHooks& hooks() const { return hooks_; }

  // The tensor that `value` stands for: a view of the storage's bytes. Input error when it reaches beyond them.
  at::Tensor tensor(const PickleValue& value, const StorageBytes& bytes) const;

  static bool is_tensor(const PickleValue& value);
  const TorchStorage& storage_of(const PickleValue& tensor) const;
  const std::vector<TorchStorage>& storages() const { return storages_; }

 private:
  struct View {
    size_t storage;
    at::ScalarType dtype;
    int64_t offset;
    std::vector<int64_t> sizes;
    std::vector<int64_t> strides;
  };

  PickleValue call(const std::string& global, const PickleValue& arguments);
  PickleValue read_storage(const PickleValue& id);
  PickleValue rebuild_tensor(const std::string& global, const PickleValue& arguments);
  void check_view(const View& view) const;

  std::string where_;
  PickleHooks hooks_;
  std::vector<TorchStorage> storages_;
  std::vector<View> views_;
};

}  // namespace prefusion
