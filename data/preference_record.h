#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

namespace prefusion::data {

// One image of a group, still encoded.
struct PreferenceItem {
  std::string encoded;                // the bytes of a JPEG, PNG or WebP file
  std::string model;                  // generator of the image, empty when unknown
  std::optional<std::string> mask;    // a picture of the same size, encoded; absent unless opened for masks
  std::optional<std::string> prompt;  // the item's own; absent unless opened for item prompts
  // Human choice, higher is better. Pair: the probability that this item is preferred (1 / 0, a tie 0.5, soft labels
  // between). List: the scores given, or the share of pairwise wins where only ranks or several rewards are known.
  // Unpaired: 1 desirable, 0 undesirable.
  double label = std::numeric_limits<double>::quiet_NaN();
  double rank = 0;              // 0 best; items that tie share the mean of their places
  std::optional<int64_t> seed;  // it was generated from; absent when unknown
  std::optional<double> score;  // where the data set has one
};

// One group of k items under one prompt: 1 unpaired, 2 a pair, more a list. Items stand best first, so that index 0 of
// a pair is the chosen one.
struct PreferenceRecord {
  std::string id;     // where it came from, for messages: "train.parquet row 12"
  int64_t index = 0;  // its index in the data set it was read from
  std::string prompt;
  std::string user;              // who judged it; empty unless opened for users
  std::optional<double> weight;  // factor of the group's loss; absent where the data set gives none
  std::vector<PreferenceItem> items;
};

}  // namespace prefusion::data
