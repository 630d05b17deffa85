#include "training/group_table.h"

#include <ATen/ATen.h>

#include "core/atomic_file.h"
#include "data/parquet_writer.h"

namespace prefusion::training {
namespace {

std::vector<double> numbers(const at::Tensor& tensor) {
  if (!tensor.defined()) return {};
  const at::Tensor flat = tensor.to(at::kDouble).contiguous();
  return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

at::Tensor row_of(const at::Tensor& values, int64_t n) {
  return values.defined() ? values[n] : at::Tensor();
}

// First minus last of k.
double first_minus_last(const at::Tensor& values) {
  return (values[0] - values[-1]).item<double>();
}

}  // namespace

void write_group_table(const std::filesystem::path& path, const HeldOutErrors& held_out,
                       const data::PreferenceDataset& dataset, const losses::ObjectiveInfo& info, double kappa) {
  if (path.has_parent_path()) make_folder(path.parent_path());
  const at::Tensor error = held_out.error.mean(0);
  const at::Tensor error_ref = held_out.error_ref.mean(0);
  const at::Tensor reward = implicit_rewards(held_out, info, kappa).mean(0);
  data::GroupTableWriter writer(path);
  for (int64_t n = 0; n < held_out.num_groups(); ++n) {
    data::GroupRow row{.id = held_out.ids.at(static_cast<size_t>(n)),
                       .prompt = dataset.prompt(held_out.items.at(static_cast<size_t>(n))),
                       .labels = numbers(row_of(held_out.labels, n)),
                       .scores = numbers(row_of(held_out.scores, n)),
                       .errors = numbers(error[n]),
                       .errors_ref = numbers(error_ref[n]),
                       .timesteps = held_out.timesteps,
                       .errors_by_timestep = numbers(held_out.error.select(1, n)),
                       .errors_ref_by_timestep = numbers(held_out.error_ref.select(1, n)),
                       .margin = first_minus_last(reward[n]),
                       .hardness = first_minus_last(error_ref[n])};
    row.is_flipped = row.margin < 0;
    writer.add(row);
  }
  writer.finish();
}

}  // namespace prefusion::training
