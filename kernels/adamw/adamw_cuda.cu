#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "kernels/adamw/adamw.h"
#include "kernels/adamw/adamw_rows.h"
#include "kernels/cuda_launch.h"

namespace prefusion::kernels::detail {
namespace {

template <typename T>
__global__ void adamw_kernel(const __grid_constant__ AdamWTable<T> table, AdamWConstants constants, GatePointers gate) {
  if (gate.is_shut()) return;
  const float gradient_factor = gate.gradient_factor();
  for (int chunk = static_cast<int>(blockIdx.x); chunk < table.num_chunks(); chunk += static_cast<int>(gridDim.x)) {
    table.step(chunk, static_cast<int>(threadIdx.x), kThreads, constants, gradient_factor);
  }
}

template <typename T>
void launch(const AdamWTable<T>& table, const AdamWArgs& args) {
  static_assert(sizeof(table) + sizeof(AdamWConstants) + sizeof(GatePointers) <= 4096, "a launch's arguments");
  adamw_kernel<T>
      <<<grid_size(int64_t{table.num_chunks()} * kThreads), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
          table, adamw_constants(args.settings), gate_pointers(args.gate));
  check_launch("adamw_step");
}

template <typename T>
void step(const AdamWArgs& args) {
  AdamWTable<T> table;
  for (const AdamWTensors& tensors : args.tensors) {
    const AdamWRow<T> row = adamw_row<T>(tensors);
    if (table.add(row)) continue;
    launch(table, args);
    table = AdamWTable<T>();
    table.add(row);
  }
  launch(table, args);
}

}  // namespace

void adamw_step_cuda(const AdamWArgs& args) {
  const c10::cuda::CUDAGuard device(args.tensors.front().master.device());
  switch (args.tensors.front().gradient.scalar_type()) {
    case at::kBFloat16: return step<at::BFloat16>(args);
    case at::kHalf: return step<at::Half>(args);
    default: return step<float>(args);
  }
}

}  // namespace prefusion::kernels::detail
