#include "losses/objective.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "losses/metrics.h"

namespace prefusion::losses {
namespace {

void check_like_error(const at::Tensor& tensor, const at::Tensor& error, const std::string& name, const char* what) {
  if (!tensor.defined()) return;
  check_run(tensor.sizes() == error.sizes(), name, ": ", what, " has shape ", shape_text(tensor.sizes()),
            ", expected that of the errors, ", shape_text(error.sizes()));
}

void check_errors(const ObjectiveInfo& info, const GroupErrors& errors) {
  const at::Tensor& error = errors.error;
  check_run(error.defined() && error.dim() == 2 && error.numel() > 0, info.name,
            ": errors must be a non-empty [B, k], found ",
            error.defined() ? shape_text(error.sizes()) : std::string("none"));
  check_run(error.scalar_type() == at::kFloat || error.scalar_type() == at::kDouble, info.name,
            ": errors must be fp32, found ", c10::toString(error.scalar_type()));
  check_like_error(errors.error_ref, error, info.name, "error_ref");
  check_like_error(errors.labels, error, info.name, "labels");
  check_like_error(errors.scores, error, info.name, "scores");
  check_like_error(errors.ranks, error, info.name, "ranks");
  check_run(!errors.weights.defined() || errors.weights.sizes() == at::IntArrayRef({error.size(0)}), info.name,
            ": weights must be [B]");
  check_run(!info.needs_reference || errors.error_ref.defined(), info.name, ": needs reference errors, found none");
  const int64_t k = error.size(1);
  check_run(info.data != DataKind::kPair || k == 2, info.name, ": trains on pairs, found groups of ", k);
  check_run(info.data != DataKind::kList || k >= 2, info.name, ": trains on lists, found groups of ", k);
}

}  // namespace

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
