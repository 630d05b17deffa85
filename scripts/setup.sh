#!/usr/bin/env bash
# Sets up everything on a fresh Debian 12 machine and builds: apt packages, .venv with LibTorch and Arrow, build/prefusion.
# Safe to run again: what is there already is left as it is.
#   scripts/setup.sh                  everything
#   PREFUSION_BUILD_DIR=... PREFUSION_CMAKE_ARGS="-DPREFUSION_CUDA=OFF" PREFUSION_BUILD_TARGET=... scripts/setup.sh
set -euo pipefail
cd "$(dirname "$0")/.."

build_dir=${PREFUSION_BUILD_DIR:-build}
packages=(
  build-essential cmake ninja-build ccache mold git pkg-config
  python3 python3-venv python3-dev
  libopencv-dev libhdf5-dev libcli11-dev nlohmann-json3-dev libspdlog-dev libfmt-dev libtomlplusplus-dev
  libpcre2-dev libicu-dev libcpp-httplib-dev zlib1g-dev libjpeg-dev libpng-dev libwebp-dev
  libgtest-dev clang-format clang-tidy clang libclang-rt-14-dev
)

install_packages() {
  local missing=()
  for package in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "error: run as root, or install: ${missing[*]}" >&2; exit 2; }
    as_root=(sudo)
  fi
  echo "Installing ${#missing[@]} Debian packages"
  "${as_root[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# The virtual environment is complete when the stamp holds the checksum of requirements.txt.
install_python() {
  local wanted
  wanted=$(sha256sum requirements.txt | cut -d' ' -f1)
  [ "$(cat .venv/.requirements 2>/dev/null || true)" = "$wanted" ] && return
  [ -x .venv/bin/python ] || /usr/bin/python3 -m venv .venv
  echo "Installing LibTorch, Arrow and the reference libraries into .venv (about 6 GB)"
  .venv/bin/pip install --disable-pip-version-check -q -r requirements.txt
  echo "$wanted" > .venv/.requirements
}

build() {
  # nvcc is used where it is, also when it is not on the PATH.
  [ -x /usr/local/cuda/bin/nvcc ] && export PATH="$PATH:/usr/local/cuda/bin"
  # shellcheck disable=SC2086
  cmake -S . -B "$build_dir" -G Ninja ${PREFUSION_CMAKE_ARGS:-} >"$build_dir.configure.log" 2>&1 || {
    tail -n 30 "$build_dir.configure.log" >&2; exit 1; }
  rm -f "$build_dir.configure.log"
  # shellcheck disable=SC2086
  cmake --build "$build_dir" ${PREFUSION_BUILD_TARGET:+--target $PREFUSION_BUILD_TARGET}
}

install_packages
install_python
build
echo "Built $build_dir/prefusion"
