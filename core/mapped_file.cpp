#include "core/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace prefusion {

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
  return file;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(data_, size_);
}

}  // namespace prefusion
