#!/usr/bin/env bash
# Every check that needs no model: format, include direction, spelling of the contracts, tests the documentation names, and
# (--tidy) lint.
#   scripts/check.sh             what continuous integration runs
#   scripts/check.sh --tidy      with clang-tidy over all sources (minutes)
#   scripts/check.sh --sanitize  builds with AddressSanitizer and UBSan and runs the unit and malformed-file tests
set -euo pipefail
cd "$(dirname "$0")/.."

sources() { git ls-files '*.h' '*.cpp' '*.cu'; }

check_format() {
  echo "== format"
  sources | xargs clang-format --dry-run -Werror
}

check_includes() {
  echo "== include direction"
  python3 scripts/check_includes.py
}

check_contracts() {
  echo "== contracts"
  python3 scripts/check_contracts.py
}

check_named_tests() {
  echo "== named tests"
  python3 scripts/check_named_tests.py
}

# In a build without OpenMP, LibTorch's headers make loops on one thread of these.
check_threads() {
  echo "== threads"
  if git grep -nE 'at::parallel_(for|reduce)\(' -- '*.h' '*.cpp' '*.cu'; then
    echo "error: use kernels/parallel_for.h, which runs on LibTorch's threads" >&2
    return 1
  fi
}

check_tidy() {
  echo "== clang-tidy"
  sources | grep '\.cpp$' | grep -v '^tests/' | xargs -P "$(nproc)" -n 4 clang-tidy -p build --quiet
}

check_sanitize() {
  echo "== sanitizers"
  PREFUSION_BUILD_DIR=build-sanitize PREFUSION_BUILD_TARGET=sanitizer_tests \
    PREFUSION_CMAKE_ARGS="-DPREFUSION_SANITIZE=address,undefined -DPREFUSION_CUDA=OFF" scripts/setup.sh
  # LibTorch and Python allocate for the life of the process, and Arrow's and OpenCV's containers are not instrumented.
  export ASAN_OPTIONS=detect_leaks=0:detect_container_overflow=0 UBSAN_OPTIONS=print_stacktrace=1 OMP_NUM_THREADS=1
  # Whole executables: a process for each of a thousand tests would load the instrumented libraries as often.
  for test in build-sanitize/tests/*_test; do
    echo "$test"
    "$test" --gtest_brief=1
  done
  ctest --test-dir build-sanitize --output-on-failure -L malformed
}

check_format
check_includes
check_contracts
check_named_tests
check_threads
for argument in "$@"; do
  case "$argument" in
    --tidy) check_tidy ;;
    --sanitize) check_sanitize ;;
    *) echo "error: $argument: expected --tidy or --sanitize" >&2; exit 2 ;;
  esac
done
echo "All checks passed"
