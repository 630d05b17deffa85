#!/usr/bin/env bash
# Sets up everything, builds, and runs all tests. Arguments go to ctest: scripts/test.sh -R core_test
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh
exec ctest --test-dir "${PREFUSION_BUILD_DIR:-build}" --output-on-failure -j "$(nproc)" "$@"
