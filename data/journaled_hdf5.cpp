#include "data/journaled_hdf5.h"

#include <H5FDpublic.h>
#if H5_VERSION_GE(1, 13, 0)
#include <H5FDdevelop.h>
#endif

#include <atomic>
#include <memory>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/logging.h"
#include "data/journal_file.h"

namespace prefusion::data {
namespace {

// What the library sees as an open file; its part comes first.
struct DriverFile {
  H5FD_t base;
  JournalFile* journal;
  haddr_t end_of_allocation;
};

DriverFile* driver_file(H5FD_t* file) {
  return reinterpret_cast<DriverFile*>(file);
}
const DriverFile* driver_file(const H5FD_t* file) {
  return reinterpret_cast<const DriverFile*>(file);
}

std::string last_failure;  // guarded by hdf5_mutex()

template <typename Action>
herr_t guarded(const Action& action) {
  try {
    action();
    return 0;
  } catch (const std::exception& error) {
    last_failure = error.what();
    return -1;
  }
}

H5FD_t* open_file(const char* name, unsigned flags, hid_t, haddr_t) {
  DriverFile* file = nullptr;
  guarded([&] {
    auto journal = std::make_unique<JournalFile>(name, (flags & H5F_ACC_RDWR) != 0);
    if (flags & H5F_ACC_TRUNC) journal->resize(0);
    file = new DriverFile{};
    file->journal = journal.release();
  });
  return reinterpret_cast<H5FD_t*>(file);
}

herr_t close_file(H5FD_t* base) {
  DriverFile* file = driver_file(base);
  // The library has flushed: what it leaves is whole, and becomes the committed state.
  const herr_t status = guarded([&] { file->journal->commit(); });
  delete file->journal;
  delete file;
  return status;
}

herr_t query(const H5FD_t*, unsigned long* flags) {
  if (flags) {
    *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE |
             H5FD_FEAT_AGGREGATE_SMALLDATA;
  }
  return 0;
}

haddr_t get_eoa(const H5FD_t* file, H5FD_mem_t) {
  return driver_file(file)->end_of_allocation;
}

herr_t set_eoa(H5FD_t* file, H5FD_mem_t, haddr_t address) {
  driver_file(file)->end_of_allocation = address;
  return 0;
}

haddr_t get_eof(const H5FD_t* file, H5FD_mem_t) {
  return driver_file(file)->journal->size();
}

herr_t get_handle(H5FD_t* file, hid_t, void** handle) {
  *handle = driver_file(file)->journal;
  return 0;
}

herr_t read_bytes(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t address, size_t size, void* buffer) {
  return guarded([&] { driver_file(file)->journal->read(address, buffer, size); });
}

herr_t write_bytes(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t address, size_t size, const void* buffer) {
  return guarded([&] { driver_file(file)->journal->write(address, buffer, size); });
}

herr_t truncate_file(H5FD_t* file, hid_t, hbool_t) {
  return guarded([&] { driver_file(file)->journal->resize(driver_file(file)->end_of_allocation); });
}

hid_t register_driver() {
  static H5FD_class_t driver = {};
  constexpr H5FD_mem_t kFreeLists[H5FD_MEM_NTYPES] = H5FD_FLMAP_DICHOTOMY;
#if H5_VERSION_GE(1, 13, 0)
  driver.version = H5FD_CLASS_VERSION;
  driver.value = 600;
#endif
  driver.name = "prefusion_journal";
  driver.maxaddr = (haddr_t{1} << 62) - 1;
  driver.fc_degree = H5F_CLOSE_STRONG;
  driver.open = open_file;
  driver.close = close_file;
  driver.query = query;
  driver.get_eoa = get_eoa;
  driver.set_eoa = set_eoa;
  driver.get_eof = get_eof;
  driver.get_handle = get_handle;
  driver.read = read_bytes;
  driver.write = write_bytes;
  driver.truncate = truncate_file;
  std::copy(std::begin(kFreeLists), std::end(kFreeLists), driver.fl_map);
  return H5FDregister(&driver);
}

// Access properties that put the driver under the library.
Hdf5Handle access_properties() {
  static const hid_t driver = register_driver();
  // The library prints its error stack by default; ours is one line.
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  Hdf5Handle properties(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  check_run(driver >= 0 && H5Pset_driver(properties, driver, nullptr) >= 0, "the HDF5 library refuses the file driver");
  return properties;
}

}  // namespace

std::mutex& hdf5_mutex() {
  static std::mutex mutex;
  return mutex;
}

void JournaledHdf5::create(const std::filesystem::path& path) {
  const std::filesystem::path temporary = path.string() + ".new";
  std::filesystem::remove(temporary);
  last_failure.clear();
  {
    const Hdf5Handle properties = access_properties();
    const Hdf5Handle file(H5Fcreate(temporary.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, properties), H5Fclose);
    check_run(file >= 0, path.string(), ": cannot be made (", last_failure, ")");
  }
  check_run(last_failure.empty(), path.string(), ": cannot be made (", last_failure, ")");
  std::filesystem::rename(temporary, path);
  sync_folder(path.has_parent_path() ? path.parent_path() : ".");
}

JournaledHdf5::JournaledHdf5(const std::filesystem::path& path, Mode mode) : path_(path) {
  last_failure.clear();
  const Hdf5Handle properties = access_properties();
  file_ = H5Fopen(path.c_str(), mode == Mode::kWrite ? H5F_ACC_RDWR : H5F_ACC_RDONLY, properties);
  check_run(last_failure.empty(), last_failure);
  check_input(file_ >= 0, path.string(), ": is no sound HDF5 file");
  // Bytes behind the allocated end were written by a run that was killed before it committed them.
  haddr_t end = 0;
  void* journal = nullptr;
  if (mode == Mode::kWrite && H5Fget_eoa(file_, &end) >= 0 && H5Fget_vfd_handle(file_, H5P_DEFAULT, &journal) >= 0) {
    static_cast<JournalFile*>(journal)->forget_tail(end);
  }
}

JournaledHdf5::~JournaledHdf5() {
  last_failure.clear();
  if (file_ >= 0 && H5Fclose(file_) < 0) log_warn(path_.string(), ": closing failed (", last_failure, ")");
}

void JournaledHdf5::commit() {
  last_failure.clear();
  void* journal = nullptr;
  const bool is_flushed = H5Fflush(file_, H5F_SCOPE_LOCAL) >= 0 && H5Fget_vfd_handle(file_, H5P_DEFAULT, &journal) >= 0;
  check_run(is_flushed, path_.string(), ": writing failed (", last_failure, ")");
  static_cast<JournalFile*>(journal)->commit();
}

}  // namespace prefusion::data
