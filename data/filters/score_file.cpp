#include "data/filters/score_file.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <optional>
#include <unordered_map>

#include "core/error.h"
#include "data/filters/score_rows.h"

namespace prefusion::data::filters {
namespace {

namespace fs = std::filesystem;

// A picture inside a file: its row there and its number within the row.
struct PlaceInFile {
  std::string file;
  int64_t row = 0;
  int64_t item = 0;
};

// "pairs.parquet" and then two numbers, whatever stands between them; nothing for a plain path.
std::optional<PlaceInFile> parse_place(const std::string& image) {
  static constexpr std::string_view kExtension = ".parquet";
  const size_t found = image.rfind(kExtension);
  if (found == std::string::npos) return std::nullopt;
  const size_t end = found + kExtension.size();
  std::vector<int64_t> numbers;
  for (size_t i = end; i < image.size(); ++i) {
    if (!std::isdigit(static_cast<unsigned char>(image[i]))) continue;
    size_t used = 0;
    numbers.push_back(std::stoll(image.substr(i, 18), &used));
    i += used;
  }
  if (numbers.size() != 2) return std::nullopt;
  return PlaceInFile{.file = image.substr(0, end), .row = numbers[0], .item = numbers[1]};
}

// Whether one path ends with the other, component by component: "set/a.png" and "/data/set/a.png".
bool is_same_path(const fs::path& a, const fs::path& b) {
  const std::vector<fs::path> first(a.begin(), a.end());
  const std::vector<fs::path> second(b.begin(), b.end());
  const size_t shared = std::min(first.size(), second.size());
  return std::equal(first.end() - static_cast<int64_t>(shared), first.end(),
                    second.end() - static_cast<int64_t>(shared));
}

// Finds the items a row is about.
class PictureIndex {
 public:
  explicit PictureIndex(const GroupSet& set) : set_(set) {
    for (size_t i = 0; i < set.groups.size(); ++i) {
      for (size_t j = 0; j < set.groups[i].items.size(); ++j) {
        const Item& item = set.groups[i].items[j];
        const std::string name = set.sources[item.source]->item_name(item.row, item.item);
        const std::string key = name.empty()
                                    ? place_key(set.files[item.source].filename().string(), item.row, item.item)
                                    : fs::path(name).filename().string();
        entries_[key].push_back({.group = i, .item = j, .name = name});
      }
    }
  }

  struct Entry {
    size_t group = 0;
    size_t item = 0;
    std::string name;  // path as the data has it; empty for a picture inside a file
  };

  std::vector<Entry> find(const ScoreRow& row) const {
    const auto place = parse_place(row.image);
    const std::string key = place ? place_key(fs::path(place->file).filename().string(), place->row, place->item)
                                  : fs::path(row.image).filename().string();
    const auto found = entries_.find(key);
    std::vector<Entry> matches;
    if (found == entries_.end()) return matches;
    for (const Entry& entry : found->second) {
      const Group& group = set_.groups[entry.group];
      const Item& item = group.items[entry.item];
      const fs::path own = place ? set_.files[item.source] : fs::path(entry.name);
      const bool is_here =
          is_same_path(own.lexically_normal(), fs::path(place ? place->file : row.image).lexically_normal());
      const std::string& prompt = item.prompt >= 0 ? set_.texts[item.prompt] : set_.prompt(group);
      const bool has_prompt = !row.prompt || *row.prompt == prompt || *row.prompt == set_.prompt(group);
      if (is_here && has_prompt) matches.push_back(entry);
    }
    return matches;
  }

 private:
  static std::string place_key(const std::string& file, int64_t row, int64_t item) {
    return concat(file, '\n', row, '\n', item);
  }

  const GroupSet& set_;
  std::unordered_map<std::string, std::vector<Entry>> entries_;
};

// Number of a score in the set; a new one is missing everywhere at first.
size_t score_number(const std::string& name, GroupSet& set) {
  const auto found = std::find(set.score_names.begin(), set.score_names.end(), name);
  if (found != set.score_names.end()) return static_cast<size_t>(found - set.score_names.begin());
  set.score_names.push_back(name);
  for (Group& group : set.groups) {
    for (Item& item : group.items) item.scores.push_back(kMissing);
  }
  return set.score_names.size() - 1;
}

}  // namespace

ScoreJoin join_scores(const fs::path& path, GroupSet& set) {
  ScoreJoin join;
  const PictureIndex index(set);
  std::vector<bool> is_scored(set.pictures.size());
  read_score_rows(path, [&](const ScoreRow& row) {
    ++join.rows;
    if (row.has_error || row.scores.empty()) {
      ++join.failed;
      return;
    }
    const auto matches = index.find(row);
    join.matched += !matches.empty();
    for (const auto& [name, value] : row.scores) {
      if (std::find(join.names.begin(), join.names.end(), name) == join.names.end()) join.names.push_back(name);
      const size_t score = score_number(name, set);
      for (const auto& match : matches) set.groups[match.group].items[match.item].scores[score] = value;
    }
    for (const auto& match : matches) is_scored[set.groups[match.group].items[match.item].picture] = true;
  });
  join.scored = std::count(is_scored.begin(), is_scored.end(), true);
  check_input(join.failed < join.rows, path.string(), ": none of its ", join.rows, " rows has scores");
  check_input(join.matched > 0, path.string(), ": none of its ", join.rows,
              " rows is about a picture of the data; was another file or folder scored?");
  return join;
}

}  // namespace prefusion::data::filters
