#include "data/filters/parquet_columns.h"

#include <arrow/array/builder_binary.h>
#include <arrow/array/builder_nested.h>
#include <arrow/array/builder_primitive.h>
#include <arrow/type.h>

#include <cmath>

#include "data/arrow_status.h"

namespace prefusion::data::filters {

void SchemaSink::add(std::shared_ptr<arrow::Field> field) {
  check_usage(names_.insert(field->name()).second, path_.string(), ": a score or column of the data would be called '",
              field->name(), "', which is something else in this format; rename it in the data");
  fields_.push_back(std::move(field));
}

void SchemaSink::boolean(const std::string& name, bool) {
  add(arrow::field(name, arrow::boolean()));
}

void SchemaSink::text(const std::string& name, std::optional<std::string_view>) {
  add(arrow::field(name, arrow::utf8()));
}

void SchemaSink::bytes(const std::string& name, std::string_view) {
  add(arrow::field(name, arrow::binary()));
}

void SchemaSink::number(const std::string& name, double) {
  add(arrow::field(name, arrow::float64()));
}

void SchemaSink::integer(const std::string& name, std::optional<int64_t>) {
  add(arrow::field(name, arrow::int64()));
}

void SchemaSink::images(const std::string& name, const std::vector<RankedItem>&) {
  using namespace arrow;
  const auto scores = map(utf8(), float64());
  add(arrow::field(
      name, list(struct_({arrow::field("image", binary()), arrow::field("model", utf8()), arrow::field("seed", int64()),
                          arrow::field("scores", scores), arrow::field("rank", float64())}))));
}

std::shared_ptr<arrow::Schema> SchemaSink::schema() const {
  return arrow::schema(fields_);
}

void RowSink::boolean(const std::string&, bool value) {
  check_status(field<arrow::BooleanBuilder>(builder_, next_++).Append(value));
}

void RowSink::text(const std::string&, std::optional<std::string_view> value) {
  auto& column = field<arrow::StringBuilder>(builder_, next_++);
  check_status(value ? column.Append(*value) : column.AppendNull());
}

void RowSink::bytes(const std::string&, std::string_view value) {
  check_status(field<arrow::BinaryBuilder>(builder_, next_++).Append(value));
}

void RowSink::number(const std::string&, double value) {
  auto& column = field<arrow::DoubleBuilder>(builder_, next_++);
  check_status(std::isnan(value) ? column.AppendNull() : column.Append(value));
}

void RowSink::integer(const std::string&, std::optional<int64_t> value) {
  auto& column = field<arrow::Int64Builder>(builder_, next_++);
  check_status(value ? column.Append(*value) : column.AppendNull());
}

void RowSink::images(const std::string&, const std::vector<RankedItem>& value) {
  auto& list = field<arrow::ListBuilder>(builder_, next_++);
  check_status(list.Append());
  auto& items = static_cast<arrow::StructBuilder&>(*list.value_builder());
  auto& seeds = static_cast<arrow::Int64Builder&>(*items.field_builder(2));
  auto& scores = static_cast<arrow::MapBuilder&>(*items.field_builder(3));
  for (const RankedItem& item : value) {
    check_status(items.Append());
    check_status(static_cast<arrow::BinaryBuilder&>(*items.field_builder(0)).Append(item.image));
    check_status(static_cast<arrow::StringBuilder&>(*items.field_builder(1)).Append(item.model));
    check_status(item.seed ? seeds.Append(*item.seed) : seeds.AppendNull());
    check_status(scores.Append());
    for (const auto& [name, score] : item.scores) {
      check_status(static_cast<arrow::StringBuilder&>(*scores.key_builder()).Append(name));
      check_status(static_cast<arrow::DoubleBuilder&>(*scores.item_builder()).Append(score));
    }
    check_status(static_cast<arrow::DoubleBuilder&>(*items.field_builder(4)).Append(item.rank));
  }
}

}  // namespace prefusion::data::filters
