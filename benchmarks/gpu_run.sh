#!/usr/bin/env bash
# The fleet beside what it is measured against, on one GPU: benchmarks/gpu_run.sh FOLDER [PART...]
#
# PART is 0.6b, 8b (both without any), mixed-0.6b or mixed-8b (interactive jobs under a flood), flood-8b (where their
# time goes: one engine, two of which one is for them, and with worker.others_yield), calibrate (what ENGINES=auto
# chooses at 0.6b, so that a later 0.6b finds it), tiny or flood-tiny (rehearsals on a CPU), or host (what needs no GPU:
# overhead, enqueue, latency). One JSON file per part comes into FOLDER, and what was printed beside it.
#
#   PYTHON    an interpreter with vLLM and this project's dependencies; the project itself is taken from this folder
#   REPEATS   counted passes
#   JOBS      jobs of a pass; of mixed and flood the interactive ones
#   DRIVERS   other drivers than the usual ones
#   ENGINES   engines per GPU of the second fleet row at 0.6b: a number, or auto (the default)
#   TOGETHER  yes (the usual at 0.6b): all drivers are started first, the first alone so that the others find what it
#             compiled, and take turns; no (at 8b): one after the other has the GPU to itself
#   KV_GIB    KV cache of each engine, 16 unless told otherwise; together, all engines must fit
#   BUDGET_SECONDS  for a part; what is complete by then is kept
#
# 16 GiB hold 256 sequences of these jobs at both shapes; with less the fleet runs fewer at once. Six engines of 0.6b
# take 114 GB like that: on a smaller GPU say TOGETHER=no.
set -uo pipefail
[ $# -ge 1 ] || { sed -n '2,22s/^# \{0,1\}//p' "$0"; exit 2; }
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1" && folder=$(cd "$1" && pwd) && shift
python=${PYTHON:-python3}
repeats=${REPEATS:-1}
budget=${BUDGET_SECONDS:-500}
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" COLUMNS=200 HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1
cli='import typer; from workers.commands import bench; app = typer.Typer(); bench.register(app); app()'
gib=$((1024 * 1024 * 1024))
kv=$((${KV_GIB:-16} * gib))
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

model_of() { # shape: --model and the options that load it; the same folder at each call, since what auto chose is kept
  # for that path
  "$python" -c 'import sys; from pathlib import Path; from workers.bench.shapes import model_folder
folder, options = model_folder(sys.argv[1], Path(sys.argv[2]))
print("--model", folder, *(f"--set engine.options.{name}={value}" for name, value in options.items()))' \
    "$1" "$folder/models"
}

auto_row() { # KV cache of one engine in bytes
  local share=${ENGINES:-auto}
  [ "$share" != auto ] || share=2
  echo "fleet:worker.engines_per_gpu=${ENGINES:-auto};engine.options.kv_cache_memory_bytes=$(($1 * share))"
}

throughput() { # name of the JSON file, shape, jobs, KV cache in bytes, drivers, further options
  local part=$1 shape=$2 jobs=$3 kv_bytes=$4 drivers=$5
  shift 5
  bench "$part" throughput $(model_of "$shape") --jobs "$jobs" --repeats "$repeats" --drivers "$drivers" \
    "${sizes[@]}" --set "engine.options.kv_cache_memory_bytes=$kv_bytes" \
    --set engine.options.gpu_memory_utilization=0.1 --set worker.interactive_reserve=0 "$@"
}

mixed() { # shape, batch jobs, KV cache in bytes
  bench "mixed-$1" mixed $(model_of "$1") --jobs "${JOBS:-300}" --batch-jobs "$2" --rate 20 --repeats "$repeats" \
    --drivers "${DRIVERS:-fleet}" "${sizes[@]}" --set "engine.options.kv_cache_memory_bytes=$3"
}

together() { # the usual
  [ "${TOGETHER:-$1}" = no ] || echo --together
}

flood() { # shape, batch jobs, KV cache of each engine in bytes, further options
  local part=flood-$1 shape=$1 batch_jobs=$2 kv_bytes=$3 began=$SECONDS
  local two="worker.engines_per_gpu=2;worker.interactive_engines=1;engine.options.kv_cache_memory_bytes=$((2 * $3))"
  shift 3
  timeout --signal=INT --kill-after=90 "$budget" "$python" -m benchmarks.flood --shape "$shape" \
    --batch-jobs "$batch_jobs" --jobs "${JOBS:-400}" --variant "engine.options.kv_cache_memory_bytes=$kv_bytes" --variant "$two" \
    --variant "$two;worker.others_yield=true" "$@" --output "$folder/$part.json" >"$folder/$part.txt" 2>&1 || status=1
  cat "$folder/$part.txt"
  echo "gpu_run: $part took $((SECONDS - began)) s"
}

usual=asyncllm,fleet,static-batch,celery-threads
[ $# -gt 0 ] || set -- 0.6b 8b
for part in "$@"; do
  sizes=(--prompt-words 50:300 --output-tokens 32:512
    --set engine.options.max_num_seqs=256 --set engine.options.max_model_len=2048)
  case $part in
    0.6b) throughput 0.6b 0.6b "${JOBS:-2048}" $kv "${DRIVERS:-$usual,$(auto_row $kv)}" $(together yes) ;;
    8b) throughput 8b 8b "${JOBS:-1024}" $kv "${DRIVERS:-$usual}" $(together no) ;;
    calibrate) throughput calibrate 0.6b 64 $kv "$(auto_row $kv)" --warm-up-jobs 0 ;;
    mixed-0.6b) mixed 0.6b 3000 $kv ;;
    mixed-8b) mixed 8b 3000 $kv ;;
    flood-8b) flood 8b 1400 $kv --set engine.options.max_model_len=2048 ;;
    flood-tiny) flood tiny 200 $((gib / 4)) --rate 4 --slots 16 ;;
    tiny)
      sizes=(--prompt-words 20:60 --output-tokens 16:48 --set engine.options.max_num_seqs=16)
      throughput tiny tiny "${JOBS:-64}" $((gib / 4)) "${DRIVERS:-$usual,$(auto_row $((gib / 4)))}" $(together yes)
      ;;
    host)
      bench overhead overhead --repeats "$repeats"
      bench enqueue enqueue --repeats "$repeats"
      bench latency latency --engine simulated --set engine.options.seconds_per_token=0 --repeats "$repeats"
      ;;
    *)
      echo "gpu_run: no part $part: 0.6b, 8b, mixed-0.6b, mixed-8b, flood-8b, calibrate, tiny, flood-tiny, host" >&2
      status=2
      ;;
  esac
done
exit $status
