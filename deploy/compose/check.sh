#!/usr/bin/env bash
# Builds the images, starts the stack with a worker on the CPU and a tiny model, checks it from outside, kills what may
# be killed, and takes everything down again: deploy/compose/check.sh. It needs a Docker Engine, Compose, curl and
# python3, takes some minutes and 6 GB of disk, and leaves the images.
#
#   COMPOSE       the command: "docker compose", or docker-compose (1.29 or later)
#   BUILD_OPTIONS options of docker build, such as --network=host
#   SKIP          services that are left out, e.g. "grafana"
# A pipe into grep -q would end the command before it, which pipefail takes for a failure: hence >/dev/null.
set -euo pipefail
cd "$(dirname "$0")/../.."
skip=" ${SKIP:-} "
export COMPOSE_PROJECT_NAME=fleet-check FLEET_SECRETS
export FLEET_GATEWAY_PORT=18000 FLEET_FLOWER_PORT=15555 FLEET_PROMETHEUS_PORT=19090 FLEET_GRAFANA_PORT=13000
FLEET_SECRETS=$(mktemp -d)
gateway=http://127.0.0.1:$FLEET_GATEWAY_PORT
flower=http://127.0.0.1:$FLEET_FLOWER_PORT
prometheus=http://127.0.0.1:$FLEET_PROMETHEUS_PORT
grafana=http://127.0.0.1:$FLEET_GRAFANA_PORT

compose() {
  ${COMPOSE:-docker compose} -f docker-compose.yml -f deploy/compose/tiny-model.yml --profile cpu --profile tools "$@"
}
say() { printf '%4d s  %s\n' "$SECONDS" "$*"; }
fail() {
  say "FAILED: $*" >&2
  exit 1
}
eventually() { # seconds, what, command: until it succeeds
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $deadline ] || fail "$what: not in time"
    sleep 1
  done
  say "$what"
}
same() { # what, wanted, found
  [ "$2" = "$3" ] || fail "$1: wanted '$2', found '$3'"
  say "$1: $3"
}
down() {
  local status=$?
  [ $status = 0 ] || compose logs --tail 30 2>&1 | tail -150 >&2
  compose down --volumes --remove-orphans --timeout 60 >/dev/null 2>&1 || true
  rm -rf "$FLEET_SECRETS"
  exit $status
}
trap down EXIT

container() { compose ps -aq "$1" | head -1; } # Compose 2 lists what has ended only with -a
of_container() { docker inspect --format "$2" "$(container "$1")"; }
is_healthy() { [ "$(of_container "$1" '{{.State.Health.Status}}')" = healthy ]; }
status_of() { curl -s -o /dev/null -w '%{http_code}' "$@"; }
field() { python3 -c 'import json, sys; v = json.load(sys.stdin)
for k in sys.argv[1:]: v = v[int(k)] if k.isdigit() else v[k]
print(v)' "$@"; }
ask() { curl -sf --max-time 120 -H "Authorization: Bearer $key" -H 'Content-Type: application/json' "$@"; }
value_of() { curl -sf "$prometheus/api/v1/query" --data-urlencode "query=$1" | field data result 0 value 1; }
is_value() { [ "$(value_of "$1")" = "$2" ]; }
chat() {
  ask "$gateway/v1/chat/completions" -d '{"model": "tiny-llama", "max_tokens": 16,
    "messages": [{"role": "user", "content": "Why queues?"}]}' | field usage completion_tokens
}
kill_as_a_crash_would() { # the container's first process; Docker restarts what nobody stopped by its name
  local pid
  pid=$(of_container "$1" '{{.State.Pid}}')
  kill -KILL "$pid" 2>/dev/null || sudo -n kill -KILL "$pid" 2>/dev/null ||
    { docker kill "$(container "$1")" && docker start "$(container "$1")"; } >/dev/null
}

services=()
for service in redis gateway flower exporter worker-cpu prometheus grafana; do
  [[ $skip == *" $service "* ]] || services+=("$service")
done

# -- build ------------------------------------------------------------------------------------------------------------
for target in service cpu; do
  # shellcheck disable=SC2086
  docker build ${BUILD_OPTIONS:-} --quiet --target $target --tag inference-fleet:$target . >/dev/null
  size=$(docker image inspect --format '{{.Size}}' inference-fleet:$target)
  say "image $target, $((size / 1000000)) MB"
  same "user of the image" 10001:10001 "$(docker image inspect --format '{{.Config.User}}' inference-fleet:$target)"
done
for profile in gpu gpu-1; do
  ${COMPOSE:-docker compose} --profile "$profile" config | grep device_ids >/dev/null ||
    fail "profile $profile pins no GPU"
