#include "tools/inspection.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>

#include "core/error.h"

namespace prefusion::tools {
namespace {

std::string format(const char* pattern, double value, const char* unit) {
  char text[64];
  std::snprintf(text, sizeof text, pattern, value, unit);
  return text;
}

std::string count_text(double count) {
  if (count >= 1e9) return format("%.2f %s", count / 1e9, "G");
  if (count >= 1e6) return format("%.2f %s", count / 1e6, "M");
  if (count >= 1e5) return format("%.1f %s", count / 1e3, "k");
  return format("%.0f%s", count, "");
}

std::string bytes_text(double bytes) {
  if (bytes >= 1024.0 * 1024 * 1024) return format("%.2f %s", bytes / (1024.0 * 1024 * 1024), "GiB");
  if (bytes >= 1024.0 * 1024) return format("%.1f %s", bytes / (1024.0 * 1024), "MiB");
  if (bytes >= 1024.0) return format("%.1f %s", bytes / 1024.0, "KiB");
  return format("%.0f %s", bytes, "B");
}

bool is_table(const OrderedJson& value) {
  return value.is_array() && !value.empty() &&
         std::all_of(value.begin(), value.end(), [](const OrderedJson& row) { return row.is_object(); });
}

std::string value_text(const std::string& key, const OrderedJson& value) {
  if (value.is_null()) return "-";
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number()) {
    if (key.ends_with("bytes")) return bytes_text(value.get<double>());
    if (key.ends_with("parameters")) return count_text(value.get<double>());
    return value.is_number_float() ? format("%.6g%s", value.get<double>(), "") : value.dump();
  }
  std::string text;
  if (value.is_object()) {
    for (const auto& [name, part] : value.items())
      text += (text.empty() ? "" : ", ") + name + ": " + value_text(name, part);
  } else {
    for (const auto& part : value) text += (text.empty() ? "" : ", ") + value_text(key, part);
  }
  return text.empty() ? "-" : text;
}

std::string padded(const std::string& text, size_t width) {
  return text + std::string(width > text.size() ? width - text.size() : 0, ' ');
}

std::string readable(std::string key) {
  std::replace(key.begin(), key.end(), '_', ' ');
  return key;
}

void append_table(std::string& out, const std::string& indent, const OrderedJson& rows) {
  std::vector<std::string> columns;
  for (const auto& row : rows) {
    for (const auto& [key, value] : row.items()) {
      if (std::find(columns.begin(), columns.end(), key) == columns.end()) columns.push_back(key);
    }
  }
  std::vector<std::vector<std::string>> cells(1);
  for (const auto& column : columns) cells[0].push_back(readable(column));
  for (const auto& row : rows) {
    auto& line = cells.emplace_back();
    for (const auto& column : columns) line.push_back(row.contains(column) ? value_text(column, row[column]) : "-");
  }
  std::vector<size_t> widths(columns.size(), 0);
  for (const auto& line : cells) {
    for (size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  }
  for (const auto& line : cells) {
    std::string text = indent;
    for (size_t i = 0; i < line.size(); ++i) text += (i + 1 < line.size()) ? padded(line[i], widths[i] + 2) : line[i];
    out += text + "\n";
  }
}

void append_facts(std::string& out, const std::string& indent, const OrderedJson& facts) {
  size_t width = 0;
  const auto is_nested = [](const OrderedJson& value) {
    return is_table(value) ||
           (value.is_object() &&
            std::any_of(value.begin(), value.end(), [](const OrderedJson& part) { return part.is_structured(); }));
  };
  for (const auto& [key, value] : facts.items()) {
    if (!is_nested(value)) width = std::max(width, key.size());
  }
  for (const auto& [key, value] : facts.items()) {
    if (!is_nested(value)) {
      out += indent + padded(readable(key) + ":", width + 2) + value_text(key, value) + "\n";
      continue;
    }
    out += indent + readable(key) + ":\n";
    if (is_table(value)) {
      append_table(out, indent + "  ", value);
    } else {
      append_facts(out, indent + "  ", value);
    }
  }
}

// Smallest and largest value in one pass; NaN is passed on.
bool is_finite(const at::Tensor& tensor) {
  if (!at::isFloatingType(tensor.scalar_type()) || tensor.numel() == 0) return true;
  const bool has_kernel = tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kDouble ||
                          tensor.scalar_type() == at::kHalf || tensor.scalar_type() == at::kBFloat16;
  const auto [low, high] = at::aminmax(has_kernel ? tensor : tensor.to(at::kFloat));
  return std::isfinite(low.item<double>()) && std::isfinite(high.item<double>());
}

}  // namespace

void Inspection::add_part(const std::string& key, const Inspection& part) {
  facts[key] = part.facts;
  problems.insert(problems.end(), part.problems.begin(), part.problems.end());
  notes.insert(notes.end(), part.notes.begin(), part.notes.end());
}

OrderedJson to_json(const Inspection& inspection) {
  OrderedJson json;
  json["path"] = inspection.path;
  json["kind"] = inspection.kind;
  json["sound"] = inspection.sound();
  json["problems"] = inspection.problems;
  json["notes"] = inspection.notes;
  for (const auto& [key, value] : inspection.facts.items()) json[key] = value;
  return json;
}

std::string to_text(const Inspection& inspection) {
  std::string out = inspection.path + ": " + inspection.kind + (inspection.sound() ? ", sound\n" : ", not sound\n");
  append_facts(out, "  ", inspection.facts);
  for (const auto& note : inspection.notes) out += "  note: " + note + "\n";
  for (const auto& problem : inspection.problems) out += "  problem: " + problem + "\n";
  return out;
}

OrderedJson tensor_facts(const TensorMap& tensors, const std::string& where, Inspection& inspection) {
  constexpr size_t kNamed = 5;
  std::map<std::string, int64_t> dtypes;
  int64_t parameters = 0;
  int64_t bytes = 0;
  std::vector<std::string> not_finite;
  for (const auto& [name, tensor] : tensors) {
    dtypes[safetensors_dtype_name(tensor.scalar_type())] += 1;
    parameters += tensor.numel();
    bytes += static_cast<int64_t>(tensor.nbytes());
    if (!is_finite(tensor)) not_finite.push_back(name);
  }
  if (!not_finite.empty()) {
    std::string names;
    for (size_t i = 0; i < std::min(kNamed, not_finite.size()); ++i) names += (i ? ", " : "") + not_finite[i];
    inspection.problems.push_back(concat(where, ": ", not_finite.size(), " of ", tensors.size(),
                                         " tensors hold values that are not finite: ", names,
                                         not_finite.size() > kNamed ? " ..." : ""));
  }
  std::string dtype;
  for (const auto& [name, count] : dtypes) dtype += (dtype.empty() ? "" : "+") + name;
  OrderedJson facts;
  facts["tensors"] = tensors.size();
  facts["parameters"] = parameters;
  facts["dtype"] = dtype;
  facts["bytes"] = bytes;
  return facts;
}

}  // namespace prefusion::tools
