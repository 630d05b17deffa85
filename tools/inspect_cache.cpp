#include <hdf5.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "tools/inspection.h"

namespace prefusion::tools {
namespace fs = std::filesystem;
namespace {

// A handle of the HDF5 library and the function that closes it.
class Handle {
 public:
  Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  operator hid_t() const { return id_; }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

std::string type_name(hid_t type) {
  const size_t bits = 8 * H5Tget_size(type);
  switch (H5Tget_class(type)) {
    case H5T_FLOAT: return concat("F", bits);
    case H5T_INTEGER: return concat(H5Tget_sign(type) == H5T_SGN_NONE ? "U" : "I", bits);
    case H5T_STRING: return "text";
    case H5T_VLEN: return "list";
    case H5T_COMPOUND: return "record";
    default: return "other";
  }
}

struct Walk {
  OrderedJson rows = OrderedJson::array();
  std::vector<std::string> problems;
};

// Reads a dataset slab by slab: a damaged chunk fails its checksum or its decompression here.
bool is_readable(hid_t dataset, hid_t type, const std::vector<hsize_t>& shape) {
  constexpr hsize_t kSlabBytes = hsize_t{16} << 20;
  if (H5Tis_variable_str(type) > 0 || H5Tdetect_class(type, H5T_VLEN) > 0) return true;
  if (shape.empty() || std::find(shape.begin(), shape.end(), 0) != shape.end()) return true;
  hsize_t row_bytes = H5Tget_size(type);
  for (size_t i = 1; i < shape.size(); ++i) row_bytes *= shape[i];
  const hsize_t rows_at_once = std::max<hsize_t>(1, kSlabBytes / std::max<hsize_t>(1, row_bytes));
  const Handle space(H5Dget_space(dataset), H5Sclose);
  std::vector<char> buffer(std::min(rows_at_once, shape[0]) * row_bytes);
  for (hsize_t first = 0; first < shape[0]; first += rows_at_once) {
    std::vector<hsize_t> start(shape.size(), 0), count = shape;
    start[0] = first;
    count[0] = std::min(rows_at_once, shape[0] - first);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr);
    const Handle memory(H5Screate_simple(static_cast<int>(count.size()), count.data(), nullptr), H5Sclose);
    if (H5Dread(dataset, type, memory, space, H5P_DEFAULT, buffer.data()) < 0) return false;
  }
  return true;
}

void add_dataset(hid_t root, const char* name, Walk& walk) {
  const Handle dataset(H5Dopen2(root, name, H5P_DEFAULT), H5Dclose);
  if (dataset < 0) {
    walk.problems.push_back(concat("dataset '", name, "' cannot be opened"));
    return;
  }
  const Handle type(H5Dget_type(dataset), H5Tclose);
  const Handle space(H5Dget_space(dataset), H5Sclose);
  const int rank = std::max(0, H5Sget_simple_extent_ndims(space));
  std::vector<hsize_t> shape(static_cast<size_t>(rank));
  if (rank > 0) H5Sget_simple_extent_dims(space, shape.data(), nullptr);
  OrderedJson row;
  row["name"] = name;
  row["dtype"] = type_name(type);
  row["shape"] = shape_text(shape);
  row["bytes"] = H5Dget_storage_size(dataset);
  constexpr hsize_t kMaxRowBytes = hsize_t{1} << 30;
  hsize_t row_bytes = H5Tget_size(type);
  for (size_t i = 1; i < shape.size() && row_bytes <= kMaxRowBytes; ++i) row_bytes *= std::max<hsize_t>(1, shape[i]);
  if (row_bytes > kMaxRowBytes) {
    walk.problems.push_back(
        concat("dataset '", name, "' has rows too large to be a cache's, shape ", shape_text(shape)));
    row["state"] = "unsound";
  } else {
    const bool readable = is_readable(dataset, type, shape);
    if (!readable) walk.problems.push_back(concat("dataset '", name, "' is damaged: its chunks cannot be read"));
    row["state"] = readable ? "ok" : "unsound";
  }
  walk.rows.push_back(std::move(row));
}

herr_t visit(hid_t root, const char* name, const H5O_info_t* info, void* data) {
  if (info->type == H5O_TYPE_DATASET) add_dataset(root, name, *static_cast<Walk*>(data));
  return 0;
}

herr_t visit_attribute(hid_t root, const char* name, const H5A_info_t*, void* data) {
  auto& facts = *static_cast<OrderedJson*>(data);
  const Handle attribute(H5Aopen(root, name, H5P_DEFAULT), H5Aclose);
  const Handle type(H5Aget_type(attribute), H5Tclose);
  const Handle space(H5Aget_space(attribute), H5Sclose);
  if (H5Sget_simple_extent_npoints(space) != 1) return 0;
  if (H5Tget_class(type) == H5T_INTEGER) {
    long long value = 0;
    if (H5Aread(attribute, H5T_NATIVE_LLONG, &value) >= 0) facts[name] = value;
  } else if (H5Tget_class(type) == H5T_FLOAT) {
    double value = 0;
    if (H5Aread(attribute, H5T_NATIVE_DOUBLE, &value) >= 0) facts[name] = value;
  } else if (H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) > 0) {
    char* text = nullptr;
    if (H5Aread(attribute, type, &text) >= 0 && text) {
      facts[name] = std::string(text);
      H5Dvlen_reclaim(type, space, H5P_DEFAULT, &text);
    }
  } else if (H5Tget_class(type) == H5T_STRING) {
    std::string text(H5Tget_size(type), '\0');
    if (H5Aread(attribute, type, text.data()) >= 0) facts[name] = std::string(text.c_str());
  }
  return 0;
}

}  // namespace

Inspection inspect_cache(const fs::path& file) {
  Inspection inspection{.path = file.string(), .kind = "cache"};
  // The library prints its error stack by default; ours is one line.
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  const Handle root(H5Fopen(file.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
  if (root < 0) {
    inspection.problems.push_back(file.string() +
                                  ": is no readable HDF5 file (cut off, damaged, or still being written)");
    return inspection;
  }
  OrderedJson attributes = OrderedJson::object();
  H5Aiterate2(root, H5_INDEX_NAME, H5_ITER_INC, nullptr, visit_attribute, &attributes);
  if (!attributes.empty()) inspection.facts["attributes"] = attributes;
  Walk walk;
  if (H5Ovisit2(root, H5_INDEX_NAME, H5_ITER_INC, visit, &walk, H5O_INFO_BASIC) < 0) {
    walk.problems.push_back("its groups cannot be listed");
  }
  inspection.facts["datasets"] = walk.rows;
  inspection.facts["file_bytes"] = fs::file_size(file);
  if (walk.rows.empty()) inspection.notes.push_back("the file holds no datasets");
  for (const auto& problem : walk.problems) inspection.problems.push_back(file.string() + ": " + problem);
  return inspection;
}

}  // namespace prefusion::tools
