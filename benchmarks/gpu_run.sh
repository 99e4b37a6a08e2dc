#!/usr/bin/env bash
# The fleet beside what it is measured against, on one GPU: benchmarks/gpu_run.sh FOLDER [PART...]
#
# PART is 0.6b, 8b (both without any), tiny (a rehearsal on a CPU), or host (what needs no GPU: overhead, enqueue,
# latency). One JSON file per part comes into FOLDER, and what was printed beside it.
#
#   PYTHON   an interpreter with vLLM and this project's dependencies; the project itself is taken from this folder
#   REPEATS  counted passes (1: both shapes within 9 minutes; 3: call it once per shape)
#   DRIVERS  other drivers than the usual ones
#   ENGINES  engines per GPU of the second fleet row at 0.6b: a number, or auto
#   BUDGET_SECONDS  for a part; what is complete by then is kept
#
# All drivers of a shape are started first, the first alone so that the others find what it compiled, and take turns.
# So all their engines must fit: each has the same KV cache, large enough for 256 sequences of these jobs.
set -uo pipefail
[ $# -ge 1 ] || { sed -n '2,15s/^# \{0,1\}//p' "$0"; exit 2; }
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1" && folder=$(cd "$1" && pwd) && shift
python=${PYTHON:-python3}
repeats=${REPEATS:-1}
budget=${BUDGET_SECONDS:-500}
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" COLUMNS=200 HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1
cli='import typer; from workers.commands import bench; app = typer.Typer(); bench.register(app); app()'
gib=$((1024 * 1024 * 1024))
status=0

bench() { # part, arguments of fleet bench
  local part=$1 began=$SECONDS
  shift
  # SIGINT and not SIGTERM: an interrupted run keeps its complete repeats. --foreground would leave it our group.
  timeout --signal=INT --kill-after=90 "$budget" \
    "$python" -c "$cli" bench "$@" --json "$folder/$part.json" >"$folder/$part.txt" 2>&1 || status=1
  cat "$folder/$part.txt"
  echo "gpu_run: $part took $((SECONDS - began)) s"
}

has_setting() { # name of a worker setting
  "$python" -c "import sys; from config.settings import WorkerSettings as w; sys.exit('$1' not in w.model_fields)"
}

drivers_of() { # KV cache in bytes; how many engines the second fleet row has, or nothing
  local row=""
  if [ -n "$2" ]; then
    if has_setting engines_per_gpu; then
      local share=$2
      [ "$share" != auto ] || share=2
      row=",fleet:worker.engines_per_gpu=$2;engine.options.kv_cache_memory_bytes=$(($1 * share))"
    else
      echo "gpu_run: no row with $2 engines per GPU: this tree has no setting worker.engines_per_gpu" >&2
    fi
  fi
  echo "${DRIVERS:-asyncllm,fleet$row,static-batch,celery-threads}"
}

throughput() { # shape, jobs, KV cache in bytes, engines of the second fleet row
  bench "$1" throughput --shape "$1" --together --jobs "$2" --repeats "$repeats" \
    --drivers "$(drivers_of "$3" "$4")" "${sizes[@]}" \
    --set "engine.options.kv_cache_memory_bytes=$3" --set engine.options.gpu_memory_utilization=0.1 --set worker.interactive_reserve=0
}

[ $# -gt 0 ] || set -- 0.6b 8b
for part in "$@"; do
  sizes=(--prompt-words 50:300 --output-tokens 32:512
    --set engine.options.max_num_seqs=256 --set engine.options.max_model_len=2048)
  case $part in
    0.6b) throughput 0.6b "${JOBS:-2048}" $((16 * gib)) "${ENGINES:-2}" ;;
    8b) throughput 8b "${JOBS:-1024}" $((13 * gib)) "" ;;
    tiny)
      sizes=(--prompt-words 20:60 --output-tokens 16:48 --set engine.options.max_num_seqs=16)
      throughput tiny "${JOBS:-64}" $((gib / 4)) "${ENGINES:-2}"
      ;;
    host)
      bench overhead overhead --repeats "$repeats"
      bench enqueue enqueue --repeats "$repeats"
      bench latency latency --engine simulated --set engine.options.seconds_per_token=0 --repeats "$repeats"
      ;;
    *) echo "gpu_run: no part $part: 0.6b, 8b, tiny, host" >&2; status=2 ;;
  esac
done
exit $status
