#include "data/manifest_source.h"

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/json_config.h"
#include "data/group_rules.h"
#include "data/manifest_row.h"

namespace prefusion::data {
namespace {

constexpr size_t kMaxImageBytes = size_t{256} << 20;
constexpr int64_t kBytesPerRow = 512 << 10;  // what a row's image files are taken to weigh, for the shuffle window

}  // namespace

void ManifestSource::scan(const std::function<void(const ScannedRow&)>& visit) {
  rows_.scan([&](int64_t number, std::string_view text) {
    ManifestRow row;
    try {
      row = parse_manifest_row(parse_json(text, "the row"), options_);
    } catch (const Error& error) {
      row.scanned = ScannedRow{.status = RowStatus::kMalformed, .problem = error.what()};
    }
    row.scanned.row = number;
    row.scanned.prompt = row.prompt;
    if (!options_.users || row.annotations.empty()) return visit(row.scanned);
    for (const UserRanks& annotation : row.annotations) {
      if (row.scanned.status == RowStatus::kMissingLabel) row.scanned.status = RowStatus::kUsable;
      row.scanned.user = annotation.user;
      row.scanned.labels.clear();
      judge_by_ranks(annotation.ranks, row.scanned);
      visit(row.scanned);
    }
  });
}

PreferenceSource::Place ManifestSource::place(int64_t row) const {
  return Place{.segment = row, .num_bytes = kBytesPerRow};
}

std::vector<PreferenceItem> ManifestSource::read_items(int64_t row, std::span<const uint16_t> items) const {
  const ManifestRow parsed = parse_manifest_row(rows_.parse(row), options_);
  std::vector<PreferenceItem> out;
  for (const uint16_t item : items) {
    check_input(item < parsed.images.size(), rows_.path().string(), ": was changed while it was in use");
    out.push_back(PreferenceItem{.encoded = read_file(rows_.find_file(parsed.images[item]), kMaxImageBytes)});
    if (!parsed.models.empty()) out.back().model = parsed.models[item];
    if (!parsed.seeds.empty()) out.back().seed = parsed.seeds[item];
    if (options_.masks) out.back().mask = read_file(rows_.find_file(parsed.masks.at(item)), kMaxImageBytes);
  }
  return out;
}

std::string ManifestSource::item_name(int64_t row, uint16_t item) const {
  return parse_manifest_row(rows_.parse(row), options_).images.at(item);
}

}  // namespace prefusion::data
