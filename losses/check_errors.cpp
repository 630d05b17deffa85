#include "losses/check_errors.h"

#include "core/error.h"

namespace prefusion::losses {
namespace {

void check_shape(const at::Tensor& tensor, at::IntArrayRef expected, const std::string& name, const char* what) {
  if (!tensor.defined()) return;
  check_run(tensor.sizes() == expected, name, ": ", what, " has shape ", shape_text(tensor.sizes()), ", expected ",
            shape_text(expected));
}

void check_groups(const ObjectiveInfo& info, const GroupErrors& errors) {
  const at::Tensor& error = errors.error;
  check_run(error.defined() && error.dim() == 2 && error.numel() > 0, info.name,
            ": errors must be a non-empty [B, k], found ",
            error.defined() ? shape_text(error.sizes()) : std::string("none"));
  check_run(error.scalar_type() == at::kFloat || error.scalar_type() == at::kDouble, info.name,
            ": errors must be fp32, found ", c10::toString(error.scalar_type()));
  const int64_t k = error.size(1);
  check_run(info.data != DataKind::kPair || k == 2, info.name, ": trains on pairs, found groups of ", k);
  check_run(info.data != DataKind::kList || k >= 2, info.name, ": trains on lists, found groups of ", k);
}

void check_shapes(const std::string& name, const GroupErrors& errors) {
  const int64_t num_groups = errors.error.size(0);
  const at::IntArrayRef items = errors.error.sizes();
  const at::IntArrayRef groups = items.slice(0, 1);
  check_shape(errors.error_ref, items, name, "error_ref");
  check_shape(errors.labels, items, name, "labels");
  check_shape(errors.scores, items, name, "scores");
  check_shape(errors.drift, items, name, "drift");
  check_shape(errors.residual_square, items, name, "residual_square");
  check_shape(errors.weights, groups, name, "weights");
  check_shape(errors.residual_dot, groups, name, "residual_dot");
  check_shape(errors.drop_margin, groups, name, "drop_margin");
  check_shape(errors.swap, groups, name, "swap");
  check_shape(errors.error_scale, groups, name, "error_scale");
  check_shape(errors.prompt_distance, {num_groups, num_groups}, name, "prompt_distance");
}

void check_needs(const ObjectiveInfo& info, const GroupErrors& errors) {
  const auto check_given = [&info](bool is_needed, bool is_given, const char* what) {
    check_run(!is_needed || is_given, info.name, ": needs ", what, ", found none");
  };
  check_given(info.needs_reference, errors.error_ref.defined(), "reference errors");
  check_given(info.needs_drift, errors.drift.defined(), "the drift from the reference's predictions");
  check_given(info.needs_residual_dot, errors.residual_dot.defined(), "products of the items' residuals");
  check_given(info.needs_prompt_distance, errors.prompt_distance.defined(), "distances between the prompts");
  check_given(info.needs_scores, errors.scores.defined(), "scores of the items");
  check_given(info.needs_item_prompts, errors.has_item_prompts, "a prompt for each item");
  check_given(info.needs_mask, errors.is_masked, "errors weighted by masks");
  check_run(info.latent_source == LatentSource::kForwardNoise || info.latent_source == errors.latent_source, info.name,
            ": trains on latents from ", latent_source_name(info.latent_source), ", found ",
            latent_source_name(errors.latent_source));
}

}  // namespace

void check_errors(const ObjectiveInfo& info, const GroupErrors& errors) {
  check_groups(info, errors);
  check_shapes(info.name, errors);
  check_needs(info, errors);
}

const char* latent_source_name(LatentSource source) {
  switch (source) {
    case LatentSource::kForwardNoise: return "forward noise";
    case LatentSource::kDdimInversion: return "DDIM inversion";
    case LatentSource::kRenoiseInversion: return "ReNoise inversion";
  }
  return "?";
}

}  // namespace prefusion::losses
