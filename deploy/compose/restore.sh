#!/usr/bin/env bash
# Loads a snapshot that backup.sh made into the volume of a stack that is stopped, and has no data yet or is to lose it:
# deploy/compose/restore.sh FILE [--replace]. Then start the stack.
#
# Jobs that had not ended when the snapshot was made run again, also those that ended later. Redis reads a snapshot only
# where there is no append-only file, so it is loaded by a server without one, which then writes it.
#
#   COMPOSE  the command: "docker compose", or docker-compose (1.29 or later)
set -euo pipefail
[ $# = 1 ] || [ "${2:-}" = --replace ] || { sed -n 2,8p "$0" >&2; exit 2; }
compose=${COMPOSE:-docker compose}
[ -s "$1" ] || { echo "$1 is not there, or empty" >&2; exit 2; }
if [ -n "$($compose ps -q redis)" ] && [ "$(docker inspect --format '{{.State.Running}}' "$($compose ps -q redis)")" = true ]; then
  echo "Redis runs: stop the stack first ($compose stop)" >&2
  exit 2
fi
# shellcheck disable=SC2016 # the variables are the container's
$compose run --rm --no-deps -T --entrypoint sh redis -ec '
  if [ -e /data/appendonlydir ]; then
    [ "$1" = --replace ] || { echo "the volume has data already: --replace removes it" >&2; exit 2; }
    rm -rf /data/appendonlydir
  fi
  cat >/data/dump.rdb
  valkey-server --dir /data --port 0 --unixsocket /data/restore.sock --save "" --appendonly no >/data/restore.log &
  server=$!
  ask() { valkey-cli -s /data/restore.sock "$@"; }
  until ask INFO persistence 2>/dev/null | grep -q "^loading:0"; do
    kill -0 $server 2>/dev/null || { tail -5 /data/restore.log >&2; exit 1; }
    sleep 0.2
  done
  ask CONFIG SET appendonly yes >/dev/null
  until ask INFO persistence | grep -q "^aof_rewrite_in_progress:0" && [ -e /data/appendonlydir ]; do sleep 0.2; done
  echo "restored: $(ask DBSIZE) keys"
  ask SHUTDOWN NOSAVE || true
  wait $server || true
  rm -f /data/restore.log /data/restore.sock
' sh "${2:-}" <"$1"
