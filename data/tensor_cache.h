#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/content_hash.h"
#include "data/journaled_hdf5.h"

namespace prefusion::data {

// Named tensors that belong together, on the CPU.
using CacheEntry = std::map<std::string, at::Tensor>;

struct CacheItem {
  ContentHash key;
  CacheEntry entry;
};

// Tensors by content key in one HDF5 file. Entries of one kind with the same names, types and shapes share a group
// /KIND/SIGNATURE with the datasets `key` [N, 16] and one [N, ...] for each tensor: chunked, shuffled, deflated and
// checksummed. Types: fp32, fp16, fp64, int64, uint8.
// Thread-safe. The file is whole at any moment (JournaledHdf5); a kill costs what was appended since the last commit().
class TensorCache {
 public:
  enum class Mode { kRead, kWrite };

  // kWrite makes the file when it is missing; one that is damaged is moved to FILE.damaged, with a warning, and begun
  // anew. Input error when the file is something else than such a cache (or, reading, missing or damaged), run error
  // when another process writes it.
  TensorCache(std::filesystem::path path, Mode mode, int compression_level = 1);
  ~TensorCache();

  bool contains(const ContentHash& key) const;
  // The entry, or nothing; an entry whose bytes turn out damaged counts as missing from then on, with a warning.
  std::optional<CacheEntry> find(const ContentHash& key) const;
  // Adds entries; keys that are there already are left as they are. `kind` names what they are ("latents").
  void append(const std::string& kind, const std::vector<CacheItem>& items);
  // Makes what was appended durable. Done by append() after every 64 MiB and by the destructor as well.
  void commit();

  int64_t size() const;
  int64_t size(const std::string& kind) const;
  const std::filesystem::path& path() const { return path_; }

 private:
  struct Shelf {
    std::string kind;
    std::string name;                            // /KIND/SIGNATURE
    std::map<std::string, at::Tensor> examples;  // empty tensors with each column's type and row shape
    int64_t num_rows = 0;
  };
  struct Location {
    size_t shelf = 0;
    int64_t row = 0;
  };

  void open();
  void load_kind(const std::string& kind);
  void load_shelf(const std::string& kind, const std::string& signature);
  size_t shelf_for(const std::string& kind, const CacheEntry& entry);
  void append_rows(size_t shelf, const std::vector<const CacheItem*>& items);
  CacheEntry read_row(const Location& location) const;

  std::filesystem::path path_;
  Mode mode_;
  int compression_level_;
  std::unique_ptr<JournaledHdf5> file_;
  std::vector<Shelf> shelves_;
  mutable std::unordered_map<ContentHash, Location, ContentHashHasher> locations_;
  int64_t uncommitted_bytes_ = 0;
};

}  // namespace prefusion::data
