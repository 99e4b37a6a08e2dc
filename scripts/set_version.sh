#!/usr/bin/env bash
# Writes the version of both distributions and of the images: scripts/set_version.sh 1.2.3
#
# It stands in producer/pyproject.toml; the other places are written from there, and a test holds them together.
set -euo pipefail
cd "$(dirname "$0")/.."
[[ ${1:-} =~ ^[0-9]+\.[0-9]+\.[0-9]+((a|b|rc)[0-9]+)?$ ]] || { echo "set_version: give a version such as 1.2.3" >&2; exit 2; }
sed -i -E "s/^version = \"[^\"]*\"/version = \"$1\"/" producer/pyproject.toml pyproject.toml
sed -i -E "s/(inference-fleet-producer\[gateway\]==)[^\"]*/\1$1/" pyproject.toml
sed -i -E "s/^ARG VERSION=.*/ARG VERSION=$1/" Dockerfile
