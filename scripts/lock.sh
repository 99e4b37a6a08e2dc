#!/usr/bin/env bash
# Writes the exact versions that the images install, deploy/requirements/*.txt, anew: scripts/lock.sh
#
# It needs uv (pip install uv). What a file has is kept where it still fits; delete the file to take the newest of all.
# torch's CPU build comes from where uv is set up to look, or from --find-links, or from PyTorch's own index:
#   UV_INDEX=https://download.pytorch.org/whl/cpu UV_INDEX_STRATEGY=unsafe-best-match scripts/lock.sh
set -euo pipefail
cd "$(dirname "$0")/.."
folder=deploy/requirements
wanted=$(mktemp --tmpdir=.) && trap 'rm -f "$wanted"' EXIT
lock() { # name, what is wanted on top (one requirement a line), options
  printf './producer[gateway]\n%s\n' "$2" >"$wanted"
  uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-header --no-annotate \
    --no-emit-package inference-fleet-producer --no-emit-package inference-fleet "${@:3}" "$wanted" -o "$folder/$1.txt"
}

# vLLM's CPU build asks for the first three, but what the package index holds is built for CUDA and breaks its import;
# the fourth does nothing on a CPU and is a gigabyte.
lock cpu $'.[otel]\ntorch==2.13.0+cpu\nvllm-cpu==0.32.0' --no-emit-package torchvision --no-emit-package torchaudio \
  --no-emit-package torchcodec --no-emit-package triton
lock service '.[otel]' -c $folder/cpu.txt
# Of vLLM's CUDA build the one that was run and measured on GPUs (docs/performance.md), not the newest that is allowed;
# what it asks for forbids the newest protobuf.
same=$(mktemp) && grep -v '^protobuf==' $folder/service.txt >"$same"
lock gpu $'.[gpu,otel]\nvllm==0.26.0' -c "$same"
rm "$same"
