#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace arrow {
class Array;
class RecordBatch;
}  // namespace arrow

// Cells of Arrow arrays whatever their exact type: writers differ in integer width, large_string against string,
// dictionary encoding, Hugging Face's {bytes, path} struct for images, and so on.
namespace prefusion::data {

// Column `name` of the batch, or nullptr.
const arrow::Array* find_column(const arrow::RecordBatch& batch, std::string_view name);

// Text or bytes of a cell; nothing when the array is absent or the cell null. Input error for other types.
// The view lives as long as the array.
std::optional<std::string_view> text_at(const arrow::Array* array, int64_t row);

// As text_at; a struct gives its field `bytes`.
std::optional<std::string_view> image_at(const arrow::Array* array, int64_t row);

// Any integer, floating point, boolean or decimal cell as a number; nothing when absent, null or NaN.
std::optional<double> number_at(const arrow::Array* array, int64_t row);

// Text, or a whole number as text: what names somebody. Nothing when absent, null or empty.
std::optional<std::string> name_at(const arrow::Array* array, int64_t row);

// A whole number of any integer type; nothing when absent or null. Input error for other types.
std::optional<int64_t> integer_at(const arrow::Array* array, int64_t row);

// The numbers of the named columns that have one in this row; columns that hold no numbers give none.
std::map<std::string, double> named_numbers_at(const arrow::RecordBatch& batch, const std::set<std::string>& names,
                                               int64_t row);

// As number_at, but a NaN is a value.
std::optional<double> number_or_nan_at(const arrow::Array* array, int64_t row);

// The child array and range of a list cell (any list type but views); nothing when absent or null.
struct ListCell {
  const arrow::Array* values = nullptr;
  int64_t begin = 0;
  int64_t end = 0;
};
std::optional<ListCell> list_at(const arrow::Array* array, int64_t row);

// Field `name` of a struct array, or nullptr. Input error when the array is no struct.
const arrow::Array* struct_field(const arrow::Array* array, std::string_view name);

// The named numbers of a cell: a map, or a struct of numbers. Entries without a value are left out.
std::vector<std::pair<std::string, double>> numbers_at(const arrow::Array* array, int64_t row);

}  // namespace prefusion::data
