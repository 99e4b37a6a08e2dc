#!/usr/bin/env bash
# Every test, in five pytest sessions side by side; with arguments, one session with those.
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
start engines -m vllm tests/contracts tests/integration/test_demo.py
start vllm-fleet -m vllm --ignore=tests/contracts --ignore=tests/integration/test_demo.py
start units -m 'not vllm' --ignore=tests/integration --ignore=tests/faults/test_leases_on_workers.py \
  --ignore=tests/faults/test_stories_on_workers.py --ignore=tests/faults/test_chaos_short.py
start workers tests/faults/test_leases_on_workers.py tests/faults/test_stories_on_workers.py \
  tests/faults/test_chaos_short.py
start simulated -m 'not vllm' tests/integration

status=0
for name in "${!session[@]}"; do
  wait "${session[$name]}" || status=1
  echo "== $name"
  cat "$logs/$name"
done
exit $status
