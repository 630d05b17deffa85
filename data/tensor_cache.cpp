#include "data/tensor_cache.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <fstream>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/logging.h"
#include "data/hdf5_table.h"

namespace prefusion::data {
namespace {

constexpr const char* kFormatAttribute = "prefusion_cache_format";
constexpr int64_t kFormat = 1;
constexpr int64_t kCommitBytes = int64_t{64} << 20;
constexpr const char* kKeyColumn = "key";

void write_format(hid_t file) {
  const Hdf5Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const Hdf5Handle attribute(H5Acreate2(file, kFormatAttribute, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT),
                             H5Aclose);
  check_run(attribute >= 0 && H5Awrite(attribute, H5T_NATIVE_INT64, &kFormat) >= 0, "the cache cannot be written");
}

// 0 when there is none.
int64_t read_format(hid_t file) {
  if (H5Aexists(file, kFormatAttribute) <= 0) return 0;
  const Hdf5Handle attribute(H5Aopen(file, kFormatAttribute, H5P_DEFAULT), H5Aclose);
  int64_t format = 0;
  if (attribute < 0 || H5Aread(attribute, H5T_NATIVE_INT64, &format) < 0) return 0;
  return format;
}

// Empty, or with HDF5's signature: something a run of ours may have left, not a file of another kind.
bool may_be_cache(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  char start[8] = {};
  file.read(start, sizeof start);
  return file.gcount() == 0 || (file.gcount() == sizeof start && std::memcmp(start, "\x89HDF\r\n\x1a\n", 8) == 0);
}

// "mean.f32.4x8x8,std.f32.4x8x8"
std::string signature_of(const CacheEntry& entry) {
  std::string signature;
  for (const auto& [name, tensor] : entry) {
    signature += (signature.empty() ? "" : ",") + name + "." + hdf5_type_name(tensor.scalar_type()) + ".";
    for (int64_t i = 0; i < tensor.dim(); ++i) signature += concat(i > 0 ? "x" : "", tensor.size(i));
  }
  return signature;
}

at::Tensor key_rows(const std::vector<const CacheItem*>& items) {
  at::Tensor keys = at::empty({static_cast<int64_t>(items.size()), 16}, at::kByte);
  uint8_t* data = keys.data_ptr<uint8_t>();
  for (size_t i = 0; i < items.size(); ++i) std::memcpy(data + 16 * i, items[i]->key.bytes.data(), 16);
  return keys;
}

}  // namespace

TensorCache::TensorCache(std::filesystem::path path, Mode mode, int compression_level)
    : path_(std::move(path)), mode_(mode), compression_level_(compression_level) {
  check_usage(compression_level >= 0 && compression_level <= 9, "the compression level lies between 0 and 9, not ",
              compression_level);
  const std::lock_guard lock(hdf5_mutex());
  std::error_code error;
  const bool exists = std::filesystem::exists(path_, error);
  check_input(exists || mode == Mode::kWrite, path_.string(), ": no such cache");
  if (!exists) JournaledHdf5::create(path_);
  try {
    open();
  } catch (const Error& failure) {
    if (failure.error_class() != ErrorClass::kInput || mode == Mode::kRead || !may_be_cache(path_)) throw;
    file_.reset();
    shelves_.clear();
    locations_.clear();
    const std::filesystem::path damaged = path_.string() + ".damaged";
    log_warn(failure.what(), "; it was moved to ", damaged.string(), " and is begun anew");
    std::filesystem::rename(path_, damaged);
    JournaledHdf5::create(path_);
    open();
  }
}

TensorCache::~TensorCache() {
  const std::lock_guard lock(hdf5_mutex());
  file_.reset();
}

void TensorCache::open() {
  file_ = std::make_unique<JournaledHdf5>(
      path_, mode_ == Mode::kWrite ? JournaledHdf5::Mode::kWrite : JournaledHdf5::Mode::kRead);
  const int64_t format = read_format(file_->id());
  const std::vector<std::string> kinds = member_names(file_->id());
  if (format == 0 && kinds.empty() && mode_ == Mode::kWrite) {
    write_format(file_->id());
    file_->commit();
    return;
  }
  if (format == 0) {
    file_.reset();
    // Not this program's: it must not be moved away either, hence no input error.
    fail_usage(path_.string(), ": is an HDF5 file, but no cache of prefusion; choose another cache folder");
  }
  check_input(format == kFormat, path_.string(), ": cache format ", format, ", this program writes ", kFormat);
  for (const std::string& kind : kinds) load_kind(kind);
}

void TensorCache::load_kind(const std::string& kind) {
  const Hdf5Handle group(H5Gopen2(file_->id(), kind.c_str(), H5P_DEFAULT), H5Gclose);
  check_input(group >= 0, path_.string(), ": group ", kind, " cannot be opened");
  for (const std::string& signature : member_names(group)) load_shelf(kind, signature);
}

void TensorCache::load_shelf(const std::string& kind, const std::string& signature) {
  Shelf shelf{.kind = kind, .name = kind + "/" + signature};
  const Hdf5Handle group(H5Gopen2(file_->id(), shelf.name.c_str(), H5P_DEFAULT), H5Gclose);
  check_input(group >= 0, path_.string(), ": group ", shelf.name, " cannot be opened");
  at::Tensor key_example;
  int64_t rows = open_column(group, kKeyColumn, key_example);
  check_input(
      rows >= 0 && key_example.dim() == 2 && key_example.size(1) == 16 && key_example.scalar_type() == at::kByte,
      path_.string(), ": group ", shelf.name, " has no keys");
  for (const std::string& name : member_names(group)) {
    if (name == kKeyColumn) continue;
    at::Tensor example;
    const int64_t column_rows = open_column(group, name, example);
    check_input(column_rows >= 0, path_.string(), ": dataset ", shelf.name, "/", name, " is damaged");
    rows = std::min(rows, column_rows);  // a write that failed half-way left the columns of unequal length
    shelf.examples[name] = example;
  }
  shelf.num_rows = rows;
  const at::Tensor keys = read_rows(group, kKeyColumn, key_example, 0, rows);
  for (int64_t row = 0; row < rows; ++row) {
    ContentHash key;
    std::memcpy(key.bytes.data(), keys.const_data_ptr<uint8_t>() + 16 * row, 16);
    locations_.insert_or_assign(key, Location{.shelf = shelves_.size(), .row = row});
  }
  shelves_.push_back(std::move(shelf));
}

bool TensorCache::contains(const ContentHash& key) const {
  const std::lock_guard lock(hdf5_mutex());
  return locations_.contains(key);
}

std::optional<CacheEntry> TensorCache::find(const ContentHash& key) const {
  const std::lock_guard lock(hdf5_mutex());
  const auto found = locations_.find(key);
  if (found == locations_.end()) return std::nullopt;
  try {
    return read_row(found->second);
  } catch (const Error& error) {
    if (error.error_class() != ErrorClass::kInput) throw;
    log_warn(path_.string(), ": ", error.what(), "; the entry is made again");
    locations_.erase(found);
    return std::nullopt;
  }
}

CacheEntry TensorCache::read_row(const Location& location) const {
  const Shelf& shelf = shelves_[location.shelf];
  const Hdf5Handle group(H5Gopen2(file_->id(), shelf.name.c_str(), H5P_DEFAULT), H5Gclose);
  check_input(group >= 0, "group ", shelf.name, " cannot be opened");
  CacheEntry entry;
  for (const auto& [name, example] : shelf.examples) {
    entry[name] = read_rows(group, name, example, location.row, 1).squeeze(0);
  }
  return entry;
}

void TensorCache::append(const std::string& kind, const std::vector<CacheItem>& items) {
  check_usage(mode_ == Mode::kWrite, path_.string(), ": the cache is open for reading only");
  check_usage(!kind.empty() && kind.find('/') == std::string::npos, "'", kind, "' is no name for a kind of entries");
  const std::lock_guard lock(hdf5_mutex());
  std::map<size_t, std::vector<const CacheItem*>> by_shelf;
  std::unordered_map<ContentHash, bool, ContentHashHasher> is_new;
  for (const CacheItem& item : items) {
    if (locations_.contains(item.key) || !is_new.try_emplace(item.key, true).second) continue;
    by_shelf[shelf_for(kind, item.entry)].push_back(&item);
  }
  for (const auto& [shelf, rows] : by_shelf) append_rows(shelf, rows);
  if (uncommitted_bytes_ >= kCommitBytes) {
    file_->commit();
    uncommitted_bytes_ = 0;
  }
}

size_t TensorCache::shelf_for(const std::string& kind, const CacheEntry& entry) {
  check_usage(!entry.empty(), "the cache stores no empty entries");
  const std::string name = kind + "/" + signature_of(entry);
  for (size_t i = 0; i < shelves_.size(); ++i) {
    if (shelves_[i].name == name) return i;
  }
  Shelf shelf{.kind = kind, .name = name};
  const Hdf5Handle links(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
  H5Pset_create_intermediate_group(links, 1);
  const Hdf5Handle group(H5Gcreate2(file_->id(), name.c_str(), links, H5P_DEFAULT, H5P_DEFAULT), H5Gclose);
  check_run(group >= 0, path_.string(), ": writing failed; is the disk full?");
  create_column(group, kKeyColumn, at::empty({0, 16}, at::kByte), compression_level_);
  for (const auto& [column, tensor] : entry) {
    check_usage(column != kKeyColumn && column.find('/') == std::string::npos, "'", column, "' is no column name");
    std::vector<int64_t> shape = tensor.sizes().vec();
    shape.insert(shape.begin(), 0);
    shelf.examples[column] = at::empty(shape, tensor.scalar_type());
    create_column(group, column, shelf.examples[column], compression_level_);
  }
  shelves_.push_back(std::move(shelf));
  return shelves_.size() - 1;
}

// Keys go last: a row counts from the moment its key is there.
void TensorCache::append_rows(size_t number, const std::vector<const CacheItem*>& items) {
  Shelf& shelf = shelves_[number];
  const Hdf5Handle group(H5Gopen2(file_->id(), shelf.name.c_str(), H5P_DEFAULT), H5Gclose);
  for (const auto& [column, example] : shelf.examples) {
    std::vector<at::Tensor> rows;
    for (const CacheItem* item : items) rows.push_back(item->entry.at(column).detach().to(at::kCPU));
    const at::Tensor stacked = at::stack(rows).contiguous();
    write_rows(group, column, shelf.num_rows, stacked);
    uncommitted_bytes_ += static_cast<int64_t>(stacked.nbytes());
  }
  write_rows(group, kKeyColumn, shelf.num_rows, key_rows(items));
  for (size_t i = 0; i < items.size(); ++i) {
    locations_[items[i]->key] = Location{.shelf = number, .row = shelf.num_rows + static_cast<int64_t>(i)};
  }
  shelf.num_rows += static_cast<int64_t>(items.size());
}

void TensorCache::commit() {
  if (mode_ == Mode::kRead) return;
  const std::lock_guard lock(hdf5_mutex());
  file_->commit();
  uncommitted_bytes_ = 0;
}

int64_t TensorCache::size() const {
  const std::lock_guard lock(hdf5_mutex());
  return static_cast<int64_t>(locations_.size());
}

int64_t TensorCache::size(const std::string& kind) const {
  const std::lock_guard lock(hdf5_mutex());
  int64_t rows = 0;
  for (const Shelf& shelf : shelves_) rows += shelf.kind == kind ? shelf.num_rows : 0;
  return rows;
}

}  // namespace prefusion::data
