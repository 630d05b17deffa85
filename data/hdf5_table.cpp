#include "data/hdf5_table.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>

#include "core/error.h"
#include "data/journaled_hdf5.h"

namespace prefusion::data {
namespace {

constexpr int64_t kChunkBytes = 64 << 10;

struct NamedType {
  at::ScalarType dtype;
  const char* name;
};

constexpr std::array<NamedType, 5> kTypes = {
    {{at::kFloat, "f32"}, {at::kHalf, "f16"}, {at::kDouble, "f64"}, {at::kLong, "i64"}, {at::kByte, "u8"}}};

// IEEE half precision, as h5py and NumPy write it.
Hdf5Handle half_type() {
  Hdf5Handle type(H5Tcopy(H5T_IEEE_F32LE), H5Tclose);
  H5Tset_fields(type, 15, 10, 5, 0, 10);
  H5Tset_size(type, 2);
  H5Tset_ebias(type, 15);
  return type;
}

Hdf5Handle hdf5_type(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat: return {H5Tcopy(H5T_IEEE_F32LE), H5Tclose};
    case at::kHalf: return half_type();
    case at::kDouble: return {H5Tcopy(H5T_IEEE_F64LE), H5Tclose};
    case at::kLong: return {H5Tcopy(H5T_STD_I64LE), H5Tclose};
    case at::kByte: return {H5Tcopy(H5T_STD_U8LE), H5Tclose};
    default: fail_usage("the cache stores no tensors of type ", at::toString(dtype));
  }
}

std::vector<hsize_t> dimensions(int64_t rows, const at::Tensor& example) {
  std::vector<hsize_t> sizes = {static_cast<hsize_t>(rows)};
  for (const int64_t size : example.sizes().slice(1)) sizes.push_back(static_cast<hsize_t>(size));
  return sizes;
}

// File space with the rows selected, and the matching memory space.
struct Selection {
  Hdf5Handle file;
  Hdf5Handle memory;
};

Selection select_rows(hid_t dataset, const at::Tensor& example, int64_t first, int64_t count) {
  const std::vector<hsize_t> counts = dimensions(count, example);
  std::vector<hsize_t> starts(counts.size(), 0);
  starts[0] = static_cast<hsize_t>(first);
  Selection selection{{H5Dget_space(dataset), H5Sclose},
                      {H5Screate_simple(static_cast<int>(counts.size()), counts.data(), nullptr), H5Sclose}};
  H5Sselect_hyperslab(selection.file, H5S_SELECT_SET, starts.data(), nullptr, counts.data(), nullptr);
  return selection;
}

}  // namespace

std::string hdf5_type_name(at::ScalarType dtype) {
  for (const NamedType& type : kTypes) {
    if (type.dtype == dtype) return type.name;
  }
  fail_usage("the cache stores no tensors of type ", at::toString(dtype));
}

void create_column(hid_t group, const std::string& name, const at::Tensor& example, int compression_level) {
  const std::vector<hsize_t> empty = dimensions(0, example);
  std::vector<hsize_t> most = empty;
  most[0] = H5S_UNLIMITED;
  int64_t row_bytes = static_cast<int64_t>(example.element_size());
  for (const int64_t size : example.sizes().slice(1)) row_bytes *= size;
  check_usage(row_bytes > 0, "the cache stores no empty tensors");
  std::vector<hsize_t> chunk = empty;
  chunk[0] = static_cast<hsize_t>(std::clamp<int64_t>(kChunkBytes / row_bytes, 1, 4096));
  const Hdf5Handle properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_chunk(properties, static_cast<int>(chunk.size()), chunk.data());
  if (compression_level > 0) {
    H5Pset_shuffle(properties);
    H5Pset_deflate(properties, static_cast<unsigned>(compression_level));
  }
  H5Pset_fletcher32(properties);
  const Hdf5Handle space(H5Screate_simple(static_cast<int>(empty.size()), empty.data(), most.data()), H5Sclose);
  const Hdf5Handle dataset(
      H5Dcreate2(group, name.c_str(), hdf5_type(example.scalar_type()), space, H5P_DEFAULT, properties, H5P_DEFAULT),
      H5Dclose);
  check_run(dataset >= 0, "the cache's column ", name, " cannot be made");
}

int64_t open_column(hid_t group, const std::string& name, at::Tensor& example) {
  const Hdf5Handle dataset(H5Dopen2(group, name.c_str(), H5P_DEFAULT), H5Dclose);
  if (dataset < 0) return -1;
  const Hdf5Handle space(H5Dget_space(dataset), H5Sclose);
  const Hdf5Handle stored(H5Dget_type(dataset), H5Tclose);
  std::array<hsize_t, H5S_MAX_RANK> sizes{};
  const int rank = H5Sget_simple_extent_dims(space, sizes.data(), nullptr);
  if (rank < 1) return -1;
  for (const NamedType& type : kTypes) {
    if (H5Tequal(stored, hdf5_type(type.dtype)) <= 0) continue;
    std::vector<int64_t> shape = {0};
    constexpr hsize_t kMaxRowElements = hsize_t{1} << 32;
    hsize_t elements = 1;
    for (int i = 1; i < rank; ++i) {
      if (sizes[i] == 0 || sizes[i] > kMaxRowElements / elements) return -1;
      elements *= sizes[i];
      shape.push_back(static_cast<int64_t>(sizes[i]));
    }
    example = at::empty(shape, type.dtype);
    return static_cast<int64_t>(std::min(sizes[0], hsize_t{1} << 48));
  }
  return -1;
}

void write_rows(hid_t group, const std::string& name, int64_t first, const at::Tensor& rows) {
  const Hdf5Handle dataset(H5Dopen2(group, name.c_str(), H5P_DEFAULT), H5Dclose);
  const std::vector<hsize_t> sizes = dimensions(first + rows.size(0), rows);
  bool is_written = dataset >= 0 && H5Dset_extent(dataset, sizes.data()) >= 0;
  if (is_written) {
    const Selection selection = select_rows(dataset, rows, first, rows.size(0));
    is_written = H5Dwrite(dataset, hdf5_type(rows.scalar_type()), selection.memory, selection.file, H5P_DEFAULT,
                          rows.const_data_ptr()) >= 0;
  }
  check_run(is_written, "writing the cache's column ", name, " failed; is the disk full?");
}

at::Tensor read_rows(hid_t group, const std::string& name, const at::Tensor& example, int64_t first, int64_t count) {
  const Hdf5Handle dataset(H5Dopen2(group, name.c_str(), H5P_DEFAULT), H5Dclose);
  check_input(dataset >= 0, "the cache's column ", name, " cannot be opened");
  std::vector<int64_t> shape = example.sizes().vec();
  shape[0] = count;
  at::Tensor rows = at::empty(shape, example.scalar_type());
  if (count == 0) return rows;
  const Selection selection = select_rows(dataset, example, first, count);
  check_input(H5Dread(dataset, hdf5_type(example.scalar_type()), selection.memory, selection.file, H5P_DEFAULT,
                      rows.mutable_data_ptr()) >= 0,
              "the cache's column ", name, " is damaged in rows ", first, " to ", first + count - 1);
  return rows;
}

std::vector<std::string> member_names(hid_t group) {
  std::vector<std::string> names;
  const auto visit = [](hid_t, const char* name, const H5L_info_t*, void* out) -> herr_t {
    static_cast<std::vector<std::string>*>(out)->emplace_back(name);
    return 0;
  };
  check_input(H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, nullptr, visit, &names) >= 0,
              "a group of the cache cannot be listed");
  return names;
}

}  // namespace prefusion::data
