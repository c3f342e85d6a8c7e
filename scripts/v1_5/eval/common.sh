# Sourced by the benchmark scripts in this folder: settings, and the function that splits questions among processes.
#
#   CKPT=ada/checkpoints/shapes-H DATA=runs/shapes/data/eval BUDGET=0.6 bash scripts/v1_5/eval/pope.sh --batch-size 8
#
#   DATA     folder of the benchmarks            playground/data/eval
#   CKPT     checkpoint folder or hub name       liuhaotian/llava-v1.5-13b
#   BUDGET   latency budget                      none: the full model
#   NAME     name of the answers         the checkpoint's last name, and the budget
#   CHUNKS   processes                           one for each device in CUDA_VISIBLE_DEVICES, else one
#   CONV     conversation template               vicuna_v1
#
# A script's arguments go to the program that answers. If a script is stopped, the same command resumes it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
EXTRAS=${EXTRAS:-eval} source scripts/venv.sh

DATA=${DATA:-playground/data/eval}
CKPT=${CKPT:-liuhaotian/llava-v1.5-13b}
NAME=${NAME:-$(basename "$CKPT")${BUDGET:+-budget-$BUDGET}}
IFS=',' read -ra DEVICES <<<"${CUDA_VISIBLE_DEVICES:-}"
CHUNKS=${CHUNKS:-$((${#DEVICES[@]} ? ${#DEVICES[@]} : 1))}
if ! [[ $CHUNKS =~ ^[1-9][0-9]*$ ]]; then
    echo "error: CHUNKS is '$CHUNKS'; expected an integer from 1 up" >&2
    exit 2
fi

answer() { # module answers-file flags...: every question answered, by CHUNKS processes, merged in order
    local module=$1 merged=$2 folder failed=0 index parts=() running=()
    shift 2
    folder=${merged%.jsonl}
    [ "$(basename "$merged")" != merge.jsonl ] || folder=$(dirname "$merged")
    mkdir -p "$folder"
    rm -f "$merged" # it may be of other settings; the parts are checked
    for ((index = 0; index < CHUNKS; index++)); do
        parts+=("$folder/${CHUNKS}_$index.jsonl")
        (
            if [ ${#DEVICES[@]} -gt 0 ]; then
                export CUDA_VISIBLE_DEVICES=${DEVICES[index % ${#DEVICES[@]}]}
            elif [ "$CHUNKS" -gt 1 ]; then # share the processor's cores
                cores=$(($(nproc) / CHUNKS))
                export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores ? cores : 1))}
            fi
            exec python -m "llava.eval.$module" --model-path "$CKPT" --answers-file "${parts[index]}" \
                --num-chunks "$CHUNKS" --chunk-idx "$index" --temperature 0 --conv-mode "${CONV:-vicuna_v1}" \
                ${BUDGET:+--latency-budget "$BUDGET"} "$@"
        ) &
        running+=($!)
    done
    trap 'kill "${running[@]}" 2>/dev/null || true' INT TERM
    for index in "${!running[@]}"; do
        wait "${running[index]}" || failed=$?
    done
    trap - INT TERM
    if [ "$failed" -ne 0 ]; then
        echo "error: $module stopped with code $failed; nothing is merged. The same line goes on where it was" >&2
        exit "$failed"
    fi
    cat "${parts[@]}" >"$merged.new"
    mv "$merged.new" "$merged"
}

judge_is_there() { # whether a judge can be asked; says how, if not
    [ -n "${OPENAI_BASE_URL:-}${OPENAI_API_KEY:-}" ] && return
    echo "Not judged: set OPENAI_API_KEY, or OPENAI_BASE_URL for another server (JUDGE names the model), and run again."
    return 1
}
