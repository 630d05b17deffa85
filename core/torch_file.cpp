#include "core/torch_file.h"

#include <ATen/ATen.h>

#include <cstring>
#include <functional>
#include <map>
#include <unordered_map>

#include "core/error.h"
#include "core/mapped_file.h"
#include "core/pickle.h"
#include "core/torch_storage.h"
#include "core/weight_map.h"
#include "core/zip_archive.h"

namespace prefusion {
namespace {

using Kind = PickleValue::Kind;
using std::string_view_literals::operator""sv;

// More than any model's; a pickle that refers to itself would never end.
constexpr int kMaxDepth = 64;
constexpr size_t kMaxVisited = 4'000'000;
constexpr size_t kMaxNameBytes = 65536;
constexpr size_t kMaxPickleBytes = 100'000'000;

// Finds all tensors below the root of a pickle.
class TensorCollector {
 public:
  TensorCollector(const TorchPickle& pickle, std::function<StorageBytes(const TorchStorage&)> bytes, std::string where)
      : pickle_(pickle), bytes_(std::move(bytes)), where_(std::move(where)) {}

  TensorMap collect(const PickleValue& root) {
    check_input(root.is(Kind::kDict), where_, ": expected a dict of tensors");
    visit(root, "", 0);
    return std::move(tensors_);
  }

 private:
  void visit(const PickleValue& value, const std::string& name, int depth) {
    check_input(depth < kMaxDepth && ++num_visited_ < kMaxVisited && name.size() < kMaxNameBytes, where_,
                ": its values are nested without an end");
    if (TorchPickle::is_tensor(value)) {
      const bool is_new = tensors_.emplace(name, pickle_.tensor(value, bytes_(pickle_.storage_of(value)))).second;
      check_input(is_new, where_, ": tensor '", name, "' occurs twice");
    }
    const auto child = [&](const PickleValue& key) {
      return (name.empty() ? "" : name + ".") + (key.is(Kind::kInt) ? std::to_string(key.number) : key.text);
    };
    for (const auto& [key, item] : value.pairs) visit(*item, child(*key), depth + 1);
    for (size_t i = 0; i < value.items.size(); ++i) {
      visit(*value.items[i], child({.kind = Kind::kInt, .number = static_cast<int64_t>(i)}), depth + 1);
    }
  }

