#include <cstdlib>

#include "core/atomic_file.h"
#include "core/error.h"
#include "tools/convert_model.h"

namespace prefusion::tools {
namespace fs = std::filesystem;
namespace {

void copy_one(const fs::path& from, const fs::path& to) {
  make_folder(to.parent_path());
  std::error_code error;
  fs::copy_file(from, to, error);
  check_run(!error, to.string(), ": cannot be written (", error.message(), ")");
}

void copy_tree(const fs::path& from, const fs::path& to, bool with_weights) {
  for (const auto& entry : fs::recursive_directory_iterator(from)) {
    const fs::path relative = fs::relative(entry.path(), from);
    const std::string name = relative.filename().string();
    const bool is_weights = name.ends_with(".safetensors") || name.ends_with(".bin") || name.ends_with(".msgpack") ||
                            name.ends_with(".h5") || name.find(".index.") != std::string::npos;
    if (entry.is_directory() || (is_weights && !with_weights)) continue;
    copy_one(entry.path(), to / relative);
  }
}

void write_part(const ConvertibleModel& model, const ModelPart& part, const fs::path& folder,
                const WriteProgress& on_written) {
  make_folder(folder);
  if (model.is_folder) copy_tree(model.source / part.folder, folder, /*with_weights=*/false);
  write_file(folder / "config.json", part.config.dump(2) + "\n");
  write_safetensors(folder / (part.stem + ".safetensors"), part.weights, {{"format", "pt"}}, on_written);
}

// A folder that takes its name when it is whole.
class StagedFolder {
 public:
  explicit StagedFolder(fs::path destination) : destination_(std::move(destination)) {
    if (!destination_.has_filename()) destination_ = destination_.parent_path();  // "out/"
    const fs::path parent = destination_.has_parent_path() ? destination_.parent_path() : fs::path(".");
    make_folder(parent);
    std::string name = (parent / ("." + destination_.filename().string() + ".XXXXXX")).string();
    check_run(mkdtemp(name.data()) != nullptr, destination_.string(), ": cannot be written");
    staging_ = name;
    fs::permissions(staging_, fs::perms(0755));
  }
  ~StagedFolder() {
    std::error_code ignored;
    if (!staging_.empty()) fs::remove_all(staging_, ignored);
  }
  StagedFolder(const StagedFolder&) = delete;
  StagedFolder& operator=(const StagedFolder&) = delete;

  const fs::path& path() const { return staging_; }

  // A folder that was there is gone only when this one has its name.
  void commit() {
    std::error_code error, ignored;
    fs::path replaced;
    if (fs::exists(destination_)) {
      replaced = staging_.string() + ".replaced";
      fs::rename(destination_, replaced, error);
      check_run(!error, destination_.string(), ": cannot be replaced (", error.message(), ")");
    }
    fs::rename(staging_, destination_, error);
    if (error && !replaced.empty()) fs::rename(replaced, destination_, ignored);
    check_run(!error, destination_.string(), ": cannot be written (", error.message(), ")");
    staging_.clear();
    if (!replaced.empty()) fs::remove_all(replaced, ignored);
  }

 private:
  fs::path destination_;
  fs::path staging_;
};

}  // namespace

void write_model_folder(const ConvertibleModel& model, const fs::path& output, bool overwrite,
                        const WriteProgress& on_written) {
  check_can_be_folder(model);
  check_usage(overwrite || !fs::exists(output), output.string(), ": exists already; see --overwrite");
  StagedFolder folder(output);
  size_t before = 0;
  for (const ModelPart& part : model.parts) {
    size_t in_part = 0;
    write_part(model, part, folder.path() / part.folder, [&](size_t bytes) {
      in_part = bytes;
      if (on_written) on_written(before + bytes);
    });
    before += in_part;
  }
  for (const auto& [name, from] : model.copies) {
    if (fs::is_directory(from)) {
      copy_tree(from, folder.path() / name, /*with_weights=*/true);
    } else {
      copy_one(from, folder.path() / name);
    }
  }
  if (!model.scheduler.is_null()) {
    make_folder(folder.path() / "scheduler");
    write_file(folder.path() / "scheduler" / "scheduler_config.json", model.scheduler.dump(2) + "\n");
  }
  if (!model.model_index.is_null()) write_file(folder.path() / "model_index.json", model.model_index.dump(2) + "\n");
  folder.commit();
}

}  // namespace prefusion::tools
