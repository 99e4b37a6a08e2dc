#!/usr/bin/env bash
# Quantized models on one GPU: benchmarks/quantized.sh FOLDER [KIND...]
#
# KIND is one or more of bf16 (to compare with), fp8-online (profile quantized), fp8, awq and gptq (profile awq-gptq; as
# published models' configuration says it); all without any. The shape is 8B's, with weights of no meaning: kernels,
# memory and speed are those of a real model, texts are not. One JSON file per kind comes into FOLDER, and what was
# printed beside it.
#
#   PYTHON    an interpreter with vLLM and this project's dependencies; the project itself is taken from this folder
#   REPEATS   counted passes
#   JOBS      of one pass
set -uo pipefail
[ $# -ge 1 ] || { sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 2; }
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1" && folder=$(cd "$1" && pwd) && shift
python=${PYTHON:-python3}
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" COLUMNS=200 HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1
cli='import typer; from workers.commands import bench; app = typer.Typer(); bench.register(app); app()'
status=0

model() { # name, the quantization that its configuration states (JSON; none: as it comes): prints the folder
  "$python" -c 'import json, shutil, sys
from pathlib import Path
from workers.bench.shapes import model_folder
plain, _ = model_folder("8b", Path(sys.argv[1]))
folder = plain.with_name(f"llama-8b-{sys.argv[2]}")
shutil.copytree(plain, folder, dirs_exist_ok=True)
config = json.loads((plain / "config.json").read_text())
if sys.argv[3]:
    config["quantization_config"] = json.loads(sys.argv[3])
(folder / "config.json").write_text(json.dumps(config, indent=1))
print(folder)' "$folder/models" "$1" "${2:-}"
}

run() { # name, profile, model folder, further options
  local name=$1 profile=$2 model=$3 began=$SECONDS
  shift 3
  "$python" -c "$cli" bench throughput --model "$model" --drivers fleet --jobs "${JOBS:-512}" \
    --repeats "${REPEATS:-2}" --set "profile=$profile" --set engine.options.load_format=dummy \
    --set engine.options.max_model_len=2048 --set engine.options.max_num_seqs=256 \
    --set worker.interactive_reserve=0 "$@" --json "$folder/quantized-$name.json" \
    >"$folder/quantized-$name.txt" 2>&1 || { status=1; echo "quantized: $name failed"; }
  tail -n 25 "$folder/quantized-$name.txt"
  echo "quantized: $name took $((SECONDS - began)) s"
}

[ $# -gt 0 ] || set -- bf16 fp8-online fp8 awq gptq
for kind in "$@"; do
  case $kind in
    bf16) run bf16 medium "$(model bf16)" ;;
    fp8-online) run fp8-online quantized "$(model bf16)" ;;
    fp8) run fp8 medium "$(model fp8 '{"quant_method": "fp8", "activation_scheme": "dynamic"}')" ;;
    awq) run awq awq-gptq "$(model awq '{"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": true,
      "version": "gemm"}')" ;;
    gptq) run gptq awq-gptq "$(model gptq '{"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": false,
      "sym": true, "lm_head": false}')" ;;
    *) echo "quantized: no kind $kind: bf16, fp8-online, fp8, awq, gptq" >&2; status=2 ;;
  esac
done
exit $status
