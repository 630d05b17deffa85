#pragma once

#include <c10/util/FunctionRef.h>

#include <cstdint>

namespace prefusion::kernels {

// Calls body(begin, end) for parts of [0, count) on LibTorch's threads; parts are cut at multiples of `grain`. Compiled
// without OpenMP, as here, at::parallel_for is a loop on one thread, and the OpenMP of another compiler than LibTorch's
// would bring threads of its own. This has LibTorch call the body.
void parallel_for(int64_t count, int64_t grain, c10::function_ref<void(int64_t begin, int64_t end)> body);

}  // namespace prefusion::kernels
