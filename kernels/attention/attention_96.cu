#include "kernels/attention/attention_kernels.cuh"

PREFUSION_ATTENTION_HEAD(96)
