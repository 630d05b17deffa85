#include "data/manifest_row.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "data/group_rules.h"

namespace prefusion::data {
namespace {

constexpr size_t kMaxItems = 4096;

// The first of the keys that is there and not null.
const Json* find(const Json& json, std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    const auto found = json.find(key);
    if (found != json.end() && !found->is_null()) return &*found;
  }
  return nullptr;
}

double to_number(const Json& value, const char* what) {
  if (value.is_boolean()) return value.get<bool>() ? 1.0 : 0.0;
  if (value.is_null()) return std::numeric_limits<double>::quiet_NaN();
  check_input(value.is_number(), what, " must be a number, found ", value.dump().substr(0, 60));
  return value.get<double>();
}

std::vector<double> to_numbers(const Json& value, size_t count, const char* what) {
  check_input(value.is_array() && value.size() == count, what, " must be a list of ", count,
              " numbers, one an image, found ", value.dump().substr(0, 60));
  std::vector<double> numbers;
  for (const Json& element : value) numbers.push_back(to_number(element, what));
  return numbers;
}

std::string to_text(const Json& value, const char* what) {
  check_input(value.is_string(), what, " must be text, found ", value.dump().substr(0, 60));
  return value.get<std::string>();
}

// A text or a whole number, as text.
std::string to_name(const Json& value, const char* what) {
  if (value.is_number_integer()) return value.dump();
  return to_text(value, what);
}

// A text or a list of them.
std::vector<std::string> to_texts(const Json& value, const char* what) {
  if (value.is_string()) return {value.get<std::string>()};
  check_input(value.is_array() && !value.empty() && value.size() <= kMaxItems, what, " must be text or a list of 1 to ",
              kMaxItems, " texts, found ", value.dump().substr(0, 60));
  std::vector<std::string> texts;
  for (const Json& element : value) texts.push_back(to_text(element, what));
  return texts;
}

bool all_finite(const std::vector<double>& values) {
  return std::all_of(values.begin(), values.end(), [](double value) { return std::isfinite(value); });
}

// Two probabilities that sum to 1, or a single one.
void take_probabilities(std::vector<double> labels, ScannedRow& row) {
  row.labels = std::move(labels);
  row.labels_are_probabilities = true;
  double sum = row.labels.size() == 1 ? 1.0 : 0.0;
  bool in_range = true;
  for (const double label : row.labels) {
    in_range = in_range && label >= 0 && label <= 1;
    if (row.labels.size() == 2) sum += label;
  }
  if (!in_range || std::abs(sum - 1) > 1e-6) row.status = RowStatus::kInconsistent;
}

void take_label(const Json& label, size_t count, ScannedRow& row) {
  if (label.is_array()) {
    std::vector<double> labels = to_numbers(label, count, "label");
    if (!all_finite(labels)) {
      row.status = RowStatus::kMissingLabel;
    } else if (count <= 2) {
      take_probabilities(std::move(labels), row);
    } else {
      row.labels = std::move(labels);
    }
    return;
  }
  const double value = to_number(label, "label");
  check_input(count <= 2, "a single label says nothing about ", count,
              " images: give a list of labels, scores or ranks");
  take_probabilities(count == 1 ? std::vector<double>{value} : std::vector<double>{value, 1 - value}, row);
}

// [numbers], [{name: number}, ...] or {name: [numbers]}.
NamedScores to_scores(const Json& value, size_t count) {
  NamedScores scores;
  if (value.is_object()) {
    for (const auto& [name, values] : value.items()) {
      std::vector<double> numbers = to_numbers(values, count, "scores");
      if (all_finite(numbers)) scores[name] = std::move(numbers);  // null stands for a score that is missing
    }
    return scores;
  }
  check_input(value.is_array() && value.size() == count, "scores must be a list of ", count,
              " entries, one an image, found ", value.dump().substr(0, 60));
  for (size_t i = 0; i < count; ++i) {
    const Json named = value[i].is_object() ? value[i] : Json{{kUnnamedScore, value[i]}};
    for (const auto& [name, number] : named.items()) {
      if (!number.is_null()) add_score(name, i, to_number(number, "a score"), scores);
    }
  }
  keep_complete_scores(count, scores);
  return scores;
}

NamedScores scores_of(const Json& json, size_t count) {
  if (const Json* list = find(json, {"scores"})) return to_scores(*list, count);
  const Json* single = find(json, {"score"});
  if (!single) return {};
  check_input(count == 1, "a single score says nothing about ", count, " images: give a list, scores");
  return to_scores(Json::array({*single}), count);
}

// A rating is a number, such a text, or {"rating": either}; what is none of them ("N/A") counts as missing.
double to_rating(const Json& value) {
  if (value.is_object()) {
    const Json* inside = find(value, {"rating", "Rating"});
    return inside ? to_rating(*inside) : std::numeric_limits<double>::quiet_NaN();
  }
  if (!value.is_string()) return to_number(value, "a rating");
  const std::string text = value.get<std::string>();
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  return end != text.c_str() && *end == '\0' ? number : std::numeric_limits<double>::quiet_NaN();
}

// Scores as they are rated aspect by aspect.
NamedScores to_ratings(const Json& value, size_t count) {
  Json numbers = value;
  for (auto& entry : numbers) {
    for (auto& rating : entry) {
      const double number = to_rating(rating);
      rating = std::isfinite(number) ? Json(number) : Json();
    }
  }
  return to_scores(numbers, count);
}

// What a human said goes before what a reward model did.
void take_judgement(const Json& json, size_t count, const std::string& score_name, ScannedRow& row) {
  row.scores = scores_of(json, count);
  const Json* ratings = find(json, {"ratings"});
  if (ratings) row.scores.merge(to_ratings(*ratings, count));
  if (const Json* label = find(json, {"label", "human_preference", "pap_pref"})) {
    take_label(*label, count, row);
    if (row.status == RowStatus::kUsable && !all_finite(row.labels)) row.status = RowStatus::kMissingLabel;
    return;
  }
  std::vector<double> ranks;
  if (const Json* given = find(json, {"ranks", "rank", "ranking"})) {
    ranks = to_numbers(*given, count, "ranks");
  } else if (ratings && score_name.empty()) {
    return judge_by_mean_score(row);
  } else if (row.is_one_picture && row.scores.empty()) {  // the prompts stand best first
    for (size_t i = 0; i < count; ++i) ranks.push_back(static_cast<double>(i));
  }
  judge_by_scores(std::move(ranks), score_name, row);
}

// One text or number an item, or one for all of them.
template <typename Value, typename Convert>
std::vector<Value> to_item_values(const Json* value, size_t count, const char* what, const Convert& convert) {
  std::vector<Value> values;
  if (!value) return values;
  if (!value->is_array()) return std::vector<Value>(count, convert(*value, what));
  check_input(value->size() == count, what, " must be a list of ", count, " entries, one an image, found ",
              value->dump().substr(0, 60));
  for (const Json& entry : *value) values.push_back(convert(entry, what));
  return values;
}

int64_t to_seed(const Json& value, const char* what) {
  check_input(value.is_number_integer(), what, " must be whole numbers, found ", value.dump().substr(0, 60));
  return value.get<int64_t>();
}

// Who judged on their own: HPDv2's raw_annotations.
void take_annotations(const Json& json, ManifestRow& row) {
  const Json* annotations = find(json, {"raw_annotations"});
  if (!annotations) return;
  check_input(annotations->is_array(), "raw_annotations must be a list, found ", annotations->dump().substr(0, 60));
  for (const Json& annotation : *annotations) {
    const bool is_object = annotation.is_object();
    const Json* user = is_object ? find(annotation, {"user_hash", "user", "user_id"}) : nullptr;
    const Json* rank = is_object ? find(annotation, {"rank", "ranks"}) : nullptr;
    check_input(user && rank, "an entry of raw_annotations must have user_hash and rank, found ",
                annotation.dump().substr(0, 60));
    row.annotations.push_back(
        {.user = to_name(*user, "the user"), .ranks = to_numbers(*rank, row.images.size(), "rank")});
  }
}

// The numbers of the fields that are asked for.
void take_columns(const Json& json, const std::set<std::string>& columns, ScannedRow& row) {
  for (const std::string& column : columns) {
    const Json* value = find(json, {column.c_str()});
    if (value && (value->is_number() || value->is_boolean())) row.numbers[column] = to_number(*value, column.c_str());
  }
}

// The prompt of all items, and those of each; one picture under several prompts becomes as many items.
void take_prompts(const Json& json, bool is_single, ManifestRow& row) {
  if (const Json* prompt = find(json, {"prompt", "caption"})) row.prompt = to_text(*prompt, "the prompt");
  const Json* prompts = find(json, {"prompts"});
  if (!prompts) return;
  row.scanned.item_prompts = to_texts(*prompts, "prompts");
  const size_t count = row.scanned.item_prompts.size();
  if (is_single && count > 1) {
    row.scanned.is_one_picture = true;
    row.images = std::vector<std::string>(count, row.images.front());
  }
  check_input(row.images.size() == count, "prompts must be a list of ", row.images.size(),
              " texts, one an image, found ", count);
}

void take_masks(const Json& json, ManifestRow& row) {
  const Json* masks = find(json, {"masks", "mask"});
  if (!masks) return;
  const size_t count = row.images.size();
  row.masks = to_texts(*masks, "the masks");
  if (masks->is_string()) row.masks = std::vector<std::string>(count, row.masks.front());
  check_input(row.masks.size() == count, "masks must be a list of ", count, " paths, one an image, found ",
              row.masks.size());
  row.scanned.has_masks = true;
}

}  // namespace

ManifestRow parse_manifest_row(const Json& json, const DatasetOptions& options) {
  check_input(json.is_object(), "a row must be a JSON object, found ", json.dump().substr(0, 60));
  const Json* images = find(json, {"images", "image", "image_path", "file_path", "generations"});
  check_input(images, "a row must name its images under 'images' or 'image'");
  ManifestRow row;
  row.images = to_texts(*images, "the images");
  take_prompts(json, images->is_string(), row);
  take_masks(json, row);
  const size_t count = row.images.size();
  take_judgement(json, count, options.score_name, row.scanned);
  take_annotations(json, row);
  take_columns(json, options.columns, row.scanned);
  row.models = to_item_values<std::string>(find(json, {"models", "model"}), count, "models", to_name);
  row.seeds = to_item_values<int64_t>(find(json, {"seeds", "seed"}), count, "seeds", to_seed);
  if (const Json* user = find(json, {"user", "user_id", "user_hash"})) row.scanned.user = to_name(*user, "the user");
  if (const Json* weight = find(json, {"weight"})) row.scanned.weight = to_number(*weight, "the weight");
  return row;
}

}  // namespace prefusion::data
