#include "losses/objective.h"

#include <ATen/ATen.h>

#include "losses/check_errors.h"
#include "losses/metrics.h"

namespace prefusion::losses {

const char* data_kind_name(DataKind kind) {
  switch (kind) {
    case DataKind::kSingle: return "single";
    case DataKind::kPair: return "pair";
    case DataKind::kList: return "list";
    case DataKind::kUnpaired: return "unpaired";
    case DataKind::kOnline: return "online";
  }
  return "?";
}

LossOutput Objective::compute(const GroupErrors& errors, const ObjectiveParams& params) const {
  check_errors(info, errors);
  GroupErrors labelled = errors;
  if (labels) labelled.labels = labels(errors, params);
  LossOutput output;
  output.group_loss = group_loss(labelled, params);
  if (errors.weights.defined()) output.group_loss = output.group_loss * errors.weights.to(output.group_loss.dtype());
  output.loss = output.group_loss.mean();
  output.metrics = common_metrics(info, labelled, params);
  return output;
}

}  // namespace prefusion::losses
