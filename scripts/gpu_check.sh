#!/usr/bin/env bash
# What only a GPU can show: the GPU tests, then the same small tests under compute-sanitizer where it is installed.
# Builds for the GPU at hand when there is no build yet. Figures go to docs/gpu.md by hand, with date and device.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v nvidia-smi >/dev/null || { echo "error: nvidia-smi not found; this machine has no NVIDIA GPU" >&2; exit 4; }
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
scripts/setup.sh
build_dir=${PREFUSION_BUILD_DIR:-build}
echo "== GPU tests"
gpu_cases='*[Cc]uda*:*CUDA*:*Gpu*'
for test in "$build_dir"/tests/*_test; do
  # An executable without such cases runs none and succeeds.
  "$test" --gtest_brief=1 --gtest_filter="$gpu_cases"
done
if command -v compute-sanitizer >/dev/null; then
  echo "== compute-sanitizer"
  for test in noise_and_target_test item_error_test; do
    compute-sanitizer --error-exitcode 1 "$build_dir/tests/$test" --gtest_filter="$gpu_cases"
  done
fi
