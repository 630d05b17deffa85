#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

#include "data/filters/rule.h"

// Rules on the pictures themselves.
namespace prefusion::data::filters {

// A perceptual hash of a picture, uint8 [H, W, 3]: in grey at 32x32 pixels (Pillow's bilinear, antialiased), the 64
// cosine transform coefficients of frequencies 1..8 across and down, a bit each, set above their median. Resizing and
// compression change few bits; unrelated pictures differ in about 32. A picture of one colour has 0.
uint64_t picture_hash(const at::Tensor& image);

int hamming_distance(uint64_t a, uint64_t b);

// Hashes by number, found again within a distance of at most kMaxHashDistance bits.
inline constexpr int kMaxHashDistance = 15;
class HashIndex {
 public:
  explicit HashIndex(int max_distance);

  // Numbers of the hashes within the distance, in the order they were added.
  std::vector<int64_t> find(uint64_t hash) const;
  void add(uint64_t hash, int64_t number);

 private:
  // Two hashes that differ in at most d bits agree in one of d + 1 bands.
  uint64_t band(uint64_t hash, int number) const;

  struct Entry {
    uint64_t hash = 0;
    int64_t number = 0;
  };
  int max_distance_;
  std::vector<Entry> entries_;
  std::vector<std::unordered_map<uint64_t, std::vector<uint32_t>>> bands_;
};

// What is to be found out of pictures: content hash and size always, the perceptual hash on wish.
// Reads those of the groups `indices` that are not known yet, one at a time; `report` hears how many are done. A
// picture that cannot be read or decoded gets a problem.
void look_at_pictures(GroupSet& set, const std::vector<int64_t>& indices, bool with_hash,
                      const std::function<void(int64_t done, int64_t total)>& report);

// Groups leave that have a picture which cannot be read.
Rule readable_rule();
// The shorter side of every picture is at least `pixels`.
Rule min_size_rule(int64_t pixels);
// No two pictures of a group are the same up to `distance` bits; groups of one picture under several prompts stay.
Rule same_picture_rule(int distance);

enum class DuplicateKind { kGroup, kPicture };
// A group leaves when all (or any) of its pictures look like one of an earlier group that stays, up to `distance` bits;
// with kGroup it must be one earlier group of the same prompt that has them all.
Rule duplicate_rule(DuplicateKind kind, int distance);

}  // namespace prefusion::data::filters
