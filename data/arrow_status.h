#pragma once

#include <arrow/result.h>
#include <arrow/table_builder.h>

#include "core/error.h"

// What writers make of Arrow's status: a run error.
namespace prefusion::data {

inline void check_status(const arrow::Status& status) {
  check_run(status.ok(), "writing Parquet failed: ", status.message());
}

template <typename Value>
Value take(arrow::Result<Value> result) {
  check_status(result.status());
  return result.MoveValueUnsafe();
}

// The builder of field number `index`.
template <typename Builder>
Builder& field(arrow::RecordBatchBuilder& builder, int index) {
  return *builder.GetFieldAs<Builder>(index);
}

}  // namespace prefusion::data
