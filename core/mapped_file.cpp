#include "core/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>

#include "core/error.h"

namespace prefusion {
namespace {

// Where files are mapped: the first byte of each, and its size.
struct Mappings {
  std::mutex mutex;
  std::map<uintptr_t, size_t> sizes;
};

Mappings& mappings() {
  static Mappings* all = new Mappings;  // tensors that outlive main may still unmap
  return *all;
}

}  // namespace

std::shared_ptr<MappedFile> MappedFile::open(const std::filesystem::path& path) {
  const std::string where = path.string();
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a FIFO must not hang us
  check_input(descriptor >= 0, where, ": cannot be opened (", std::strerror(errno), ")");
  struct stat status {};
  const bool is_file = fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
  const size_t size = is_file ? static_cast<size_t>(status.st_size) : 0;
  void* address = nullptr;
  if (size > 0) address = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, descriptor, 0);
  const int map_error = errno;
  ::close(descriptor);
  check_input(is_file, where, ": is not a regular file");
  check_input(address != MAP_FAILED, where, ": cannot be mapped (", std::strerror(map_error), ")");
  std::shared_ptr<MappedFile> file(new MappedFile);
  file->data_ = static_cast<char*>(address);
  file->size_ = size;
  if (size > 0) {
    const std::lock_guard lock(mappings().mutex);
    mappings().sizes[reinterpret_cast<uintptr_t>(address)] = size;
  }
  return file;
}

MappedFile::~MappedFile() {
  if (data_ == nullptr) return;
  const std::lock_guard lock(mappings().mutex);
  mappings().sizes.erase(reinterpret_cast<uintptr_t>(data_));
  munmap(data_, size_);
}

bool MappedFile::evict(const void* begin, size_t size) {
  const auto first = reinterpret_cast<uintptr_t>(begin);
  const uintptr_t end = first + size;
  const std::lock_guard lock(mappings().mutex);
  const auto after = mappings().sizes.upper_bound(first);
  if (after == mappings().sizes.begin()) return false;
  const auto& [mapped, mapped_size] = *std::prev(after);
  if (end > mapped + mapped_size) return false;
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t whole_begin = (first + page - 1) / page * page;
  const uintptr_t whole_end = end / page * page;
  if (whole_end > whole_begin) madvise(reinterpret_cast<void*>(whole_begin), whole_end - whole_begin, MADV_DONTNEED);
  return true;
}

}  // namespace prefusion
