#include <algorithm>
#include <array>
#include <cctype>

#include "core/error.h"
#include "core/json_config.h"
#include "data/manifest_fields.h"
#include "data/score_sources.h"
#include "data/tar_reader.h"

namespace prefusion::data {
namespace {

constexpr int64_t kMaxImageBytes = int64_t{256} << 20;
constexpr int64_t kMaxTextBytes = int64_t{1} << 20;

// "train/0001.cls.txt" is sample "train/0001", field "cls.txt".
struct MemberName {
  std::string key;
  std::string field;
};

MemberName split_name(std::string name) {
  if (name.starts_with("./")) name = name.substr(2);
  const size_t slash = name.rfind('/');
  const size_t begin = slash == std::string::npos ? 0 : slash + 1;
  const size_t dot = name.find('.', begin);
  if (dot == std::string::npos || dot == begin) return {};
  MemberName split{.key = name.substr(0, dot), .field = name.substr(dot + 1)};
  std::transform(split.field.begin(), split.field.end(), split.field.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return split;
}

bool is_picture(const std::string& field) {
  static const std::array<std::string, 4> kExtensions = {"jpg", "jpeg", "png", "webp"};
  return std::find(kExtensions.begin(), kExtensions.end(), field) != kExtensions.end();
}

class TarScoreSource : public ScoreSource {
 public:
  explicit TarScoreSource(const std::filesystem::path& path) : path_(path), tar_(path) {}

  bool next(ScoreItem& item, bool wants_picture) override {
    if (has_ended_) return false;
    item = ScoreItem{.row = row_, .problem = "the sample has no .jpg, .jpeg, .png or .webp"};
    std::string key;
    try {
      key = read_sample(item, wants_picture);
    } catch (const Error& error) {  // nothing behind the damage can be found
      has_ended_ = true;
      key = concat('@', row_);
      item = ScoreItem{.row = row_, .problem = error.what()};
    }
    if (key.empty()) return false;
    item.image = concat(path_.string(), '#', key);
    ++row_;
    return true;
  }

 private:
  // Reads members until the key changes; the first of the next sample stays pending.
  std::string read_sample(ScoreItem& item, bool wants_picture) {
    std::string key;
    bool has_picture = false;
    bool has_text = false;
    while (has_pending_ || advance()) {
      if (key.empty()) key = pending_.key;
      if (pending_.key != key) return key;
      has_pending_ = false;
      if (is_picture(pending_.field) && !has_picture) {
        has_picture = true;
        item.problem.clear();
        if (wants_picture) item.encoded = tar_.read(kMaxImageBytes);
      } else if (pending_.field == "txt" || pending_.field == "caption") {
        item.prompt = trimmed_prompt(tar_.read(kMaxTextBytes));
        has_text = true;
      } else if (pending_.field == "json" && !has_text) {
        take_json(item);
      }
    }
    has_ended_ = true;
    return key;
  }

  void take_json(ScoreItem& item) {
    const std::string where = concat(path_.string(), '#', pending_.key, ".json");
    const std::string text = tar_.read(kMaxTextBytes);
    try {
      const Json json = parse_json(text, where);
      if (!json.is_object()) return;
      if (const auto prompt = prompt_field(json)) item.prompt = prompt;
    } catch (const Error& error) {
      item.problem = error.what();
    }
  }

  bool advance() {
    std::string name;
    while (tar_.next(name)) {
      pending_ = split_name(name);
      if (!pending_.key.empty()) return has_pending_ = true;
    }
    return false;
  }

  std::filesystem::path path_;
  TarReader tar_;
  MemberName pending_;
  bool has_pending_ = false;
  bool has_ended_ = false;
  int64_t row_ = 0;
};

}  // namespace

std::unique_ptr<ScoreSource> open_tar_shard(const std::filesystem::path& file) {
  return std::make_unique<TarScoreSource>(file);
}

}  // namespace prefusion::data
