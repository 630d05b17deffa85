#include "data/filters/picture_rules.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <set>

#include "core/error.h"
#include "core/interrupt.h"
#include "images/image_decode.h"
#include "images/pillow_resize.h"

namespace prefusion::data::filters {
namespace {

constexpr int64_t kSide = 32;
constexpr int64_t kFrequencies = 8;
constexpr double kLeastCoefficient = 1e-6;  // what a picture of one colour leaves by rounding

// Rows 1..8 of the cosine transform (DCT-II) of length 32, fp64 [8, 32].
at::Tensor cosines() {
  at::Tensor basis = at::empty({kFrequencies, kSide}, at::kDouble);
  for (int64_t f = 0; f < kFrequencies; ++f) {
    for (int64_t x = 0; x < kSide; ++x) {
      basis.data_ptr<double>()[f * kSide + x] =
          std::cos(M_PI * (static_cast<double>(x) + 0.5) * static_cast<double>(f + 1) / static_cast<double>(kSide));
    }
  }
  return basis;
}

void look_at(const GroupSet& set, const Item& item, bool with_hash, PictureFacts& facts) {
  facts.is_known = true;
  try {
    const PreferenceItem read = set.read(item);
    facts.content = hash_content(read.encoded);
    const images::ImageHeader header = images::read_image_header(read.encoded);
    facts.width = header.width;
    facts.height = header.height;
    if (with_hash) facts.hash = picture_hash(images::decode_image(read.encoded));
  } catch (const Error& error) {
    if (error.error_class() != ErrorClass::kInput) throw;
    const std::string id = set.sources[item.source]->row_id(item.row);
    const std::string problem = error.what();
    facts.problem = problem.starts_with(id) ? problem : concat(id, ": ", problem);
  }
}

const PictureFacts& picture_of(const GroupSet& set, const Item& item) {
  return set.pictures[item.picture];
}

std::string same_picture(const GroupSet& set, const Group& group, int distance) {
  if (group.is_one_picture) return "";
  for (size_t i = 0; i < group.items.size(); ++i) {
    for (size_t j = i + 1; j < group.items.size(); ++j) {
      const int found = hamming_distance(picture_of(set, group.items[i]).hash, picture_of(set, group.items[j]).hash);
      if (found <= distance) return concat("pictures ", i, " and ", j, " differ in ", found, " bits");
    }
  }
  return "";
}

// The first earlier group that has all pictures of this one, or -1: each picture names the groups that have one like
// it.
int64_t twin_of(const GroupSet& set, const Group& group, const HashIndex& index) {
  std::map<int64_t, std::set<size_t>> found;
  for (size_t i = 0; i < group.items.size(); ++i) {
    for (const int64_t other : index.find(picture_of(set, group.items[i]).hash)) found[other].insert(i);
  }
  for (const auto& [other, items] : found) {
    const bool same_prompt = set.groups[other].prompt == group.prompt;
    if (same_prompt && items.size() == group.items.size()) return other;
  }
  return -1;
}

int64_t group_with_a_picture_of(const GroupSet& set, const Group& group, const HashIndex& index) {
  for (const Item& item : group.items) {
    const std::vector<int64_t> found = index.find(picture_of(set, item).hash);
    if (!found.empty()) return found.front();
  }
  return -1;
}

}  // namespace

uint64_t picture_hash(const at::Tensor& image) {
  // ITU-R 601 luma in 16-bit fixed point, as Pillow's convert("L").
  const at::Tensor channels = image.to(at::kInt);
  const at::Tensor grey =
      (channels.select(2, 0) * 19595 + channels.select(2, 1) * 38470 + channels.select(2, 2) * 7471 + 32768)
          .bitwise_right_shift(16)
          .to(at::kByte)
          .unsqueeze(2)
          .contiguous();
  const at::Tensor small = images::pillow_resize(grey, kSide, kSide, images::ResizeFilter::kBilinear);
  const at::Tensor basis = cosines();
  const at::Tensor coefficients =
      basis.matmul(small.view({kSide, kSide}).to(at::kDouble)).matmul(basis.t()).contiguous().flatten();
  if (coefficients.abs().max().item<double>() < kLeastCoefficient) return 0;
  const at::Tensor sorted = std::get<0>(coefficients.sort());
  const double median = 0.5 * (sorted[31].item<double>() + sorted[32].item<double>());
  uint64_t hash = 0;
  for (int64_t i = 0; i < kFrequencies * kFrequencies; ++i) {
    if (coefficients.data_ptr<double>()[i] > median) hash |= uint64_t{1} << i;
  }
  return hash;
}

int hamming_distance(uint64_t a, uint64_t b) {
  return std::popcount(a ^ b);
}

HashIndex::HashIndex(int max_distance) : max_distance_(max_distance), bands_(static_cast<size_t>(max_distance) + 1) {
  check_usage(max_distance >= 0 && max_distance <= kMaxHashDistance, "a distance of hashes lies between 0 and ",
              kMaxHashDistance, " bits, not ", max_distance);
}

uint64_t HashIndex::band(uint64_t hash, int number) const {
  const int bands = max_distance_ + 1;
  const int begin = 64 * number / bands;
  const int end = 64 * (number + 1) / bands;
  const uint64_t mask = end - begin == 64 ? ~uint64_t{0} : (uint64_t{1} << (end - begin)) - 1;
  return (hash >> begin) & mask;
}

std::vector<int64_t> HashIndex::find(uint64_t hash) const {
  std::set<uint32_t> near;
  for (int i = 0; i <= max_distance_; ++i) {
    const auto found = bands_[i].find(band(hash, i));
    if (found == bands_[i].end()) continue;
    for (const uint32_t entry : found->second) {
      if (hamming_distance(entries_[entry].hash, hash) <= max_distance_) near.insert(entry);
    }
  }
  std::vector<int64_t> numbers;
  for (const uint32_t entry : near) numbers.push_back(entries_[entry].number);
  return numbers;
}

void HashIndex::add(uint64_t hash, int64_t number) {
  const auto entry = static_cast<uint32_t>(entries_.size());
  entries_.push_back({.hash = hash, .number = number});
  for (int i = 0; i <= max_distance_; ++i) bands_[i][band(hash, i)].push_back(entry);
}

void look_at_pictures(GroupSet& set, const std::vector<int64_t>& indices, bool with_hash,
                      const std::function<void(int64_t done, int64_t total)>& report) {
  std::vector<const Item*> wanted;
  std::set<int64_t> seen;
  for (const int64_t index : indices) {
    for (const Item& item : set.groups[index].items) {
      if (!seen.insert(item.picture).second) continue;
      const PictureFacts& facts = set.pictures[item.picture];
      const bool lacks_hash = with_hash && facts.hash == 0 && facts.problem.empty();
      if (!facts.is_known || lacks_hash) wanted.push_back(&item);
    }
  }
  for (size_t i = 0; i < wanted.size(); ++i) {
    throw_if_interrupted();
    look_at(set, *wanted[i], with_hash, set.pictures[wanted[i]->picture]);
    report(static_cast<int64_t>(i) + 1, static_cast<int64_t>(wanted.size()));
  }
}

Rule readable_rule() {
  const auto why = [](const GroupSet& set, const Group& group) -> std::string {
    for (const Item& item : group.items) {
      if (!picture_of(set, item).problem.empty()) return picture_of(set, item).problem;
    }
    return "";
  };
  return each_group("readable", "pictures that can be read", why);
}

Rule min_size_rule(int64_t pixels) {
  const auto why = [pixels](const GroupSet& set, const Group& group) -> std::string {
    for (const Item& item : group.items) {
      const PictureFacts& facts = picture_of(set, item);
      if (std::min(facts.width, facts.height) < pixels) return concat(facts.width, "x", facts.height, " pixels");
    }
    return "";
  };
  return each_group("min-size", concat("shorter sides of at least ", pixels, " pixels"), why);
}

Rule same_picture_rule(int distance) {
  const auto why = [distance](const GroupSet& set, const Group& group) { return same_picture(set, group, distance); };
  return each_group("same-picture", concat("pictures of a group that differ in more than ", distance, " bits"), why);
}

Rule duplicate_rule(DuplicateKind kind, int distance) {
  const auto apply = [kind, distance](const GroupSet& set, std::span<const int64_t> alive) {
    HashIndex index(distance);
    std::vector<Dropped> dropped;
    for (const int64_t number : alive) {
      const Group& group = set.groups[number];
      const int64_t twin =
          kind == DuplicateKind::kGroup ? twin_of(set, group, index) : group_with_a_picture_of(set, group, index);
      if (twin >= 0) {
        dropped.push_back({.group = number, .why = concat("as in ", set.id(set.groups[twin]))});
        continue;
      }
      for (const Item& item : group.items) index.add(picture_of(set, item).hash, number);
    }
    return dropped;
  };
  const char* what = kind == DuplicateKind::kGroup ? "the first group of a prompt with such pictures"
                                                   : "the first group with such a picture";
  return Rule{.name = "duplicates", .says = concat(what, ", up to ", distance, " bits"), .apply = apply};
}

}  // namespace prefusion::data::filters
