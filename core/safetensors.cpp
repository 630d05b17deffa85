#include "core/safetensors.h"

#include <ATen/ATen.h>

#include <array>
#include <cstring>
#include <set>

#include "core/error.h"
#include "core/json_config.h"
#include "core/mapped_file.h"
#include "core/tensor_source.h"
#include "core/weight_map.h"

namespace prefusion {
namespace {

constexpr size_t kLengthBytes = 8;
// The format's own limit; a larger header is an attack or a broken file.
constexpr uint64_t kMaxHeaderBytes = 100'000'000;

struct DtypeName {
  const char* name;
  at::ScalarType dtype;
};

constexpr std::array kDtypes = {
    DtypeName{"F64", at::kDouble},
    DtypeName{"F32", at::kFloat},
    DtypeName{"F16", at::kHalf},
    DtypeName{"BF16", at::kBFloat16},
    DtypeName{"F8_E4M3", at::kFloat8_e4m3fn},
    DtypeName{"F8_E5M2", at::kFloat8_e5m2},
    DtypeName{"I64", at::kLong},
    DtypeName{"I32", at::kInt},
    DtypeName{"I16", at::kShort},
    DtypeName{"I8", at::kChar},
    DtypeName{"U8", at::kByte},
    DtypeName{"BOOL", at::kBool},
    DtypeName{"F8_E4M3FNUZ", at::kFloat8_e4m3fnuz},
    DtypeName{"F8_E5M2FNUZ", at::kFloat8_e5m2fnuz},
    DtypeName{"U64", at::kUInt64},
    DtypeName{"U32", at::kUInt32},
    DtypeName{"U16", at::kUInt16},
    DtypeName{"C64", at::kComplexFloat},
};

at::ScalarType parse_dtype(const std::string& name, const std::string& where) {
  for (const auto& entry : kDtypes) {
    if (name == entry.name) return entry.dtype;
  }
  fail_input(where, ": dtype '", name, "' is not supported");
}

// Product of the shape times the element size; an input error when it overflows. The product without zeros must fit as
// well: strides are computed from it.
size_t byte_count(const std::vector<int64_t>& shape, at::ScalarType dtype, const std::string& where) {
  auto extent = static_cast<int64_t>(c10::elementSize(dtype));
  bool is_empty = false;
  for (const int64_t size : shape) {
    check_input(size >= 0, where, ": negative dimension in shape ", shape_text(shape));
    is_empty |= size == 0;
    check_input(!__builtin_mul_overflow(extent, std::max<int64_t>(size, 1), &extent), where, ": shape ",
                shape_text(shape), " overflows");
  }
  return is_empty ? 0 : static_cast<size_t>(extent);
}

// The header as JSON. A name that occurs twice is an error here, where a parser would silently take the last.
Json parse_header(std::string_view text, const std::string& where) {
  check_json_depth(text, where);
  std::vector<std::set<std::string>> names;  // of the objects being read, outermost first
  const auto visit = [&](int depth, Json::parse_event_t event, Json& parsed) {
    const auto level = static_cast<size_t>(depth);
    if (event == Json::parse_event_t::object_start) {
      names.resize(level + 1);
      names[level].clear();
    } else if (event == Json::parse_event_t::key) {
      const auto& name = parsed.get_ref<const std::string&>();
      check_input(names[level - 1].insert(name).second, where, ": name '", name, "' occurs twice");
    }
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), visit);
  } catch (const Json::exception& error) {
    fail_input(where, ": not valid JSON (", error.what(), ")");
  }
}

// JSON for a message, cut where a hostile header would fill the screen.
std::string excerpt(const Json& value) {
  constexpr size_t kLongest = 200;
  const std::string text = value.dump();
  return text.size() <= kLongest ? text : text.substr(0, kLongest) + "...";
}

