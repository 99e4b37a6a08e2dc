#!/usr/bin/env bash
# Tests in pytest sessions side by side: every test but the slow ones, or with "slow" those. Other arguments: one
# session with them.
#
# Engine starts and waiting fill most of the time. Tests of one engine share it, so they stay in one session.
set -uo pipefail
cd "$(dirname "$0")/.."
[ $# -eq 0 ] || [ "$1" = slow ] || exec .venv/bin/pytest "$@"

logs=$(mktemp -d) && trap 'rm -rf "$logs"' EXIT
declare -A session=()
start() { # name, arguments
  local name=$1
  shift
  .venv/bin/pytest -q -p no:cacheprovider "$@" >"$logs/$name" 2>&1 &
  session[$name]=$!
}
if [ "${1:-}" = slow ]; then
  start workers -m slow tests/faults/test_leases_on_workers.py
  start suite -m slow tests --ignore=tests/faults/test_leases_on_workers.py
else
  start engines -m 'vllm and not slow' tests/contracts tests/integration/test_demo.py
  start vllm-fleet -m 'vllm and not slow' --ignore=tests/contracts --ignore=tests/integration/test_demo.py
  start units -m 'not vllm and not slow' --ignore=tests/integration
  start simulated -m 'not vllm and not slow' tests/integration
fi

status=0
for name in "${!session[@]}"; do
  wait "${session[$name]}" || status=1
  echo "== $name"
  cat "$logs/$name"
done
exit $status
