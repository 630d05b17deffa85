#pragma once

#include <ATen/core/Tensor.h>
#include <hdf5.h>

#include <cstdint>
#include <string>
#include <vector>

// Growing HDF5 datasets as tensors [N, ...]. All functions want hdf5_mutex() held.
namespace prefusion::data {

// Short name of a storable type ("f32"); usage error for others.
std::string hdf5_type_name(at::ScalarType dtype);

// Makes an empty dataset [0, ...] in `group` for rows like `example`: chunks of about 64 KiB, shuffle, deflate,
// checksum. Run error when it cannot be made.
void create_column(hid_t group, const std::string& name, const at::Tensor& example, int compression_level);

// Number of rows; -1 when the dataset is missing, of an unknown type or damaged. `example` becomes an empty tensor with
// the type and shape of a row.
int64_t open_column(hid_t group, const std::string& name, at::Tensor& example);

// Writes `rows` [M, ...] behind row `first` and cuts what was there. Run error when it fails.
void write_rows(hid_t group, const std::string& name, int64_t first, const at::Tensor& rows);

// Rows first .. first+count-1 as a tensor like `example` with the row axis in front. Input error when damaged.
at::Tensor read_rows(hid_t group, const std::string& name, const at::Tensor& example, int64_t first, int64_t count);

// Names of the members of a group.
std::vector<std::string> member_names(hid_t group);

}  // namespace prefusion::data
