#include "text/class_label_encoder.h"

#include <ATen/ATen.h>

#include <charconv>
#include <optional>
#include <utility>

#include "core/content_hash.h"
#include "core/error.h"

namespace prefusion::text {
namespace {

std::string trimmed(const std::string& text) {
  constexpr const char* kSpace = " \t\r\n";
  const size_t begin = text.find_first_not_of(kSpace);
  return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

std::optional<int64_t> whole_number(const std::string& text) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return number;
}

}  // namespace

ClassLabelEncoder::ClassLabelEncoder(std::map<std::string, int64_t> labels, int64_t num_classes, at::ScalarType dtype,
                                     at::Device device)
    : labels_(std::move(labels)), num_classes_(num_classes), dtype_(dtype), device_(device) {
  for (const auto& [label, number] : labels_) {
    check_input(number >= 0 && number < num_classes, "model_index.json: 'id2label' names class ", number, " (", label,
                "), but the transformer has ", num_classes, " classes (num_embeds_ada_norm)");
  }
}

int64_t ClassLabelEncoder::class_of(const std::string& prompt) const {
  const std::string name = trimmed(prompt);
  if (name.empty()) return num_classes_;
  if (const auto found = labels_.find(name); found != labels_.end()) return found->second;
  const std::optional<int64_t> number = whole_number(name);
  const std::string example =
      labels_.empty() ? "" : concat(", or a label of model_index.json such as \"", labels_.begin()->first, "\"");
  check_input(number && *number >= 0 && *number < num_classes_, "prompt \"", name,
              "\" is no class of this model: expected a number from 0 to ", num_classes_ - 1, example);
  return *number;
}

PromptStates ClassLabelEncoder::encode_prompts(const std::vector<std::string>& prompts, int64_t) {
  at::Tensor states = at::zeros({static_cast<int64_t>(prompts.size()), 1, num_classes_ + 1}, at::kFloat);
  for (size_t i = 0; i < prompts.size(); ++i) states[static_cast<int64_t>(i)][0][class_of(prompts[i])] = 1;
  return {.encoder_hidden_states = states.to(device_, dtype_)};
}

std::string ClassLabelEncoder::compute_content_key() const {
  ContentHasher hash;
  hash.add("class labels, version 1").add(static_cast<uint64_t>(num_classes_)).add(at::toString(dtype_));
  for (const auto& [label, number] : labels_) hash.add(label).add(static_cast<uint64_t>(number));
  return hash.finish().hex();
}

std::map<std::string, int64_t> class_labels(const Json& id2label, const std::string& where) {
  std::map<std::string, int64_t> labels;
  if (id2label.is_null()) return labels;
  check_input(id2label.is_object(), where, ": 'id2label' should be an object of class numbers and labels, found ",
              id2label.type_name());
  for (const auto& [key, names] : id2label.items()) {
    const std::optional<int64_t> number = whole_number(key);
    check_input(number && names.is_string(), where, ": 'id2label' should hold labels by class numbers, found ", key,
                ": ", names.dump());
    const std::string all = names.get<std::string>();
    for (size_t begin = 0; begin <= all.size();) {
      const size_t end = std::min(all.find(',', begin), all.size());
      if (const std::string name = trimmed(all.substr(begin, end - begin)); !name.empty()) labels[name] = *number;
      begin = end + 1;
    }
  }
  return labels;
}

}  // namespace prefusion::text
