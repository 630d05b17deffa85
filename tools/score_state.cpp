#include "tools/score_state.h"

#include <algorithm>
#include <charconv>
#include <fstream>

#include "core/atomic_file.h"
#include "core/content_hash.h"
#include "core/error.h"

namespace prefusion::tools {
namespace {

constexpr int kVersion = 1;
constexpr int64_t kSampleBytes = 64 << 10;
constexpr int64_t kNumSamples = 64;

// The whole of a small file; of a large one 64 pieces of 64 KiB, spread evenly from the first to the last.
void hash_samples(const std::filesystem::path& path, ContentHasher& hasher) {
  const auto size = static_cast<int64_t>(std::filesystem::file_size(path));
  hasher.add(static_cast<uint64_t>(size));
  std::ifstream file(path, std::ios::binary);
  const int64_t pieces = std::min(kNumSamples, size / kSampleBytes + 1);
  std::string bytes(kSampleBytes, '\0');
  for (int64_t i = 0; i < pieces; ++i) {
    file.clear();
    file.seekg(pieces == 1 ? 0 : (size - kSampleBytes) / (pieces - 1) * i);
    file.read(bytes.data(), kSampleBytes);
    hasher.add(std::string_view(bytes.data(), static_cast<size_t>(file.gcount())));
  }
}

std::string fingerprint(const std::filesystem::path& path) {
  std::vector<std::filesystem::path> files;
  if (std::filesystem::is_directory(path)) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(path)) {
      if (entry.is_regular_file()) files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
  } else if (std::filesystem::is_regular_file(path)) {
    files.push_back(path);
  }
  ContentHasher hasher;
  for (const auto& file : files) {
    hasher.add(file.lexically_relative(path).string());
    hash_samples(file, hasher);
  }
  return hasher.finish().hex();
}

Json details_json(const ScoreLayout& layout) {
  Json details = Json::array();
  for (const DetailColumn& column : layout.details) {
    details.push_back({{"name", column.name}, {"flag", column.is_flag}});
  }
  return details;
}

int64_t whole_number(std::string_view text, const std::string& whole) {
  int64_t value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  check_usage(error == std::errc() && end == text.data() + text.size() && value >= 0, "--shard ", whole,
              ": expected I/N with I from 0 to N - 1, for example 0/4");
  return value;
}

}  // namespace

ScoreShard parse_score_shard(const std::string& text) {
  const size_t slash = std::min(text.find('/'), text.size());
  const std::string_view view = text;
  const ScoreShard shard{.index = whole_number(view.substr(0, slash), text),
                         .count = whole_number(slash < text.size() ? view.substr(slash + 1) : "", text)};
  check_usage(shard.index < shard.count, "--shard ", text, ": expected I/N with I from 0 to N - 1, for example 0/4");
  return shard;
}

ScoreRange shard_range(const ScoreShard& shard, int64_t total, int64_t batch_size) {
  const int64_t batches = (total + batch_size - 1) / batch_size;
  // Quotient and remainder apart, so that large counts do not overflow.
  const auto border = [&](int64_t index) {
    const int64_t quotient = batches / shard.count;
    const int64_t remainder = batches % shard.count;
    return std::min(total, (quotient * index + std::min(index, remainder)) * batch_size);
  };
  return {.begin = border(shard.index), .end = border(shard.index + 1)};
}

std::filesystem::path score_state_path(const std::filesystem::path& output) {
  return output.string() + ".state.json";
}

void write_score_state(const std::filesystem::path& output, const ScoreState& state) {
  const Json json = {{"version", kVersion},
                     {"rewards", state.rewards},
                     {"dtype", state.dtype},
                     {"device", state.device},
                     {"inputs", state.inputs},
                     {"recursive", state.recursive},
                     {"details", state.details},
                     {"num_inputs", state.num_inputs},
                     {"batch_size", state.batch_size},
                     {"shard", {state.shard.index, state.shard.count}},
                     {"reward_columns", state.layout.rewards},
                     {"detail_columns", details_json(state.layout)},
                     {"finished", state.finished},
                     {"num_rows", state.num_rows},
                     {"num_bad", state.num_bad}};
  write_file(score_state_path(output), json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

ScoreState read_score_state(const std::filesystem::path& output) {
  const std::filesystem::path path = score_state_path(output);
  check_input(std::filesystem::is_regular_file(path), path.string(), ": no such file; it says what the rows of ",
              output.string(), " were scored with");
  ConfigReader reader = ConfigReader::from_file(path);
  const int version = reader.require<int>("version");
  check_input(version == kVersion, path.string(), ": version ", version, ", expected ", kVersion);
  ScoreState state;
  state.rewards = reader.raw("rewards");
  state.dtype = reader.require<std::string>("dtype");
  state.device = reader.require<std::string>("device");
  state.inputs = reader.require<std::vector<std::string>>("inputs");
  state.recursive = reader.require<bool>("recursive");
  state.details = reader.require<bool>("details");
  state.num_inputs = reader.require<int64_t>("num_inputs");
  state.batch_size = reader.require<int64_t>("batch_size");
  const auto shard = reader.require<std::vector<int64_t>>("shard");
  check_input(
      shard.size() == 2 && shard[0] >= 0 && shard[0] < shard[1] && state.batch_size > 0 && state.num_inputs >= 0,
      path.string(), ": 'shard', 'batch_size' or 'num_inputs' is out of range");
  state.shard = {.index = shard[0], .count = shard[1]};
  state.layout.rewards = reader.require<std::vector<std::string>>("reward_columns");
  for (const Json& detail : reader.raw("detail_columns")) {
    ConfigReader column(detail, path.string());
    state.layout.details.push_back(
        {.name = column.require<std::string>("name"), .is_flag = column.require<bool>("flag")});
  }
  state.finished = reader.require<bool>("finished");
  state.num_rows = reader.require<int64_t>("num_rows");
  state.num_bad = reader.require<int64_t>("num_bad");
  reader.finish();
  return state;
}

void check_same_scoring(const ScoreState& found, const ScoreState& wanted, const std::string& where, bool with_shard) {
  std::string differences;
  const auto compare = [&](const char* name, const Json& before, const Json& now) {
    if (before == now) return;
    differences += concat(differences.empty() ? "" : "; ", name, " was ", before.dump().substr(0, 300), ", now ",
                          now.dump().substr(0, 300));
  };
  const auto columns = [](const Json& rewards) {
    Json names = Json::array();
    for (const Json& reward : rewards) names.push_back(reward.value("reward", ""));
    return names;
  };
  compare("--reward", columns(found.rewards), columns(wanted.rewards));
  if (differences.empty()) compare("the content or options of --reward", found.rewards, wanted.rewards);
  compare("--dtype", found.dtype, wanted.dtype);
  compare("the device", found.device, wanted.device);
  compare("--input", found.inputs, wanted.inputs);
  compare("--recursive", found.recursive, wanted.recursive);
  compare("--details", found.details, wanted.details);
  compare("the number of pictures in the inputs", found.num_inputs, wanted.num_inputs);
  compare("--batch-size", found.batch_size, wanted.batch_size);
  if (with_shard) {
    compare("--shard", concat(found.shard.index, '/', found.shard.count),
            concat(wanted.shard.index, '/', wanted.shard.count));
  }
  check_usage(differences.empty(), where, ": made with other settings: ", differences);
}

Json describe_reward(const reward_models::RewardSpec& spec) {
  return {{"reward", spec.column},
          {"kind", spec.kind},
          {"options", spec.options},
          {"files", spec.path.empty() ? "" : fingerprint(spec.path)}};
}

}  // namespace prefusion::tools