SafetensorsFile::Entry parse_entry(const Json& value, const std::string& where) {
  check_input(value.is_object() && value.contains("dtype") && value.contains("shape") && value.contains("data_offsets"),
              where, ": expected {dtype, shape, data_offsets}, found ", excerpt(value));
  try {
    SafetensorsFile::Entry entry;
    entry.dtype = parse_dtype(value.at("dtype").get<std::string>(), where);
    const Json& shape = value.at("shape");
    check_input(shape.is_array(), where, ": shape ", excerpt(shape), " is not a list of integers");
    for (const Json& size : shape) {
      check_input(size.is_number_integer(), where, ": shape ", excerpt(shape), " is not a list of integers");
      entry.shape.push_back(size.get<int64_t>());
    }
    const Json& offsets = value.at("data_offsets");
    check_input(
        offsets.is_array() && offsets.size() == 2 && offsets[0].is_number_unsigned() && offsets[1].is_number_unsigned(),
        where, ": data_offsets ", excerpt(offsets), " are not two non-negative integers");
    entry.begin = offsets[0].get<size_t>();
    entry.end = offsets[1].get<size_t>();
    return entry;
  } catch (const Json::exception& error) {
    fail_input(where, ": malformed header entry (", error.what(), ")");
  }
}

// Entries sorted by offset must tile the data section exactly: no overlap, no hole, nothing beyond the end.
void check_tiling(const std::map<std::string, SafetensorsFile::Entry>& entries, size_t data_bytes,
                  const std::string& where) {
  std::vector<std::pair<size_t, const std::pair<const std::string, SafetensorsFile::Entry>*>> order;
  for (const auto& named : entries) order.emplace_back(named.second.begin, &named);
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first, a.second->second.end) < std::pair(b.first, b.second->second.end);
  });
  size_t position = 0;
  for (const auto& [begin, named] : order) {
    const auto& [name, entry] = *named;
    check_input(begin == position, where, ": tensor '", name, "' begins at byte ", begin, ", expected ", position,
                " (ranges overlap or leave a hole)");
    check_input(entry.end >= begin && entry.end <= data_bytes, where, ": tensor '", name, "' ends at byte ", entry.end,
                " of ", data_bytes, "; the file is truncated or its header lies");
    position = entry.end;
  }
  check_input(position == data_bytes, where, ": header describes ", position, " data bytes, the file holds ",
              data_bytes);
}

}  // namespace

struct SafetensorsFile::Mapping {
  std::shared_ptr<MappedFile> file;
};

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  const std::string where = path.string();
  SafetensorsFile file;
  file.path_ = path;
  file.mapping_ = std::make_shared<Mapping>(Mapping{MappedFile::open(path)});
  const MappedFile& mapped = *file.mapping_->file;
  const size_t size = mapped.size();
  check_input(size >= kLengthBytes, where, ": ", size, " bytes are too short for a safetensors file");

  const char* bytes = mapped.data();
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes, kLengthBytes);  // little endian, as every supported host is
  check_input(header_bytes <= kMaxHeaderBytes && header_bytes <= size - kLengthBytes, where, ": header length ",
              header_bytes, " does not fit a file of ", size, " bytes; it is truncated or not a safetensors file");
  file.data_offset_ = kLengthBytes + header_bytes;
  const Json header = parse_header({bytes + kLengthBytes, header_bytes}, where + " (header)");
  check_input(header.is_object(), where, ": header is no JSON object");

  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__") {
      check_input(value.is_object(), where, ": __metadata__ is no JSON object");
      for (const auto& [key, text] : value.items()) {
        check_input(text.is_string(), where, ": __metadata__ '", key, "' is no string");
        file.metadata_[key] = text.get<std::string>();
      }
      continue;
    }
    const std::string entry_where = where + ": tensor '" + name + "'";
    Entry entry = parse_entry(value, entry_where);
    const size_t expected = byte_count(entry.shape, entry.dtype, entry_where);
    check_input(entry.end >= entry.begin && entry.end - entry.begin == expected, entry_where, " of shape ",
                shape_text(entry.shape), " needs ", expected, " bytes, its data_offsets are [", entry.begin, ", ",
                entry.end, "]");
    file.entries_.emplace(name, std::move(entry));
  }
  check_tiling(file.entries_, size - file.data_offset_, where);
  return file;
}

