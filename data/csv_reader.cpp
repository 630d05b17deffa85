#include "data/csv_reader.h"

#include "core/error.h"

namespace prefusion::data {
namespace {

constexpr int kEnd = std::char_traits<char>::eof();
constexpr int64_t kMaxRecordBytes = int64_t{64} << 20;

}  // namespace

CsvReader::CsvReader(const std::filesystem::path& path) : path_(path), file_(path, std::ios::binary) {
  std::error_code error;
  check_input(std::filesystem::is_regular_file(path, error) && file_.good(), path.string(), ": cannot be opened");
  char mark[3] = {};
  file_.read(mark, 3);
  if (file_.gcount() == 3 && std::string_view(mark, 3) == "\xEF\xBB\xBF") {
    position_ = 3;
  } else {
    file_.clear();
    file_.seekg(0);
  }
}

int CsvReader::get() {
  const int c = file_.rdbuf()->sbumpc();
  if (c != kEnd) ++position_;
  if (c == '\n') ++next_line_;
  return c;
}

void CsvReader::read_quoted(std::string& field) {
  for (;;) {
    const int c = get();
    check_input(c != kEnd, path_.string(), " line ", line_, ": a quoted field never ends");
    check_input(static_cast<int64_t>(field.size()) < kMaxRecordBytes, path_.string(), " line ", line_,
                ": a field of more than 64 MiB");
    if (c == '"') {
      if (file_.rdbuf()->sgetc() != '"') return;
      get();
    }
    field += static_cast<char>(c);
  }
}

bool CsvReader::read_record(std::vector<std::string>& fields) {
  fields.assign(1, "");
  line_ = next_line_;
  const int64_t begin = position_;
  bool is_quoted = false;
  for (;;) {
    const int c = get();
    check_input(position_ - begin < kMaxRecordBytes, path_.string(), " line ", line_, ": a record of more than 64 MiB");
    if (c == kEnd || c == '\n') {
      was_terminated_ = c == '\n';
      if (!is_quoted && fields.back().ends_with('\r')) fields.back().pop_back();
      return c == '\n' || position_ > begin;
    }
    if (c == ',') {
      fields.emplace_back();
      is_quoted = false;
    } else if (c == '"' && fields.back().empty() && !is_quoted) {
      read_quoted(fields.back());
      is_quoted = true;
    } else if (!(is_quoted && c == '\r')) {
      fields.back() += static_cast<char>(c);
    }
  }
}

bool CsvReader::next(std::vector<std::string>& fields) {
  while (read_record(fields)) {
    if (fields.size() > 1 || !fields.front().empty()) return true;
  }
  return false;
}

std::string csv_field(std::string_view text) {
  if (text.find_first_of(",\"\r\n") == std::string_view::npos) return std::string(text);
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + '"';
}

}  // namespace prefusion::data