  const TorchPickle& pickle_;
  std::function<StorageBytes(const TorchStorage&)> bytes_;
  std::string where_;
  TensorMap tensors_;
  size_t num_visited_ = 0;
};

// The folder that everything in the archive lies in.
std::string root_folder(const ZipArchive& archive, const std::string& where) {
  for (const auto& [name, entry] : archive.entries()) {
    const size_t slash = name.find('/');
    if (slash != std::string::npos && name.substr(slash) == "/data.pkl") return name.substr(0, slash);
  }
  fail_input(where, ": is a zip file, but holds no data.pkl as torch.save writes it");
}

// Torch 1.6 and later, and TorchScript: a zip file with the pickle and one entry a storage.
TensorMap read_archive(const std::shared_ptr<MappedFile>& file, const std::string& where) {
  const ZipArchive archive(file, where);
  const std::string root = root_folder(archive, where);
  if (const auto* order = archive.find(root + "/byteorder")) {
    const std::string text = archive.read(*order, 16);
    check_input(text == "little", where, ": its byte order is '", text, "', only 'little' is supported");
  }
  const std::string pickle_bytes = archive.read(archive.entries().at(root + "/data.pkl"), kMaxPickleBytes);
  TorchPickle torch_pickle(where);
  const Pickle pickle(pickle_bytes, torch_pickle.hooks(), where + " (data.pkl)");

  std::unordered_map<std::string, StorageBytes> inflated;
  const auto bytes_of = [&](const TorchStorage& storage) -> StorageBytes {
    const auto* entry = archive.find(root + "/data/" + storage.key);
    check_input(entry != nullptr, where, ": has no data for storage '", storage.key, "'");
    if (!entry->is_deflated) return {file->data() + entry->begin, entry->size, file};
    const auto found = inflated.find(storage.key);
    if (found != inflated.end()) return found->second;
    const auto memory = std::make_shared<at::Tensor>(at::empty({static_cast<int64_t>(entry->size)}, at::kByte));
    StorageBytes bytes{static_cast<char*>(memory->data_ptr()), entry->size, memory};
    archive.inflate(*entry, bytes.data);
    return inflated.emplace(storage.key, bytes).first->second;
  };
  return TensorCollector(torch_pickle, bytes_of, where).collect(pickle.root());
}

constexpr auto kLegacyMagic = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."sv;

// Before torch 1.6: pickles of the format's version, the machine, the value and the keys of its storages, then the
// storages, each behind its number of elements.
TensorMap read_legacy(const std::shared_ptr<MappedFile>& file, const std::string& where) {
  std::string_view rest = file->bytes().substr(kLegacyMagic.size());
  TorchPickle torch_pickle(where);
  const auto next_pickle = [&] {
    Pickle pickle(rest.substr(0, kMaxPickleBytes), torch_pickle.hooks(), where);
    rest.remove_prefix(pickle.size());
    return pickle;
  };
  check_input(next_pickle().root().number == 1001, where, ": has an unknown version of torch's old format");
  const Pickle machine = next_pickle();
  for (const auto& [key, value] : machine.root().pairs) {
    check_input(key->text != "little_endian" || value->number == 1, where, ": is big endian, which is not supported");
  }
  const Pickle pickle = next_pickle();
  const Pickle keys = next_pickle();
  std::unordered_map<std::string, size_t> units;
  for (const TorchStorage& storage : torch_pickle.storages()) {
    units[storage.key] = storage.dtype ? c10::elementSize(*storage.dtype) : 1;
  }
  std::unordered_map<std::string, StorageBytes> storages;
  for (const PickleValue* key : keys.root().items) {
    uint64_t count = 0;
    check_input(rest.size() >= sizeof(count) && units.contains(key->text), where, ": storage '", key->text,
                "' is missing; the file is truncated or damaged");
    std::memcpy(&count, rest.data(), sizeof(count));
    rest.remove_prefix(sizeof(count));
    const size_t unit = units.at(key->text);
    check_input(count <= rest.size() / unit, where, ": storage '", key->text, "' of ", count,
                " elements reaches beyond the end of the file; it is truncated or damaged");
    storages[key->text] = {file->data() + (rest.data() - file->bytes().data()), count * unit, file};
    rest.remove_prefix(count * unit);
  }
  const auto bytes_of = [&](const TorchStorage& storage) {
    const auto found = storages.find(storage.key);
    check_input(found != storages.end(), where, ": has no data for storage '", storage.key, "'");
    return found->second;
  };
  return TensorCollector(torch_pickle, bytes_of, where).collect(pickle.root());
}

}  // namespace

TensorMap read_torch_file(const std::filesystem::path& path) {
  const std::string where = path.string();
  const auto file = MappedFile::open(path);
  if (file->bytes().starts_with("PK\x03\x04")) return read_archive(file, where);
  if (file->bytes().starts_with(kLegacyMagic)) return read_legacy(file, where);
  fail_input(where,
             ": was not written by torch.save (it begins like neither of its formats); the file may be truncated "
             "or a download page instead of the file");
}

TensorMap read_tensors(const std::filesystem::path& path) {
  return path.extension() == ".safetensors" ? read_safetensors(path) : read_torch_file(path);
}

TensorMap read_any_weights(const std::filesystem::path& folder, const std::string& stem) {
  namespace fs = std::filesystem;
  bool has_safetensors = false;
  std::error_code ignored;
  for (const auto& file : fs::directory_iterator(folder, ignored)) {
    has_safetensors = has_safetensors || file.path().filename().string().find(".safetensors") != std::string::npos;
  }
  const fs::path whole = folder / "pytorch_model.bin";
  const fs::path index_path = folder / "pytorch_model.bin.index.json";
  if (!has_safetensors && fs::exists(whole)) return read_torch_file(whole);
  if (has_safetensors || !fs::exists(index_path)) return read_weights(folder, stem);

  std::map<fs::path, TensorMap> shards;
  TensorMap tensors;
  for (const auto& [name, path] : read_weight_map(index_path)) {
    if (!shards.contains(path)) shards.emplace(path, read_torch_file(path));
    const auto found = shards.at(path).find(name);
    check_input(found != shards.at(path).end(), path.string(), ": tensor '", name, "' is missing");
    tensors.emplace(name, found->second);
  }
  return tensors;
}

TensorMap model_weights(const TensorMap& checkpoint) {
  const auto below = [](const TensorMap& tensors, const std::string& prefix) {
    TensorMap found;
    for (const auto& [name, tensor] : tensors) {
      if (name.starts_with(prefix)) found.emplace(name.substr(prefix.size()), tensor);
    }
    return found;
  };
  TensorMap weights = below(checkpoint, "state_dict.");
  if (weights.empty()) weights = checkpoint;
  const TensorMap parallel = below(weights, "module.");
  return parallel.size() == weights.size() ? parallel : weights;
}

}  // namespace prefusion
