#include "tools/sampling_counts.h"

namespace prefusion::tools {

SamplingCounts& SamplingCounts::operator+=(const SamplingCounts& other) {
  evaluations += other.evaluations;
  full_evaluations += other.full_evaluations;
  previews += other.previews;
  checked_groups += other.checked_groups;
  same_winner += other.same_winner;
  sampling_seconds += other.sampling_seconds;
  preview_seconds += other.preview_seconds;
  return *this;
}

Json to_json(const SamplingCounts& counts) {
  return {{"evaluations", counts.evaluations},
          {"full_evaluations", counts.full_evaluations},
          {"previews", counts.previews},
          {"checked_groups", counts.checked_groups},
          {"same_winner", counts.same_winner},
          {"sampling_seconds", counts.sampling_seconds},
          {"preview_seconds", counts.preview_seconds}};
}

SamplingCounts counts_from_json(const Json& json, const std::string& where) {
  ConfigReader reader(json, where);
  return {.evaluations = reader.require<int64_t>("evaluations"),
          .full_evaluations = reader.require<int64_t>("full_evaluations"),
          .previews = reader.require<int64_t>("previews"),
          .checked_groups = reader.require<int64_t>("checked_groups"),
          .same_winner = reader.require<int64_t>("same_winner"),
          .sampling_seconds = reader.require<double>("sampling_seconds"),
          .preview_seconds = reader.require<double>("preview_seconds")};
}

}  // namespace prefusion::tools
