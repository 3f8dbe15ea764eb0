#!/usr/bin/env bash
# Prove and measure the CUDA path in at most eight minutes; see docs/gpu.md.
#
#   benchmarks/gpu/check.sh [--install-only] [--device cuda|cpu] [--is-quick] [--steps TEXT]
#
# PYTHON            interpreter to use; python3, or that of .venv if there are no wheels
# WHEELS            folder of the parts that `make wheelhouse` made; .wheels
# GPU_CHECK_SITE    folder to install them into, kept: a part installed earlier is used; without
#                   it a temporary one
# OUT               where gpu-check.json, gpu-check.md and gpu-check.log go;
#                   benchmarks/results/gpu
set -uo pipefail
cd "$(dirname "$0")/../.."
export GPU_CHECK_STARTED_AT="${GPU_CHECK_STARTED_AT:-$(date +%s)}"

wheels="${WHEELS:-.wheels}"
shopt -s nullglob
parts=("$wheels"/[0-9]*/)
site="${GPU_CHECK_SITE:-}"
if [ -z "$site" ] && [ ${#parts[@]} -gt 0 ]; then
  site="$(mktemp -d)"
  trap 'rm -rf "$site"' EXIT
fi

if [ -n "$site" ]; then
  python="${PYTHON:-python3}"
else
  python="${PYTHON:-.venv/bin/python}"
  [ -x "$python" ] || python=python3
fi

path="$PWD:$PWD/producer:$PWD/worker"
if [ -n "$site" ]; then
  mkdir -p "$site"
  site="$(cd "$site" && pwd)"
  for part in "${parts[@]}"; do
    # Each part has a folder of its own: pip leaves alone, or replaces, folders that are there.
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --upgrade \
      --disable-pip-version-check --root-user-action ignore --target "$site/$(basename "$part")" \
      "$part"*.whl || echo "part $part was not installed whole: going on" >&2
  done
  path="$path:$site"
  for folder in "$site"/[0-9]*/; do path="$path:${folder%/}"; done
fi
[ "${1:-}" = "--install-only" ] && { echo "installed in $site: $(ls "$site")"; exit 0; }

export PYTHONPATH="$path${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1
"$python" -m benchmarks.gpu "$@"
