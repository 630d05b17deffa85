#pragma once

#include <hdf5.h>

#include <filesystem>
#include <mutex>

namespace prefusion::data {

// The HDF5 library keeps global state: every call to it happens under this lock.
std::mutex& hdf5_mutex();

// An HDF5 file that is whole after a kill or a power failure at any moment: what it holds is what the last commit()
// left. HDF5 alone gives no such promise, for it changes its metadata in place.
//
// A file driver of ours stands below the library. Bytes past the committed end go to the file at once, where nothing
// refers to them yet; changes before it are kept in memory (they are metadata, and small). commit() syncs the former,
// writes the latter to FILE-journal (atomically, with a hash), applies them, and removes the journal; opening a file
// beside which a journal stands applies it first. All members want hdf5_mutex() held.
class JournaledHdf5 {
 public:
  enum class Mode { kRead, kWrite };

  // Opens an existing file, after repairing it from its journal. Run error when another process holds it (writers
  // exclude everybody, readers exclude writers); input error when it is no HDF5 file or damaged.
  JournaledHdf5(const std::filesystem::path& path, Mode mode);
  ~JournaledHdf5();
  JournaledHdf5(const JournaledHdf5&) = delete;
  JournaledHdf5& operator=(const JournaledHdf5&) = delete;

  // Makes an empty file, atomically.
  static void create(const std::filesystem::path& path);

  hid_t id() const { return file_; }
  // Makes everything written so far durable. Run error when the disk is full; the file then is as at the last commit.
  void commit();

 private:
  std::filesystem::path path_;
  hid_t file_ = H5I_INVALID_HID;
};

// Owner of an HDF5 identifier.
class Hdf5Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Hdf5Handle(hid_t id, Close close) : id_(id), close_(close) {}
  ~Hdf5Handle() {
    if (id_ >= 0) close_(id_);
  }
  Hdf5Handle(Hdf5Handle&& other) noexcept : id_(other.id_), close_(other.close_) { other.id_ = H5I_INVALID_HID; }
  Hdf5Handle(const Hdf5Handle&) = delete;
  Hdf5Handle& operator=(const Hdf5Handle&) = delete;
  operator hid_t() const { return id_; }

 private:
  hid_t id_;
  Close close_;
};

}  // namespace prefusion::data
