#include "data/parquet_writer.h"

#include <arrow/array/builder_binary.h>
#include <arrow/array/builder_nested.h>
#include <arrow/array/builder_primitive.h>
#include <arrow/type.h>

#include "core/content_hash.h"
#include "core/error.h"
#include "data/arrow_status.h"

namespace prefusion::data {
namespace {

std::shared_ptr<arrow::Schema> schema_of(const PickapicRow*) {
  using namespace arrow;
  return arrow::schema(
      {arrow::field("are_different", boolean()), arrow::field("best_image_uid", utf8()),
       arrow::field("caption", utf8()), arrow::field("has_label", boolean()), arrow::field("image_0_uid", utf8()),
       arrow::field("image_1_uid", utf8()), arrow::field("jpg_0", binary()), arrow::field("jpg_1", binary()),
       arrow::field("label_0", float64()), arrow::field("label_1", float64()), arrow::field("model_0", utf8()),
       arrow::field("model_1", utf8()), arrow::field("ranking_id", int64()), arrow::field("user_id", int64()),
       arrow::field("num_example_per_prompt", int64())});
}

int64_t append(arrow::RecordBatchBuilder& builder, const PickapicRow& row) {
  check_usage(row.label_0 >= 0 && row.label_0 <= 1, "label_0 lies between 0 and 1, not ", row.label_0);
  const std::string uid_0 = hash_content(row.jpg_0).hex();
  const std::string uid_1 = hash_content(row.jpg_1).hex();
  const std::string best = row.label_0 == 0.5 ? "tie" : row.label_0 > 0.5 ? uid_0 : uid_1;
  check_status(field<arrow::BooleanBuilder>(builder, 0).Append(uid_0 != uid_1));
  check_status(field<arrow::StringBuilder>(builder, 1).Append(best));
  check_status(field<arrow::StringBuilder>(builder, 2).Append(row.caption));
  check_status(field<arrow::BooleanBuilder>(builder, 3).Append(row.has_label));
  check_status(field<arrow::StringBuilder>(builder, 4).Append(uid_0));
  check_status(field<arrow::StringBuilder>(builder, 5).Append(uid_1));
  check_status(field<arrow::BinaryBuilder>(builder, 6).Append(row.jpg_0));
  check_status(field<arrow::BinaryBuilder>(builder, 7).Append(row.jpg_1));
  check_status(field<arrow::DoubleBuilder>(builder, 8).Append(row.label_0));
  check_status(field<arrow::DoubleBuilder>(builder, 9).Append(1 - row.label_0));
  check_status(field<arrow::StringBuilder>(builder, 10).Append(row.model_0));
  check_status(field<arrow::StringBuilder>(builder, 11).Append(row.model_1));
  check_status(field<arrow::Int64Builder>(builder, 12).Append(row.ranking_id));
  check_status(field<arrow::Int64Builder>(builder, 13).Append(row.user_id));
  check_status(field<arrow::Int64Builder>(builder, 14).Append(row.num_example_per_prompt));
  return static_cast<int64_t>(row.jpg_0.size() + row.jpg_1.size());
}

std::shared_ptr<arrow::Schema> schema_of(const RankedRow*) {
  using namespace arrow;
  const auto item =
      struct_({arrow::field("image", binary()), arrow::field("model", utf8()), arrow::field("seed", int64()),
               arrow::field("scores", map(utf8(), float64())), arrow::field("rank", float64())});
  return arrow::schema({arrow::field("prompt", utf8()), arrow::field("images", list(item))});
}

int64_t append(arrow::RecordBatchBuilder& builder, const RankedRow& row) {
  check_status(field<arrow::StringBuilder>(builder, 0).Append(row.prompt));
  auto& list = field<arrow::ListBuilder>(builder, 1);
  check_status(list.Append());
  auto& items = static_cast<arrow::StructBuilder&>(*list.value_builder());
  auto& scores = static_cast<arrow::MapBuilder&>(*items.field_builder(3));
  int64_t bytes = 0;
  for (const RankedItem& item : row.images) {
    check_status(items.Append());
    check_status(static_cast<arrow::BinaryBuilder&>(*items.field_builder(0)).Append(item.image));
    check_status(static_cast<arrow::StringBuilder&>(*items.field_builder(1)).Append(item.model));
    check_status(static_cast<arrow::Int64Builder&>(*items.field_builder(2)).Append(item.seed));
    check_status(scores.Append());
    for (const auto& [name, value] : item.scores) {
      check_status(static_cast<arrow::StringBuilder&>(*scores.key_builder()).Append(name));
      check_status(static_cast<arrow::DoubleBuilder&>(*scores.item_builder()).Append(value));
    }
    check_status(static_cast<arrow::DoubleBuilder&>(*items.field_builder(4)).Append(item.rank));
    bytes += static_cast<int64_t>(item.image.size());
  }
  return bytes;
}

// An empty list is written as null: the data has no such values.
template <typename ValueBuilder, typename Value>
void append_list(arrow::RecordBatchBuilder& builder, int index, const std::vector<Value>& values) {
  auto& list = field<arrow::ListBuilder>(builder, index);
  if (values.empty()) return check_status(list.AppendNull());
  check_status(list.Append());
  check_status(static_cast<ValueBuilder&>(*list.value_builder()).AppendValues(values));
}

std::shared_ptr<arrow::Schema> schema_of(const GroupRow*) {
  using namespace arrow;
  const auto numbers = list(float64());
  return arrow::schema({arrow::field("id", utf8()), arrow::field("prompt", utf8()), arrow::field("labels", numbers),
                        arrow::field("scores", numbers), arrow::field("errors", numbers),
                        arrow::field("errors_ref", numbers), arrow::field("timesteps", list(int64())),
                        arrow::field("errors_by_timestep", numbers), arrow::field("errors_ref_by_timestep", numbers),
                        arrow::field("margin", float64()), arrow::field("hardness", float64()),
                        arrow::field("is_flipped", boolean())});
}

int64_t append(arrow::RecordBatchBuilder& builder, const GroupRow& row) {
  check_status(field<arrow::StringBuilder>(builder, 0).Append(row.id));
  check_status(field<arrow::StringBuilder>(builder, 1).Append(row.prompt));
  append_list<arrow::DoubleBuilder>(builder, 2, row.labels);
  append_list<arrow::DoubleBuilder>(builder, 3, row.scores);
  append_list<arrow::DoubleBuilder>(builder, 4, row.errors);
  append_list<arrow::DoubleBuilder>(builder, 5, row.errors_ref);
  append_list<arrow::Int64Builder>(builder, 6, row.timesteps);
  append_list<arrow::DoubleBuilder>(builder, 7, row.errors_by_timestep);
  append_list<arrow::DoubleBuilder>(builder, 8, row.errors_ref_by_timestep);
  check_status(field<arrow::DoubleBuilder>(builder, 9).Append(row.margin));
  check_status(field<arrow::DoubleBuilder>(builder, 10).Append(row.hardness));
  check_status(field<arrow::BooleanBuilder>(builder, 11).Append(row.is_flipped));
  return static_cast<int64_t>(row.errors_by_timestep.size() * 2 * sizeof(double));
}

}  // namespace

template <typename Row>
ParquetRowWriter<Row>::ParquetRowWriter(const std::filesystem::path& path, int64_t max_rows, int64_t max_bytes,
                                        const std::map<std::string, std::string>& metadata)
    : file_(path, schema_of(static_cast<const Row*>(nullptr)), max_rows, max_bytes, metadata) {}

template <typename Row>
void ParquetRowWriter<Row>::add(const Row& row) {
  file_.end_row(append(file_.builder(), row));
}

template class ParquetRowWriter<GroupRow>;
template class ParquetRowWriter<PickapicRow>;
template class ParquetRowWriter<RankedRow>;

}  // namespace prefusion::data
