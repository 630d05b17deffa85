#pragma once

#include <c10/core/Device.h>

#include <cstddef>

namespace prefusion {

// Forgets the peak so far: peak_memory_bytes() (core/device.h) begins anew from what is in use now. On the CPU only
// where the kernel lets a process do so; else the peak stays.
void reset_peak_memory(at::Device device);

}  // namespace prefusion
