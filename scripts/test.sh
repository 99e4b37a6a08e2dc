#!/usr/bin/env bash
# Every test, in four pytest sessions side by side; with arguments, one session with those.
#
# Engine starts and waiting fill most of the time. Tests of one engine share it, so they stay in one session.
set -uo pipefail
cd "$(dirname "$0")/.."
[ $# -eq 0 ] || exec .venv/bin/pytest "$@"

logs=$(mktemp -d) && trap 'rm -rf "$logs"' EXIT
declare -A session=()
start() { # name, arguments
  local name=$1
  shift
  .venv/bin/pytest -q -p no:cacheprovider "$@" >"$logs/$name" 2>&1 &
  session[$name]=$!
}
# What starts and stops whole fleets, and mostly waits for them.
lifecycle=(tests/faults tests/integration/test_demo.py tests/integration/test_worker_processes.py)
start engines -m vllm tests/contracts
start vllm-fleet -m vllm --ignore=tests/contracts "${lifecycle[@]/#/--ignore=}"
start lifecycle "${lifecycle[@]}"
start simulated -m 'not vllm' "${lifecycle[@]/#/--ignore=}"

status=0
for name in "${!session[@]}"; do
  wait "${session[$name]}" || status=1
  echo "== $name"
  cat "$logs/$name"
done
exit $status