at::Tensor SafetensorsFile::tensor(const std::string& name) const {
  const auto found = entries_.find(name);
  check_input(found != entries_.end(), path_.string(), ": has no tensor '", name, "'");
  const Entry& entry = found->second;
  char* data = mapping_->file->data() + data_offset_ + entry.begin;
  const auto options = at::TensorOptions().dtype(entry.dtype);
  const size_t alignment = c10::elementSize(entry.dtype);
  if (reinterpret_cast<uintptr_t>(data) % alignment != 0) {
    // Some writers do not align; such a tensor is copied, since vectorised kernels may not load it in place.
    at::Tensor copy = at::empty(entry.shape, options);
    // memcpy wants no null pointers, which an empty tensor has, even for nothing.
    if (entry.end > entry.begin) std::memcpy(copy.data_ptr(), data, entry.end - entry.begin);
    return copy;
  }
  return at::from_blob(
      data, entry.shape, [mapping = mapping_](void*) {}, options);
}

TensorMap read_safetensors(const std::filesystem::path& path, Metadata* metadata) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  TensorMap tensors;
  for (const auto& [name, entry] : file.entries()) tensors.emplace(name, file.tensor(name));
  if (metadata) *metadata = file.metadata();
  return tensors;
}

namespace {

TensorMap read_shards(const std::filesystem::path& index_path) {
  std::map<std::filesystem::path, SafetensorsFile> shards;
  TensorMap tensors;
  for (const auto& [name, path] : read_weight_map(index_path)) {
    auto found = shards.find(path);
    if (found == shards.end()) found = shards.emplace(path, SafetensorsFile::open(path)).first;
    tensors.emplace(name, found->second.tensor(name));
  }
  return tensors;
}

// First file of the folder named STEM.VARIANT.safetensors (or its index), in alphabetical order.
std::optional<std::filesystem::path> find_variant(const std::filesystem::path& folder, const std::string& stem,
                                                  const std::string& suffix) {
  std::set<std::filesystem::path> found;
  std::error_code ignored;
  for (const auto& file : std::filesystem::directory_iterator(folder, ignored)) {
    const std::string name = file.path().filename().string();
    if (!name.starts_with(stem + ".") || !name.ends_with(suffix) || name.size() <= stem.size() + suffix.size())
      continue;
    const std::string variant = name.substr(stem.size() + 1, name.size() - stem.size() - 1 - suffix.size());
    // "non_ema" weights are other weights, not another precision of the same.
    if (variant == "fp16" || variant == "bf16" || variant == "fp32") found.insert(file.path());
  }
  if (found.empty()) return std::nullopt;
  return *found.begin();
}

}  // namespace

TensorMap read_weights(const std::filesystem::path& folder, const std::string& stem) {
  namespace fs = std::filesystem;
  check_input(fs::is_directory(folder), folder.string(), ": no such folder");
  if (fs::exists(folder / (stem + ".safetensors"))) return read_safetensors(folder / (stem + ".safetensors"));
  if (fs::exists(folder / (stem + ".safetensors.index.json"))) {
    return read_shards(folder / (stem + ".safetensors.index.json"));
  }
  if (const auto variant = find_variant(folder, stem, ".safetensors")) return read_safetensors(*variant);
  // Sharded variants are named STEM.safetensors.index.VARIANT.json (diffusers) or STEM.VARIANT.safetensors.index.json.
  for (const char* variant : {"fp16", "bf16", "fp32"}) {
    const fs::path index = folder / concat(stem, ".safetensors.index.", variant, ".json");
    if (fs::exists(index)) return read_shards(index);
  }
  if (const auto variant = find_variant(folder, stem, ".safetensors.index.json")) return read_shards(*variant);
  if (fs::exists(folder / (stem + ".bin")) || fs::exists(folder / "pytorch_model.bin")) {
    fail_input(folder.string(), ": holds only pickled weights (.bin), which can run code; save them as ", stem,
               ".safetensors first");
  }
  fail_input(folder.string(), ": no weights found; looked for ", stem, ".safetensors, ", stem,
             ".safetensors.index.json and their fp16/bf16/fp32 variants");
}

const char* safetensors_dtype_name(at::ScalarType dtype) {
  for (const auto& entry : kDtypes) {
    if (dtype == entry.dtype) return entry.name;
  }
  fail_input("dtype ", c10::toString(dtype), " cannot be written to safetensors");
}

void write_safetensors(const std::filesystem::path& path, const TensorMap& tensors, const Metadata& metadata) {
  write_safetensors(path, tensor_sources(tensors), metadata);
}

}  // namespace prefusion
