#include "losses/objective.h"

#include <ATen/ATen.h>

#include "losses/check_errors.h"
#include "losses/metrics.h"
#include "losses/optional_terms.h"

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

LossOutput Objective::compute(const GroupErrors& errors, const ObjectiveParams& params,
                              const LossOptions& options) const {
  check_loss_options(*this, options);
  check_errors(with_needs_of(options, info), errors);
  GroupErrors labelled = errors;
  if (labels) labelled.labels = labels(errors, params);
  LossOutput output;
  output.group_loss = group_loss_with(*this, labelled, params, options);
  if (errors.weights.defined()) output.group_loss = output.group_loss * errors.weights.to(output.group_loss.dtype());
  output.loss = output.group_loss.mean();
  output.metrics = common_metrics(info, labelled, params);
  return output;
}

}  // namespace prefusion::losses
