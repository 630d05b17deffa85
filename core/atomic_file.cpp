#include "core/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "core/error.h"

namespace prefusion {

AtomicFile::AtomicFile(std::filesystem::path destination) : destination_(std::move(destination)) {
  const auto folder = destination_.has_parent_path() ? destination_.parent_path() : std::filesystem::path(".");
  std::string name = (folder / concat(".", destination_.filename().string(), ".XXXXXX")).string();
  descriptor_ = mkostemp(name.data(), O_CLOEXEC);
  check_run(descriptor_ >= 0, destination_.string(), ": cannot be written (", std::strerror(errno), ")");
  temporary_ = name;
  fchmod(descriptor_, 0644);
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, size_t bytes) {
  const char* position = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = ::write(descriptor_, position, bytes);
    if (written < 0 && errno == EINTR) continue;
    check_run(written > 0, destination_.string(), ": writing failed (", std::strerror(errno),
              "); nothing of it was kept");
    position += written;
    bytes -= static_cast<size_t>(written);
  }
}

void AtomicFile::commit() {
  check_run(::fsync(descriptor_) == 0, destination_.string(), ": writing failed (", std::strerror(errno), ")");
  check_run(::rename(temporary_.c_str(), destination_.c_str()) == 0, destination_.string(), ": cannot be replaced (",
            std::strerror(errno), ")");
  ::close(descriptor_);
  descriptor_ = -1;
  sync_folder(destination_.has_parent_path() ? destination_.parent_path() : std::filesystem::path("."));
}

void write_file(const std::filesystem::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

std::string read_file(const std::filesystem::path& path, size_t max_bytes) {
  std::ifstream file(path, std::ios::binary);
  check_input(file.good() && !std::filesystem::is_directory(path), path.string(), ": cannot be opened");
  file.seekg(0, std::ios::end);
  const auto size = static_cast<size_t>(std::max<std::streamoff>(0, file.tellg()));
  check_input(size <= max_bytes, path.string(), ": ", size, " bytes, at most ", max_bytes, " are expected here");
  std::string bytes(size, '\0');
  file.seekg(0);
  file.read(bytes.data(), static_cast<std::streamsize>(size));
  check_input(file.good() || size == 0, path.string(), ": cannot be read");
  return bytes;
}

void make_folder(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  check_run(!error && std::filesystem::is_directory(path), path.string(), ": cannot make this folder (",
            error ? error.message() : "a file is in the way", ")");
}

void sync_folder(const std::filesystem::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;  // durability of the name is best effort; the file itself is synced
  ::fsync(descriptor);
  ::close(descriptor);
}

}  // namespace prefusion
