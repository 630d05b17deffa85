#include "tools/synthesis_journal.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/atomic_file.h"
#include "core/content_hash.h"
#include "core/error.h"
#include "training/run_fingerprint.h"

namespace prefusion::tools {
namespace {

// A block in the file: bytes of the description, bytes of the pictures, hash of both, description (JSON), pictures.
struct BlockHeader {
  uint64_t description_bytes = 0;
  uint64_t picture_bytes = 0;
  ContentHash hash;
};
static_assert(sizeof(BlockHeader) == 32);

std::string padded(size_t number) {
  const std::string text = std::to_string(number);
  return std::string(text.size() < 3 ? 3 - text.size() : 0, '0') + text;
}

void read_fully(int descriptor, uint64_t offset, void* out, size_t count, const std::filesystem::path& path) {
  char* to = static_cast<char*>(out);
  while (count > 0) {
    const ssize_t got = ::pread(descriptor, to, count, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    check_run(got > 0, path.string(), ": reading failed (", got == 0 ? "it was cut short" : std::strerror(errno), ")");
    to += got;
    offset += static_cast<uint64_t>(got);
    count -= static_cast<size_t>(got);
  }
}

void write_fully(int descriptor, uint64_t offset, std::string_view data, const std::filesystem::path& path) {
  while (!data.empty()) {
    const ssize_t put = ::pwrite(descriptor, data.data(), data.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    check_run(put > 0, path.string(), ": writing failed (", std::strerror(errno), ")");
    offset += static_cast<uint64_t>(put);
    data.remove_prefix(static_cast<size_t>(put));
  }
}

Json describe(const SynthesisJournal::Block& block) {
  Json pictures = Json::array();
  for (size_t i = 0; i < block.candidates.size(); ++i) {
    pictures.push_back({{"prompt", block.prompts[i]},
                        {"seed", block.seeds[i]},
                        {"scores", block.candidates[i].scores},
                        {"bytes", block.candidates[i].encoded.size()}});
  }
  return {{"pictures", pictures}, {"counts", to_json(block.counts)}};
}

}  // namespace

SynthesisJournal::SynthesisJournal(std::filesystem::path folder, const Json& settings, size_t num_models, bool resumes)
    : folder_(std::move(folder)), models_(num_models) {
  make_folder(folder_);
  const std::filesystem::path lock = folder_ / "lock";
  lock_ = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  check_run(lock_ >= 0, lock.string(), ": cannot be opened (", std::strerror(errno), ")");
  try {
    check_run(::flock(lock_, LOCK_EX | LOCK_NB) == 0, folder_.string(),
              ": is in use by another process; wait for it to end, or choose another --output");
    for (size_t i = 0; i < num_models; ++i) open_model(i);
    check_settings(settings, resumes);
  } catch (...) {
    for (const Model& model : models_) {
      if (model.descriptor >= 0) ::close(model.descriptor);
    }
    ::close(lock_);
    throw;
  }
}

SynthesisJournal::~SynthesisJournal() {
  if (is_empty()) remove();
  for (const Model& model : models_) ::close(model.descriptor);
  ::close(lock_);
}

bool SynthesisJournal::is_empty() const {
  return std::all_of(models_.begin(), models_.end(), [](const Model& model) { return model.num_blocks == 0; });
}

void SynthesisJournal::check_settings(const Json& settings, bool resumes) {
  const std::filesystem::path file = folder_ / "settings.json";
  if (is_empty() || !std::filesystem::exists(file)) {
    write_file(file, settings.dump(2) + "\n");
    return;
  }
  check_usage(resumes, folder_.string(),
              " holds the pictures of a run that did not end; go on with --resume, or delete the folder to start over");
  const std::string changes = training::changed_keys(read_json(file), settings);
  check_usage(changes.empty(), folder_.string(), " belongs to a run with other settings: ", changes,
              "; give the same, or another --output");
}

void SynthesisJournal::open_model(size_t index) {
  Model& model = models_[index];
  model.path = folder_ / ("model-" + padded(index) + ".blocks");
  model.descriptor = ::open(model.path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  check_run(model.descriptor >= 0, model.path.string(), ": cannot be opened (", std::strerror(errno), ")");
  struct stat info {};
  check_run(::fstat(model.descriptor, &info) == 0, model.path.string(), ": cannot be read (", std::strerror(errno),
            ")");
  const auto file_size = static_cast<uint64_t>(info.st_size);
  while (read_block(model, file_size)) {
  }
  if (model.end < file_size) {
    check_run(::ftruncate(model.descriptor, static_cast<off_t>(model.end)) == 0, model.path.string(),
              ": cannot be resized (", std::strerror(errno), ")");
  }
}

// False at the end of what is whole.
bool SynthesisJournal::read_block(Model& model, uint64_t file_size) {
  BlockHeader header;
  uint64_t left = file_size - model.end;
  if (left < sizeof header) return false;
  read_fully(model.descriptor, model.end, &header, sizeof header, model.path);
  left -= sizeof header;
  if (header.description_bytes > left || header.picture_bytes > left - header.description_bytes) return false;
  std::string contents(header.description_bytes + header.picture_bytes, '\0');
  const uint64_t begin = model.end + sizeof header;
  read_fully(model.descriptor, begin, contents.data(), contents.size(), model.path);
  if (hash_content(contents) != header.hash) return false;

  const std::string where = concat(model.path.string(), " block ", model.num_blocks);
  const Json description = parse_json(std::string_view(contents).substr(0, header.description_bytes), where);
  ConfigReader reader(description, where);
  uint64_t offset = begin + header.description_bytes;
  for (const Json& item : reader.raw("pictures")) {
    ConfigReader fields(item, where);
    JournalPicture picture{.prompt = fields.require<size_t>("prompt"),
                           .seed = fields.require<uint64_t>("seed"),
                           .scores = fields.require<std::vector<double>>("scores"),
                           .offset = offset,
                           .size = fields.require<uint64_t>("bytes")};
    offset += picture.size;
    model.pictures.push_back(std::move(picture));
  }
  check_input(offset == begin + contents.size(), where, ": its pictures have other sizes than it says");
  counts_ += counts_from_json(reader.raw("counts"), where);
  model.end = begin + contents.size();
  ++model.num_blocks;
  return true;
}

void SynthesisJournal::add(size_t index, const Block& block) {
  Model& model = models_.at(index);
  std::string contents = describe(block).dump();
  BlockHeader header{.description_bytes = contents.size(), .picture_bytes = 0, .hash = {}};
  for (const Candidate& candidate : block.candidates) contents += candidate.encoded;
  header.picture_bytes = contents.size() - header.description_bytes;
  header.hash = hash_content(contents);
  write_fully(model.descriptor, model.end + sizeof header, contents, model.path);
  write_fully(model.descriptor, model.end, {reinterpret_cast<const char*>(&header), sizeof header}, model.path);
  check_run(::fdatasync(model.descriptor) == 0, model.path.string(), ": writing failed (", std::strerror(errno), ")");
  check_run(read_block(model, model.end + sizeof header + contents.size()), model.path.string(),
            ": a block cannot be read back; is the disk sound?");
}

std::string SynthesisJournal::read(size_t index, const JournalPicture& picture) const {
  const Model& model = models_.at(index);
  std::string encoded(picture.size, '\0');
  read_fully(model.descriptor, picture.offset, encoded.data(), encoded.size(), model.path);
  return encoded;
}

void SynthesisJournal::remove() {
  std::error_code error;
  std::filesystem::remove_all(folder_, error);
}

}  // namespace prefusion::tools