done
say "the GPU profiles are valid and pin their devices"

# -- up ---------------------------------------------------------------------------------------------------------------
deploy/compose/make_secrets.sh "$FLEET_SECRETS" >/dev/null
compose run --rm --no-deps --entrypoint python worker-cpu -c \
  'from pathlib import Path; from workers.models.tiny import make_tiny_model as make; make(Path("models/tiny-llama"))' \
  >/dev/null 2>&1
say "the tiny model is made"
compose up -d --no-build "${services[@]}" >/dev/null 2>&1
for service in "${services[@]}"; do
  eventually 300 "$service is healthy" is_healthy "$service"
done

same "the preload found the model and ended with" 0 \
  "$(docker inspect --format '{{.State.ExitCode}}' "$(compose ps -aq preload)")"

# -- who runs, as whom, seen from where -------------------------------------------------------------------------------
for service in "${services[@]}"; do
  [ "$(of_container "$service" '{{.Config.User}}')" != "" ] || fail "$service runs as root"
  same "$service: read-only, capabilities, privileges" "true [ALL] [no-new-privileges:true]" \
    "$(of_container "$service" '{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}}')"
done
open=$(docker ps --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME" --format '{{.Ports}}' |
  tr ',' '\n' | grep -- '->' | grep -v '127\.0\.0\.1:' | grep -o ':[0-9]*->' | sort -u | tr -d '\n')
