#include <algorithm>
#include <memory>

#include "core/atomic_file.h"
#include "core/error.h"
#include "tools/score_file.h"
#include "tools/score_run.h"
#include "tools/score_state.h"

namespace prefusion::tools {
namespace {

struct Part {
  std::filesystem::path path;
  ScoreState state;
};

// The parts in the order of the input; all of one run, none missing.
std::vector<Part> read_parts(const std::vector<std::filesystem::path>& paths) {
  std::vector<Part> parts;
  for (const auto& path : paths) {
    check_input(std::filesystem::is_regular_file(path), path.string(), ": no such file");
    parts.push_back({.path = path, .state = read_score_state(path)});
    check_input(parts.back().state.finished, path.string(), ": is not finished; go on with --resume first");
    check_same_scoring(parts.back().state, parts.front().state, path.string(), /*with_shard=*/false);
    check_input(parts.back().state.shard.count == parts.front().state.shard.count, path.string(), ": is one of ",
                parts.back().state.shard.count, " shards, ", parts.front().path.string(), " of ",
                parts.front().state.shard.count);
  }
  std::stable_sort(parts.begin(), parts.end(),
                   [](const Part& a, const Part& b) { return a.state.shard.index < b.state.shard.index; });
  const int64_t count = parts.front().state.shard.count;
  for (size_t i = 1; i < parts.size(); ++i) {
    check_input(parts[i].state.shard.index != parts[i - 1].state.shard.index, parts[i].path.string(), " and ",
                parts[i - 1].path.string(), " are both shard ", parts[i].state.shard.index, "/", count);
  }
  for (int64_t i = 0; i < count; ++i) {
    const bool is_there = static_cast<size_t>(i) < parts.size() && parts[static_cast<size_t>(i)].state.shard.index == i;
    check_input(is_there, "--merge: shard ", i, "/", count, " is missing");
  }
  return parts;
}

// Hands every row of a part on; input error when their number is not what the part says.
void for_each_row(const Part& part, const std::function<void(const ScoreRow&)>& visit) {
  const auto reader = open_score_file(part.path, part.state.layout);
  int64_t num_rows = 0;
  for (ScoreRow row; reader->next(row); row = {}) {
    check_input(reader->was_terminated(), part.path.string(), ": the last row is cut off");
    visit(row);
    ++num_rows;
  }
  check_input(num_rows == part.state.num_rows, part.path.string(), ": has ", num_rows, " rows, expected ",
              part.state.num_rows);
}

}  // namespace

void merge_scores(const std::filesystem::path& output, const std::vector<std::filesystem::path>& parts,
                  bool overwrite) {
  const ScoreFormat format = score_format(output);
  check_usage(overwrite || !std::filesystem::exists(output), output.string(), ": exists already; see --overwrite");
  const std::vector<Part> sorted = read_parts(parts);
  const ScoreLayout& layout = sorted.front().state.layout;
  ScoreState state = sorted.front().state;
  state.shard = {};
  state.num_rows = 0;
  state.num_bad = 0;
  for (const Part& part : sorted) {
    state.num_rows += part.state.num_rows;
    state.num_bad += part.state.num_bad;
  }
  check_input(state.num_rows == state.num_inputs, "the shards have ", state.num_rows, " rows in all, expected ",
              state.num_inputs);
  if (format == ScoreFormat::kParquet) {
    ScoreParquetWriter writer(output, layout);
    for (const Part& part : sorted) for_each_row(part, [&](const ScoreRow& row) { writer.add(row); });
    writer.finish();
  } else {
    AtomicFile file(output);
    if (format == ScoreFormat::kCsv) file.write(csv_header(layout));
    for (const Part& part : sorted) {
      for_each_row(part, [&](const ScoreRow& row) {
        file.write(format == ScoreFormat::kCsv ? csv_line(row, layout) : jsonl_line(row, layout));
      });
    }
    file.commit();
  }
  write_score_state(output, state);
}

}  // namespace prefusion::tools
