#include <algorithm>
#include <deque>
#include <fstream>

#include "core/error.h"
#include "data/csv_reader.h"
#include "data/dataset.h"
#include "data/manifest_fields.h"
#include "data/manifest_row.h"
#include "data/score_sources.h"

namespace prefusion::data {

std::optional<std::string> prompt_field(const Json& json) {
  for (const char* name : kPromptNames) {
    const auto found = json.find(name);
    if (found == json.end() || found->is_null()) continue;
    check_input(found->is_string(), "'", name, "' must be text, found ", found->dump().substr(0, 60));
    return found->get<std::string>();
  }
  return std::nullopt;
}

std::string trimmed_prompt(std::string text) {
  if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
  const size_t end = text.find_last_not_of(" \t\r\n\v\f");
  text.resize(end == std::string::npos ? 0 : end + 1);
  return text;
}

namespace {

constexpr size_t kMaxLineBytes = size_t{64} << 20;

// What parse_manifest_row is to see of a row: pictures and prompts under its own names. Labels do not matter here.
Json pictures_and_prompts(const Json& json) {
  check_input(json.is_object(), "a row must be a JSON object, found ", json.dump().substr(0, 60));
  Json row = Json::object();
  if (const auto prompt = prompt_field(json)) row["prompt"] = *prompt;
  for (const char* name : {"images", "prompts"}) {
    if (json.contains(name)) row[name] = json[name];
  }
  if (row.contains("images") && !row["images"].is_null()) return row;
  for (const char* name : kImageNames) {
    const auto found = json.find(name);
    if (found == json.end() || found->is_null()) continue;
    row["image"] = *found;
    break;
  }
  return row;
}

// Gives the items of one row after the other.
class ManifestScoreSource : public ScoreSource {
 public:
  ManifestScoreSource(std::filesystem::path path, std::filesystem::path prefix)
      : path_(std::move(path)), folder_(path_.parent_path()), prefix_(std::move(prefix)) {}

  bool next(ScoreItem& item, bool) override {
    while (waiting_.empty()) {
      Json json;
      std::string problem;
      try {
        if (!next_row(json)) return false;
        add_items(json);
      } catch (const Error& error) {
        problem = concat(path_.string(), " line ", line(), ": ", error.what());
      }
      if (!problem.empty()) {
        waiting_ = {ScoreItem{.image = concat(path_.string(), '#', row_), .row = row_, .problem = problem}};
      }
      ++row_;
    }
    item = std::move(waiting_.front());
    waiting_.pop_front();
    return true;
  }

 protected:
  // The next row as an object; false at the end. Input error for a row that cannot be understood, which is passed.
  virtual bool next_row(Json& json) = 0;
  virtual int64_t line() const = 0;
  const std::filesystem::path& path() const { return path_; }

 private:
  void add_items(const Json& json) {
    const ManifestRow row = parse_manifest_row(pictures_and_prompts(json), DatasetOptions{});
    for (size_t i = 0; i < row.images.size(); ++i) {
      ScoreItem item{.image = (prefix_ / row.images[i]).string(),
                     .prompt = row.prompt,
                     .row = row_,
                     .item = static_cast<int64_t>(i),
                     .path = folder_ / row.images[i]};
      if (!row.scanned.item_prompts.empty()) item.prompt = row.scanned.item_prompts[i];
      waiting_.push_back(std::move(item));
    }
  }

  std::filesystem::path path_;
  std::filesystem::path folder_;
  std::filesystem::path prefix_;
  std::deque<ScoreItem> waiting_;
  int64_t row_ = 0;
};

class JsonlScoreSource : public ManifestScoreSource {
 public:
  JsonlScoreSource(const std::filesystem::path& path, const std::filesystem::path& prefix)
      : ManifestScoreSource(path, prefix), file_(path, std::ios::binary) {
    check_input(std::filesystem::is_regular_file(path) && file_.good(), path.string(), ": cannot be opened");
  }

 private:
  bool next_row(Json& json) override {
    std::string text;
    while (std::getline(file_, text)) {
      ++line_;
      if (line_ == 1 && text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
      if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
      check_input(text.size() <= kMaxLineBytes, "a line of ", text.size(), " bytes");
      json = parse_json(text, "the row");
      return true;
    }
    return false;
  }
  int64_t line() const override { return line_; }

  std::ifstream file_;
  int64_t line_ = 0;
};

class CsvScoreSource : public ManifestScoreSource {
 public:
  CsvScoreSource(const std::filesystem::path& path, const std::filesystem::path& prefix)
      : ManifestScoreSource(path, prefix), reader_(path) {
    check_input(reader_.next(header_), path.string(), ": is empty; expected a header and a row a picture");
    const bool has_image = std::any_of(std::begin(kImageNames), std::end(kImageNames), [&](const char* name) {
      return std::find(header_.begin(), header_.end(), name) != header_.end();
    });
    std::string found;
    for (const std::string& name : header_) found += (found.empty() ? "" : ", ") + name.substr(0, 60);
    check_input(has_image, path.string(), ": no column 'image' or 'file_name'; columns found: ", found.substr(0, 300));
  }

 private:
  bool next_row(Json& json) override {
    if (has_ended_) return false;
    std::vector<std::string> fields;
    try {
      if (!reader_.next(fields)) return false;
    } catch (const Error& error) {  // where the next record begins is not known
      has_ended_ = true;
      throw;
    }
    check_input(fields.size() == header_.size(), fields.size(), " fields, the header has ", header_.size());
    json = Json::object();
    for (size_t i = 0; i < fields.size(); ++i) json[header_[i]] = fields[i];
    json.erase("images");  // a list has no form in CSV
    json.erase("prompts");
    return true;
  }
  int64_t line() const override { return reader_.line(); }

  CsvReader reader_;
  std::vector<std::string> header_;
  bool has_ended_ = false;
};

}  // namespace

std::unique_ptr<ScoreSource> open_jsonl_manifest(const std::filesystem::path& file,
                                                 const std::filesystem::path& shown_prefix) {
  return std::make_unique<JsonlScoreSource>(file, shown_prefix);
}

std::unique_ptr<ScoreSource> open_csv_manifest(const std::filesystem::path& file,
                                               const std::filesystem::path& shown_prefix) {
  return std::make_unique<CsvScoreSource>(file, shown_prefix);
}

}  // namespace prefusion::data
