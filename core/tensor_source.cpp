#include "core/tensor_source.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/json_config.h"
#include "core/torch_file.h"

namespace prefusion {

int64_t TensorSource::numel() const {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

TensorSource tensor_source(const at::Tensor& tensor) {
  return {tensor.scalar_type(), tensor.sizes().vec(), [tensor] { return tensor; }};
}

TensorSources tensor_sources(const TensorMap& tensors) {
  TensorSources sources;
  for (const auto& [name, tensor] : tensors) sources.emplace(name, tensor_source(tensor));
  return sources;
}

TensorSources open_tensors(const std::filesystem::path& path, Metadata* metadata) {
  if (path.extension() != ".safetensors") return tensor_sources(model_weights(read_torch_file(path)));
  const auto file = std::make_shared<SafetensorsFile>(SafetensorsFile::open(path));
  if (metadata) *metadata = file->metadata();
  TensorSources sources;
  for (const auto& [name, entry] : file->entries()) {
    sources.emplace(name, TensorSource{entry.dtype, entry.shape, [file, name = name] { return file->tensor(name); }});
  }
  return sources;
}

void write_safetensors(const std::filesystem::path& path, const TensorSources& tensors, const Metadata& metadata,
                       const std::function<void(size_t bytes)>& on_written) {
  // Larger elements first keeps every tensor aligned to its own size, as the reference writer does.
  std::vector<const TensorSources::value_type*> order;
  for (const auto& named : tensors) order.push_back(&named);
  std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return c10::elementSize(a->second.dtype) > c10::elementSize(b->second.dtype);
  });
  Json header = Json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  size_t offset = 0;
  for (const auto* named : order) {
    const TensorSource& source = named->second;
    const size_t end = offset + static_cast<size_t>(source.numel()) * c10::elementSize(source.dtype);
    header[named->first] = {
        {"dtype", safetensors_dtype_name(source.dtype)}, {"shape", source.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();

  AtomicFile file(path);
  file.write(&length, sizeof length);
  file.write(text.data(), text.size());
  size_t written = 0;
  for (const auto* named : order) {
    const at::Tensor tensor = named->second.load().detach().cpu().contiguous();
    check_run(tensor.scalar_type() == named->second.dtype && tensor.sizes() == at::IntArrayRef(named->second.shape),
              path.string(), ": tensor '", named->first, "' came as another dtype or shape than announced");
    file.write(tensor.data_ptr(), tensor.nbytes());
    written += tensor.nbytes();
    if (on_written) on_written(written);
  }
  file.commit();
}

}  // namespace prefusion
