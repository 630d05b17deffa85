#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace arrow {
class Field;
class RecordBatchBuilder;
class Schema;
}  // namespace arrow

namespace prefusion::data::filters {

// One picture of a ranked list.
struct RankedItem {
  std::string image;
  std::string model;
  std::optional<int64_t> seed;
  std::map<std::string, double> scores;
  double rank = 0;
};

// Takes the columns of a row in order. One description of a row serves two sinks: the first learns the schema, the
// second takes values; so the two cannot differ.
class ColumnSink {
 public:
  virtual ~ColumnSink() = default;
  virtual void boolean(const std::string& name, bool value) = 0;
  virtual void text(const std::string& name, std::optional<std::string_view> value) = 0;
  virtual void bytes(const std::string& name, std::string_view value) = 0;
  virtual void number(const std::string& name, double value) = 0;  // NaN is null
  virtual void integer(const std::string& name, std::optional<int64_t> value) = 0;
  virtual void images(const std::string& name, const std::vector<RankedItem>& value) = 0;
};

// Usage error, naming `path`, for a column that comes twice.
class SchemaSink : public ColumnSink {
 public:
  explicit SchemaSink(std::filesystem::path path) : path_(std::move(path)) {}
  void boolean(const std::string& name, bool value) override;
  void text(const std::string& name, std::optional<std::string_view> value) override;
  void bytes(const std::string& name, std::string_view value) override;
  void number(const std::string& name, double value) override;
  void integer(const std::string& name, std::optional<int64_t> value) override;
  void images(const std::string& name, const std::vector<RankedItem>& value) override;
  std::shared_ptr<arrow::Schema> schema() const;

 private:
  void add(std::shared_ptr<arrow::Field> field);

  std::filesystem::path path_;
  std::vector<std::shared_ptr<arrow::Field>> fields_;
  std::set<std::string> names_;
};

class RowSink : public ColumnSink {
 public:
  explicit RowSink(arrow::RecordBatchBuilder& builder) : builder_(builder) {}
  void boolean(const std::string& name, bool value) override;
  void text(const std::string& name, std::optional<std::string_view> value) override;
  void bytes(const std::string& name, std::string_view value) override;
  void number(const std::string& name, double value) override;
  void integer(const std::string& name, std::optional<int64_t> value) override;
  void images(const std::string& name, const std::vector<RankedItem>& value) override;

 private:
  arrow::RecordBatchBuilder& builder_;
  int next_ = 0;
};

}  // namespace prefusion::data::filters
