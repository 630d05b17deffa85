#include "losses/online/trajectory_batch.h"

#include <algorithm>

#include "core/error.h"

namespace prefusion::losses {
namespace {

enum class Extent { kSteps, kTrajectories, kSchedule };

struct InputRow {
  TrajectoryInput input;
  at::Tensor TrajectoryBatch::*tensor;
  const char* name;
  Extent extent;
};

constexpr InputRow kInputs[] = {
    {TrajectoryInput::kLogProbOld, &TrajectoryBatch::log_prob_old, "log_prob_old", Extent::kSteps},
    {TrajectoryInput::kLogProbRef, &TrajectoryBatch::log_prob_ref, "log_prob_ref", Extent::kSteps},
    {TrajectoryInput::kAdvantage, &TrajectoryBatch::advantage, "advantage", Extent::kTrajectories},
    {TrajectoryInput::kReward, &TrajectoryBatch::reward, "reward", Extent::kTrajectories},
    {TrajectoryInput::kKl, &TrajectoryBatch::kl, "kl", Extent::kSteps},
    {TrajectoryInput::kKlOld, &TrajectoryBatch::kl_old, "kl_old", Extent::kSteps},
    {TrajectoryInput::kStepStd, &TrajectoryBatch::step_std, "step_std", Extent::kSchedule},
    {TrajectoryInput::kStepSize, &TrajectoryBatch::step_size, "step_size", Extent::kSchedule},
};

at::IntArrayRef expected_shape(const TrajectoryBatch& batch, Extent extent) {
  const at::IntArrayRef shape = batch.log_prob.sizes();  // [B, k, S]
  switch (extent) {
    case Extent::kSteps: return shape;
    case Extent::kTrajectories: return shape.slice(0, 2);
    case Extent::kSchedule: return shape.slice(2);
  }
  return shape;
}

bool contains(const std::vector<TrajectoryInput>& needs, TrajectoryInput input) {
  return std::find(needs.begin(), needs.end(), input) != needs.end();
}

}  // namespace

void check_trajectories(const std::string& objective, const TrajectoryBatch& batch,
                        const std::vector<TrajectoryInput>& needs) {
  const at::Tensor& log_prob = batch.log_prob;
  check_run(log_prob.defined() && log_prob.dim() == 3 && log_prob.numel() > 0, objective,
            ": log_prob must be a non-empty [B, k, S], found ",
            log_prob.defined() ? shape_text(log_prob.sizes()) : std::string("none"));
  check_run(log_prob.scalar_type() == at::kFloat || log_prob.scalar_type() == at::kDouble, objective,
            ": log_prob must be fp32, found ", c10::toString(log_prob.scalar_type()));
  for (const InputRow& row : kInputs) {
    const at::Tensor& tensor = batch.*row.tensor;
    check_run(tensor.defined() || !contains(needs, row.input), objective, ": needs ", row.name, ", found none");
    if (!tensor.defined()) continue;
    const at::IntArrayRef expected = expected_shape(batch, row.extent);
    check_run(tensor.sizes() == expected, objective, ": ", row.name, " has shape ", shape_text(tensor.sizes()),
              ", expected ", shape_text(expected));
  }
}

}  // namespace prefusion::losses