same "published beyond this machine" ":$FLEET_GATEWAY_PORT->" "$open"
passwords=$(grep -ohE '\b[0-9a-f]{48}\b' "$FLEET_SECRETS"/*)
for service in "${services[@]}"; do
  if docker inspect "$(container "$service")" | grep -F "$passwords" >/dev/null; then
    fail "docker inspect shows a password of $service"
  fi
done
same "passwords that docker inspect does not show" 10 "$(wc -l <<<"$passwords")"

# -- a job, by its key ------------------------------------------------------------------------------------------------
same "a request without a key" 401 "$(status_of "$gateway/v1/models")"
key=$(compose run --rm fleet keys create acme 2>/dev/null | tr -d '\r' | tail -1)
same "a chat through the gateway, tokens" 16 "$(chat)"
compose run --rm fleet doctor 2>/dev/null | grep noeviction >/dev/null || fail "fleet doctor does not see noeviction"
say "fleet doctor is content with Redis"

# -- Flower, Prometheus, Grafana --------------------------------------------------------------------------------------
same "Flower without a password" 401 "$(status_of "$flower/workers")"
same "Flower's metrics without a password" 401 "$(status_of "$flower/metrics")"
flower_knows() { curl -sf --user "$(cat "$FLEET_SECRETS/flower_basic_auth")" "$flower$1" | grep -- "$2" >/dev/null; }
eventually 60 "Flower knows the worker" flower_knows '/api/workers?refresh=1' fleet.tiny-llama
eventually 60 "Flower shows the job" flower_knows /api/tasks SUCCESS
eventually 60 "Prometheus scrapes the worker: up is 1" is_value 'up{job="worker"}' 1
eventually 60 "Prometheus has the fleet's own series" is_value 'fleet_engine_up' 1
eventually 60 "and the exporter's: workers that are ready are 1" is_value 'fleet_workers_ready' 1
eventually 60 "and vLLM's" value_of 'vllm:kv_cache_usage_perc'
has_rules() { curl -sf "$prometheus/api/v1/rules" | grep -- FleetNoReadyWorker >/dev/null; }
eventually 60 "Prometheus has the rules" has_rules
no_alert() { ! curl -sf "$prometheus/api/v1/alerts" | grep -- '"state":"firing"' >/dev/null; }
no_alert || fail "an alert fires in a fleet that is well: $(curl -sf "$prometheus/api/v1/alerts")"
say "and no alert fires"
# A panel that may be empty says so.
python3 -c 'import glob, json
for path in sorted(glob.glob("deploy/compose/grafana/dashboards/*.json")):
  for panel in json.load(open(path))["panels"]:
    if not panel.get("description", "").startswith("Empty "):
      for target in panel["targets"]:
        print(target["expr"].replace("$model", ".*").replace("$__rate_interval", "1m"))' | while read -r query; do
  eventually 60 "on a dashboard: $query" value_of "$query"
done
if [[ $skip != *" grafana "* ]]; then
  grafana_user="admin:$(cat "$FLEET_SECRETS/grafana_admin_password")"
  grafana_has() { curl -sf --user "$grafana_user" "$grafana$1" | grep -- "$2" >/dev/null; }
  same "Grafana with the usual password" 401 "$(status_of --user admin:admin "$grafana/api/search")"
  for board in inference-fleet inference-fleet-engine inference-fleet-job; do
    eventually 60 "Grafana has the dashboard $board" grafana_has "/api/dashboards/uid/$board" fleet_workers_ready
  done
fi

# -- the worker dies under its jobs -----------------------------------------------------------------------------------
state_of() { ask "$gateway/v1/jobs/$1" | field state; }
is_in() { [ "$(state_of "$1")" = "$2" ]; }
job='{"model": "tiny-llama", "prompt": "Once upon a time", "sampling": {"max_tokens": 1500, "ignore_eos": true}}'
mapfile -t jobs < <(for _ in $(seq 64); do echo "$job"; done |
  curl -sf -H "Authorization: Bearer $key" -H 'Content-Type: application/x-ndjson' --data-binary @- \
    "$gateway/v1/jobs/bulk" | grep -oE '"id":"[^"]*"' | cut -d'"' -f4)
same "jobs that are submitted at once" 64 "${#jobs[@]}"
is_begun() { state=$(state_of "$1") && [ "$state" != queued ]; }
eventually 60 "the first one has begun" is_begun "${jobs[0]}"
kill_as_a_crash_would worker-cpu
say "the worker's container is killed"
same "the last job meanwhile" queued "$(state_of "${jobs[63]}")"
attempts=0 deadline=$((SECONDS + 400))
for job in "${jobs[@]}"; do
  until is_in "$job" succeeded; do
    [ $SECONDS -lt $deadline ] || fail "job $job has not ended: $(state_of "$job")"
    sleep 1
  done
  attempts=$((attempts + $(ask "$gateway/v1/jobs/$job" | field attempt)))
done
[ $attempts -gt 64 ] || fail "64 jobs in $attempts attempts: nothing was killed under them"
say "all 64 jobs have succeeded, in $attempts attempts"
eventually 120 "worker-cpu is healthy" is_healthy worker-cpu

# -- gateway and Redis are restarted ----------------------------------------------------------------------------------
kill_as_a_crash_would gateway
eventually 60 "gateway is healthy" is_healthy gateway
same "a chat after the gateway's crash, tokens" 16 "$(chat)"
job=$(ask "$gateway/v1/jobs" -d '{"model": "tiny-llama", "prompt": "Once", "sampling": {"max_tokens": 400,
  "ignore_eos": true}}' | field id)
compose restart redis >/dev/null 2>&1
eventually 60 "redis is healthy" is_healthy redis
eventually 120 "the job from before Redis' restart has ended" is_in "$job" succeeded
same "a chat after Redis' restart, tokens" 16 "$(chat)"

# -- chaos ----------------------------------------------------------------------------------------------------------
deploy/compose/chaos.py --gateway "$gateway" --key "$key" --project "$COMPOSE_PROJECT_NAME" --seconds "${CHAOS_SECONDS:-120}"
eventually 120 "Flower knows the worker" flower_knows '/api/workers?refresh=1' fleet.tiny-llama

# -- a snapshot, and another Redis ---------------------------------------------------------------------------------------
compose stop --timeout 60 worker-cpu >/dev/null 2>&1
mapfile -t kept < <(for _ in $(seq 20); do
  ask "$gateway/v1/jobs" -d '{"model": "tiny-llama", "prompt": "Once", "sampling": {"max_tokens": 20}}' | field id
done)
export COMPOSE_FILE=docker-compose.yml:deploy/compose/tiny-model.yml
deploy/compose/backup.sh "$FLEET_SECRETS/snapshot.rdb"
compose stop --timeout 30 >/dev/null 2>&1
compose rm -f redis >/dev/null 2>&1
docker volume rm "${COMPOSE_PROJECT_NAME}_redis" >/dev/null
deploy/compose/restore.sh "$FLEET_SECRETS/snapshot.rdb"
compose up -d --no-build "${services[@]}" >/dev/null 2>&1
eventually 300 "worker-cpu is healthy" is_healthy worker-cpu
for job in "${kept[@]}"; do
  until is_in "$job" succeeded; do sleep 1; done
done
say "all ${#kept[@]} jobs of the snapshot have succeeded on the Redis that it was restored to"

# -- down -------------------------------------------------------------------------------------------------------------
before=$SECONDS
compose stop --timeout 60 worker-cpu >/dev/null 2>&1
same "the worker drained and ended with" 0 "$(of_container worker-cpu '{{.State.ExitCode}}')"
say "in $((SECONDS - before)) s"
compose down --volumes --timeout 60 >/dev/null 2>&1
ours="label=com.docker.compose.project=$COMPOSE_PROJECT_NAME"
same "containers and volumes left" "" "$(docker ps -aq --filter "$ours")$(docker volume ls -q --filter "$ours")"
say "all is well"
