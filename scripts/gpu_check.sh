#!/usr/bin/env bash
# What only a GPU can show, in one report (build/gpu_report.txt, or $OUT/gpu_report.txt where OUT is set): the GPU tests, the
# kernels' small shapes under compute-sanitizer where it is installed, and timings of kernels, and of pictures and training
# steps of networks of real sizes with random weights. Builds for the GPU at hand when there is no build yet. docs/gpu.md
# quotes the report with date and device.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v nvidia-smi >/dev/null || { echo "error: nvidia-smi not found; this machine has no NVIDIA GPU" >&2; exit 4; }
build_dir=${PREFUSION_BUILD_DIR:-build}
if [ ! -x "$build_dir/prefusion" ]; then scripts/setup.sh; fi
report=${OUT:-$build_dir}/gpu_report.txt
exec > >(tee "$report") 2>&1
date -u +%Y-%m-%d
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
status=0
section() { echo; echo "== $1"; }
check() { "$@" || { status=1; echo "failed: $*"; }; }

section "GPU tests"
gpu_cases='*[Cc]uda*:*CUDA*:*Gpu*'
for test in "$build_dir"/tests/*_test; do
  # An executable without such cases runs none and succeeds.
  check timeout 120 "$test" --gtest_brief=1 --gtest_filter="$gpu_cases"
done
if command -v compute-sanitizer >/dev/null; then
  section "compute-sanitizer"
  check compute-sanitizer --error-exitcode 1 "$build_dir/tests/kernels_test" --gtest_filter="$gpu_cases:-*LongRows*"
fi

bench="$build_dir/prefusion bench"
section "kernels"
check $bench kernels --dtype bf16
for network in sd15 sdxl; do
  folder=benchmarks/geometries/$network
  section "$network, its attentions in every way there is"
  check env PREFUSION_TUNING="$build_dir/gpu_tuning.json" $bench tune --model $folder --random-weights --dtype bf16 --batch-size 2 --seconds 0.2
  section "$network, one pass as ATen does it, then with the fastest attentions"
  check env PREFUSION_TUNING=/nonexistent $bench forward --model $folder --random-weights --dtype bf16 --batch-size 2
  check env PREFUSION_TUNING="$build_dir/gpu_tuning.json" $bench forward --model $folder --random-weights --dtype bf16 --batch-size 2 --cuda-graph
  section "$network, a picture of 30 steps under guidance, launch by launch and as a CUDA graph"
  check env PREFUSION_TUNING="$build_dir/gpu_tuning.json" $bench generate --model $folder --random-weights --dtype bf16 --steps 30 --cuda-graph
done
section "training steps: all weights of sd15, a LoRA of sdxl, launch by launch and as a CUDA graph; groups a second"
train="env PREFUSION_TUNING=$build_dir/gpu_tuning.json $bench train --random-weights --dtype bf16 --objective diffusion-dpo,mapo --cuda-graph"
check $train --model benchmarks/geometries/sd15 --adapter full --batch-size 8
check $train --model benchmarks/geometries/sdxl --batch-size 2 --gradient-checkpointing
check $train --model benchmarks/geometries/sdxl --batch-size 2 --activation-memory 20
exit $status
