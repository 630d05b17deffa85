#include "data/arrow_value.h"

#include <arrow/array.h>
#include <arrow/record_batch.h>
#include <arrow/type.h>
#include <arrow/util/float16.h>

#include <cmath>

#include "core/error.h"

namespace prefusion::data {
namespace {

using arrow::Type;

// Dictionaries lead to the cell of their values.
const arrow::Array* follow_dictionary(const arrow::Array* array, int64_t& row) {
  while (array && array->type_id() == Type::DICTIONARY && !array->IsNull(row)) {
    const auto& dictionary = static_cast<const arrow::DictionaryArray&>(*array);
    row = dictionary.GetValueIndex(row);
    array = dictionary.dictionary().get();
    check_input(row >= 0 && row < array->length(), "a dictionary index lies outside its dictionary");
  }
  return array;
}

template <typename ListType>
ListCell list_cell(const arrow::Array& array, int64_t row) {
  const auto& list = static_cast<const ListType&>(array);
  return ListCell{.values = list.values().get(),
                  .begin = static_cast<int64_t>(list.value_offset(row)),
                  .end = static_cast<int64_t>(list.value_offset(row)) + list.value_length(row)};
}

template <typename ArrayType>
double number(const arrow::Array& array, int64_t row) {
  return static_cast<double>(static_cast<const ArrayType&>(array).Value(row));
}

double any_number(const arrow::Array& array, int64_t row) {
  switch (array.type_id()) {
    case Type::BOOL: return number<arrow::BooleanArray>(array, row);
    case Type::INT8: return number<arrow::Int8Array>(array, row);
    case Type::INT16: return number<arrow::Int16Array>(array, row);
    case Type::INT32: return number<arrow::Int32Array>(array, row);
    case Type::INT64: return number<arrow::Int64Array>(array, row);
    case Type::UINT8: return number<arrow::UInt8Array>(array, row);
    case Type::UINT16: return number<arrow::UInt16Array>(array, row);
    case Type::UINT32: return number<arrow::UInt32Array>(array, row);
    case Type::UINT64: return number<arrow::UInt64Array>(array, row);
    case Type::HALF_FLOAT:
      return arrow::util::Float16::FromBits(static_cast<const arrow::HalfFloatArray&>(array).Value(row)).ToDouble();
    case Type::FLOAT: return number<arrow::FloatArray>(array, row);
    case Type::DOUBLE: return number<arrow::DoubleArray>(array, row);
    default: fail_input("a column of type ", array.type()->ToString(), " stands where numbers are expected");
  }
}

}  // namespace

const arrow::Array* find_column(const arrow::RecordBatch& batch, std::string_view name) {
  const int index = batch.schema()->GetFieldIndex(std::string(name));
  return index < 0 ? nullptr : batch.column(index).get();  // the batch caches the array it hands out
}

std::optional<std::string_view> text_at(const arrow::Array* array, int64_t row) {
  array = follow_dictionary(array, row);
  if (!array || array->IsNull(row)) return std::nullopt;
  switch (array->type_id()) {
    case Type::STRING:
    case Type::BINARY: return static_cast<const arrow::BinaryArray*>(array)->GetView(row);
    case Type::LARGE_STRING:
    case Type::LARGE_BINARY: return static_cast<const arrow::LargeBinaryArray*>(array)->GetView(row);
    case Type::STRING_VIEW:
    case Type::BINARY_VIEW: return static_cast<const arrow::BinaryViewArray*>(array)->GetView(row);
    case Type::FIXED_SIZE_BINARY: return static_cast<const arrow::FixedSizeBinaryArray*>(array)->GetView(row);
    case Type::NA: return std::nullopt;
    default: fail_input("a column of type ", array->type()->ToString(), " stands where text or bytes are expected");
  }
}

std::optional<std::string_view> image_at(const arrow::Array* array, int64_t row) {
  if (array && array->type_id() == Type::STRUCT) {
    if (array->IsNull(row)) return std::nullopt;
    return text_at(struct_field(array, "bytes"), row);
  }
  return text_at(array, row);
}

std::optional<double> number_or_nan_at(const arrow::Array* array, int64_t row) {
  array = follow_dictionary(array, row);
  if (!array || array->type_id() == Type::NA || array->IsNull(row)) return std::nullopt;
  return any_number(*array, row);
}

std::optional<std::string> name_at(const arrow::Array* array, int64_t row) {
  array = follow_dictionary(array, row);
  if (!array || array->type_id() == Type::NA || array->IsNull(row)) return std::nullopt;
  if (!arrow::is_numeric(array->type_id())) {
    const auto text = text_at(array, row);
    return text && !text->empty() ? std::optional<std::string>(*text) : std::nullopt;
  }
  const double number = any_number(*array, row);  // whole numbers come as floating ones where some are missing
  constexpr double kExact = 9007199254740992.0;
  if (std::isnan(number)) return std::nullopt;
  check_input(number == std::floor(number) && std::abs(number) <= kExact, "a user is named ", number,
              ", expected text or a whole number");
  return concat(static_cast<int64_t>(number));
}

std::optional<int64_t> integer_at(const arrow::Array* array, int64_t row) {
  array = follow_dictionary(array, row);
  if (!array || array->type_id() == Type::NA || array->IsNull(row)) return std::nullopt;
  // A double does not hold every 64-bit seed.
  if (array->type_id() == Type::INT64) return static_cast<const arrow::Int64Array&>(*array).Value(row);
  if (array->type_id() == Type::UINT64) {
    return static_cast<int64_t>(static_cast<const arrow::UInt64Array&>(*array).Value(row));
  }
  check_input(arrow::is_integer(array->type_id()), "a column of type ", array->type()->ToString(),
              " stands where whole numbers are expected");
  return static_cast<int64_t>(any_number(*array, row));
}

std::map<std::string, double> named_numbers_at(const arrow::RecordBatch& batch, const std::set<std::string>& names,
                                               int64_t row) {
  std::map<std::string, double> numbers;
  for (const std::string& name : names) {
    const arrow::Array* column = find_column(batch, name);
    const bool is_number = column && (arrow::is_numeric(column->type_id()) || column->type_id() == Type::BOOL);
    if (!is_number) continue;
    if (const auto value = number_at(column, row)) numbers.emplace(name, *value);
  }
  return numbers;
}

std::optional<double> number_at(const arrow::Array* array, int64_t row) {
  const auto value = number_or_nan_at(array, row);
  return value && std::isnan(*value) ? std::nullopt : value;
}

std::optional<ListCell> list_at(const arrow::Array* array, int64_t row) {
  if (!array || array->type_id() == Type::NA || array->IsNull(row)) return std::nullopt;
  switch (array->type_id()) {
    case Type::LIST:
    case Type::MAP: return list_cell<arrow::ListArray>(*array, row);
    case Type::LARGE_LIST: return list_cell<arrow::LargeListArray>(*array, row);
    case Type::FIXED_SIZE_LIST: return list_cell<arrow::FixedSizeListArray>(*array, row);
    default: fail_input("a column of type ", array->type()->ToString(), " stands where a list is expected");
  }
}

const arrow::Array* struct_field(const arrow::Array* array, std::string_view name) {
  check_input(array && array->type_id() == Type::STRUCT, "a column of type ",
              array ? array->type()->ToString() : "nothing", " stands where a struct is expected");
  const auto& structs = static_cast<const arrow::StructArray&>(*array);
  const int index = static_cast<const arrow::StructType&>(*array->type()).GetFieldIndex(std::string(name));
  return index < 0 ? nullptr : structs.field(index).get();  // the struct array caches the child it hands out
}

std::vector<std::pair<std::string, double>> numbers_at(const arrow::Array* array, int64_t row) {
  std::vector<std::pair<std::string, double>> numbers;
  if (!array || array->type_id() == Type::NA || array->IsNull(row)) return numbers;
  if (array->type_id() == Type::STRUCT) {
    const auto& type = static_cast<const arrow::StructType&>(*array->type());
    for (const auto& field : type.fields()) {
      const auto value = number_at(struct_field(array, field->name()), row);
      if (value) numbers.emplace_back(field->name(), *value);
    }
    return numbers;
  }
  const auto cell = list_at(array, row);
  const bool is_map = array->type_id() == Type::MAP;
  const auto* map = static_cast<const arrow::MapArray*>(array);
  const arrow::Array* keys = is_map ? map->keys().get() : struct_field(cell->values, "key");
  const arrow::Array* values = is_map ? map->items().get() : struct_field(cell->values, "value");
  for (int64_t i = cell->begin; i < cell->end; ++i) {
    const auto key = text_at(keys, i);
    const auto value = number_at(values, i);
    if (key && value) numbers.emplace_back(std::string(*key), *value);
  }
  return numbers;
}

}  // namespace prefusion::data
