#include "data/journal_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "core/atomic_file.h"
#include "core/content_hash.h"
#include "core/error.h"
#include "core/logging.h"

namespace prefusion::data {
namespace {

constexpr std::string_view kMagic = "prefusion journal 1\n";

void append_number(std::string& text, uint64_t number) {
  text.append(reinterpret_cast<const char*>(&number), 8);
}

uint64_t read_number(std::string_view text, size_t position) {
  uint64_t number;
  std::memcpy(&number, text.data() + position, 8);
  return number;
}

}  // namespace

JournalFile::JournalFile(std::filesystem::path path, bool is_writable)
    : path_(std::move(path)), is_writable_(is_writable) {
  descriptor_ = ::open(path_.c_str(), is_writable ? O_RDWR | O_CREAT | O_CLOEXEC : O_RDONLY | O_CLOEXEC, 0644);
  check_run(descriptor_ >= 0, path_.string(), ": cannot be opened (", std::strerror(errno), ")");
  std::error_code error;
  const bool has_journal = std::filesystem::exists(journal_path(), error);
  if (::flock(descriptor_, (is_writable || has_journal ? LOCK_EX : LOCK_SH) | LOCK_NB) != 0) {
    ::close(descriptor_);
    fail_run(path_.string(), ": is in use by another process; wait for it to end, or choose another cache folder");
  }
  try {
    if (has_journal) apply_journal();
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
  if (!is_writable) ::flock(descriptor_, LOCK_SH | LOCK_NB);
  struct stat info {};
  ::fstat(descriptor_, &info);
  size_ = committed_size_ = static_cast<uint64_t>(info.st_size);
}

JournalFile::~JournalFile() {
  ::close(descriptor_);
}

std::filesystem::path JournalFile::journal_path() const {
  return path_.string() + "-journal";
}

void JournalFile::resize(uint64_t size) {
  size_ = size;
}

void JournalFile::forget_tail(uint64_t size) {
  committed_size_ = std::min(committed_size_, size);
}

void JournalFile::read(uint64_t offset, void* out, size_t count) const {
  read_disk(offset, out, count);
  if (changed_.empty()) return;
  const uint64_t end = offset + count;
  for (auto page = changed_.lower_bound(offset / kPageBytes); page != changed_.end(); ++page) {
    const uint64_t page_begin = page->first * kPageBytes;
    if (page_begin >= end) break;
    const uint64_t from = std::max(offset, page_begin);
    const uint64_t to = std::min({end, page_begin + kPageBytes, committed_size_});
    if (from < to) {
      std::memcpy(static_cast<char*>(out) + (from - offset), page->second.data() + (from - page_begin), to - from);
    }
  }
}

void JournalFile::write(uint64_t offset, const void* data, size_t count) {
  const char* from = static_cast<const char*>(data);
  while (count > 0 && offset < committed_size_) {
    const uint64_t in_page = offset % kPageBytes;
    const size_t piece = std::min({count, kPageBytes - in_page, committed_size_ - offset});
    std::memcpy(page(offset / kPageBytes).data() + in_page, from, piece);
    offset += piece;
    from += piece;
    count -= piece;
  }
  if (count > 0) write_disk(offset, from, count);
  size_ = std::max(size_, offset + count);
}

JournalFile::Page& JournalFile::page(uint64_t number) {
  const auto [entry, is_new] = changed_.try_emplace(number);
  if (is_new) read_disk(number * kPageBytes, entry->second.data(), kPageBytes);
  return entry->second;
}

void JournalFile::read_disk(uint64_t offset, void* out, size_t count) const {
  char* to = static_cast<char*>(out);
  while (count > 0) {
    const ssize_t got = ::pread(descriptor_, to, count, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    check_run(got >= 0, path_.string(), ": reading failed (", std::strerror(errno), ")");
    if (got == 0) break;
    to += got;
    offset += static_cast<uint64_t>(got);
    count -= static_cast<size_t>(got);
  }
  std::memset(to, 0, count);
}

void JournalFile::write_disk(uint64_t offset, const void* data, size_t count) {
  const char* from = static_cast<const char*>(data);
  while (count > 0) {
    const ssize_t put = ::pwrite(descriptor_, from, count, static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    check_run(put > 0, path_.string(), ": writing failed (", std::strerror(errno), ")");
    from += put;
    offset += static_cast<uint64_t>(put);
    count -= static_cast<size_t>(put);
  }
}

void JournalFile::commit() {
  if (!is_writable_) return;
  if (size_ > committed_size_) {
    // A tail that was reserved and never written becomes zeros, and what a killed run left behind it goes.
    check_run(::ftruncate(descriptor_, static_cast<off_t>(size_)) == 0, path_.string(), ": cannot be resized (",
              std::strerror(errno), ")");
  }
  check_run(::fdatasync(descriptor_) == 0, path_.string(), ": writing failed (", std::strerror(errno), ")");
  if (changed_.empty() && size_ >= committed_size_) {
    committed_size_ = size_;
    return;
  }
  refresh_last_page();
  write_journal();
  apply_journal();
  changed_.clear();
  committed_size_ = size_;
}

// The page with the committed end in it was taken when its rest had not been written yet.
void JournalFile::refresh_last_page() {
  const uint64_t in_page = committed_size_ % kPageBytes;
  const auto last = changed_.find(committed_size_ / kPageBytes);
  if (last == changed_.end()) return;
  read_disk(committed_size_, last->second.data() + in_page, kPageBytes - in_page);
}

// Magic, size of the file, number of pages, (page number, bytes) of each, hash of all that.
void JournalFile::write_journal() const {
  std::string text(kMagic);
  append_number(text, size_);
  append_number(text, changed_.size());
  for (const auto& [number, page] : changed_) {
    append_number(text, number);
    text.append(page.data(), page.size());
  }
  text += hash_content(text).view();
  // The lock makes a fixed name safe, and a killed run leaves no litter that the next commit does not use up.
  const std::string temporary = journal_path().string() + ".new";
  const int descriptor = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  bool is_ok = descriptor >= 0;
  for (size_t done = 0; is_ok && done < text.size();) {
    const ssize_t put = ::write(descriptor, text.data() + done, text.size() - done);
    is_ok = put > 0 || (put < 0 && errno == EINTR);
    if (put > 0) done += static_cast<size_t>(put);
  }
  is_ok = is_ok && ::fsync(descriptor) == 0 && ::rename(temporary.c_str(), journal_path().c_str()) == 0;
  const int failure = errno;
  if (descriptor >= 0) ::close(descriptor);
  check_run(is_ok, temporary, ": writing failed (", std::strerror(failure), ")");
  sync_folder(path_.has_parent_path() ? path_.parent_path() : ".");
}

void JournalFile::apply_journal() {
  const std::string text = read_file(journal_path());
  constexpr size_t kHashBytes = sizeof(ContentHash::bytes);
  const size_t header_bytes = kMagic.size() + 16;
  const bool is_long_enough = text.size() >= header_bytes + kHashBytes;
  const std::string_view body = std::string_view(text).substr(0, is_long_enough ? text.size() - kHashBytes : 0);
  const bool is_sound = is_long_enough && body.starts_with(kMagic) &&
                        hash_content(body).view() == std::string_view(text).substr(body.size()) &&
                        (body.size() - header_bytes) % (8 + kPageBytes) == 0;
  if (is_sound) {
    const uint64_t size = read_number(body, kMagic.size());
    // The lock may be held through a descriptor that cannot write.
    const int descriptor = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
    check_run(descriptor >= 0, path_.string(), ": has to be repaired from its journal and cannot be written (",
              std::strerror(errno), ")");
    bool is_ok = true;
    for (size_t at = header_bytes; at < body.size(); at += 8 + kPageBytes) {
      const uint64_t begin = read_number(body, at) * kPageBytes;
      const size_t count = begin < size ? std::min<uint64_t>(kPageBytes, size - begin) : 0;
      is_ok = is_ok && ::pwrite(descriptor, body.data() + at + 8, count, static_cast<off_t>(begin)) ==
                           static_cast<ssize_t>(count);
    }
    is_ok = is_ok && ::ftruncate(descriptor, static_cast<off_t>(size)) == 0 && ::fsync(descriptor) == 0;
    ::close(descriptor);
    check_run(is_ok, path_.string(), ": writing failed (", std::strerror(errno), ")");
  } else {
    log_warn(journal_path().string(), ": is damaged and was ignored");
  }
  ::unlink(journal_path().c_str());
}

}  // namespace prefusion::data
