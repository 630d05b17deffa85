#!/usr/bin/env bash
# The whole loop on the bundled model, on the CPU: sets up, aligns with Diffusion-DPO, compares before and after.
#   scripts/demo.sh [--seed N] [--captions N] [--output DIR] [--no-setup]
set -euo pipefail
cd "$(dirname "$0")/.."

seed=0
captions=320
output=
with_setup=1
usage() {
  echo "usage: scripts/demo.sh [--seed N] [--captions N] [--output DIR] [--no-setup]"
  echo "  --seed N       seed of training and pictures (0)"
  echo "  --captions N   held-out captions to evaluate on (320)"
  echo "  --output DIR   where everything goes (build/demo-seedN)"
  echo "  --no-setup     use build/prefusion as it is"
}
while [ $# -gt 0 ]; do
  case "$1" in
    --seed|--captions|--output)
      [ $# -ge 2 ] || { echo "error: $1 needs a value" >&2; exit 2; }
      printf -v "${1#--}" '%s' "$2"; shift 2 ;;
    --no-setup) with_setup=0; shift ;;
    -h|--help) usage; exit 0 ;;
    *) echo "error: unknown option $1" >&2; usage >&2; exit 2 ;;
  esac
done
build_dir=${PREFUSION_BUILD_DIR:-build}
output=${output:-$build_dir/demo-seed$seed}
prefusion=$build_dir/prefusion

[ "$with_setup" = 0 ] || scripts/setup.sh
[ -x "$prefusion" ] || { echo "error: $prefusion is missing; run scripts/setup.sh" >&2; exit 2; }

start=$SECONDS
echo "== Aligning assets/shapes on assets/shapes-preferences.parquet"
# Only what an earlier demo wrote is replaced.
[ ! -e "$output" ] || [ -f "$output/run.toml" ] || { echo "error: $output is there and holds no run" >&2; exit 2; }
rm -rf "$output"
# Mirroring would swap left and right under the captions.
"$prefusion" align --model assets/shapes --data assets/shapes-preferences.parquet --output "$output" \
  --objective diffusion-dpo --adapter full --kappa 400 --lr 4e-5 --lr-schedule cosine --warmup 20 --steps 120 \
  --batch-size 24 --ema 0.9 --no-hflip --empty-prompt-rate 0.1 --eval-every 20 --save-every 0 \
  --device cpu --seed "$seed"

echo "== Comparing with the model before on $captions held-out captions"
"$prefusion" evaluate --model "$output" --baseline assets/shapes --held-out "$captions" --reward shapes \
  --scheduler dpm++ --steps 12 --guidance-scale 3 --batch-size 32 --run "$output" --output "$output/evaluation" \
  --device cpu --seed "$seed"

echo
echo "Took $(( (SECONDS - start) / 60 )) min $(( (SECONDS - start) % 60 )) s. Look at $output/evaluation/report.html"
