#!/usr/bin/env bash
# Writes a snapshot of the stack's Redis into a file, while everything runs: deploy/compose/backup.sh FILE
#
#   COMPOSE  the command: "docker compose", or docker-compose (1.29 or later)
set -euo pipefail
[ $# = 1 ] || { sed -n 2,4p "$0" >&2; exit 2; }
compose=${COMPOSE:-docker compose}
ask() { # a command of Redis
  # shellcheck disable=SC2016 # the variables are the container's
  $compose exec -T redis sh -c 'REDISCLI_AUTH=$(cat /run/secrets/redis_password_backup) exec valkey-cli --user backup "$@"' \
    sh "$@" | tr -d '\r'
}
before=$(ask LASTSAVE)
# LASTSAVE counts seconds: two snapshots in one would look like none.
while [ "$(date +%s)" = "$before" ]; do sleep 0.2; done
ask BGSAVE >/dev/null
until [ "$(ask LASTSAVE)" != "$before" ]; do
  ask INFO persistence | grep -q '^rdb_last_bgsave_status:ok' || { echo "Redis could not write the snapshot" >&2; exit 1; }
  sleep 0.5
done
container=$($compose ps -q redis)
docker cp "$container:/data/dump.rdb" - | tar -xO >"$1.part"
mv "$1.part" "$1"
echo "$1: $(wc -c <"$1") bytes"
