#include "training/online/sample_groups.h"

#include <ATen/ATen.h>

#include "data/group_rules.h"
#include "training/preference_split.h"

namespace prefusion::training {

std::vector<SampleGroup> plan_sample_groups(losses::DataKind kind, const at::Tensor& reward) {
  data::DatasetOptions options;
  options.group = group_kind(kind);
  std::vector<SampleGroup> groups;
  const at::Tensor rewards = reward.to(at::kCPU, at::kDouble).contiguous();
  for (int64_t prompt = 0; prompt < rewards.size(0); ++prompt) {
    const double* begin = rewards[prompt].const_data_ptr<double>();
    data::ScannedRow row;
    row.scores["reward"] = {begin, begin + rewards.size(1)};
    data::judge_by_scores(/*ranks=*/{}, /*score_name=*/"", row);
    for (data::GroupPlan& items : data::plan_groups(row, options).groups) {
      if (kind == losses::DataKind::kSingle) items.resize(1);
      SampleGroup group{.prompt = prompt, .samples = {}, .labels = {}};
      for (const data::GroupItem& item : items) {
        group.samples.push_back(item.item);
        group.labels.push_back(item.label);
      }
      groups.push_back(std::move(group));
    }
  }
  return groups;
}

}  // namespace prefusion::training
