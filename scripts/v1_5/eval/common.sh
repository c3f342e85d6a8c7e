# Sourced by the benchmark scripts in this folder, and by scripts/sqa_eval_*.sh: settings, and the function that splits questions among processes.
#
#   CKPT=ada/checkpoints/shapes-H DATA=runs/shapes/data/eval BUDGET=0.6 bash scripts/v1_5/eval/pope.sh --batch-size 8
#
#   DATA     folder of the benchmarks            playground/data/eval
#   CKPT     checkpoint folder or hub name       liuhaotian/llava-v1.5-13b
#   BUDGET   latency budget                      none: the full model
#   NAME     name of the answers         the checkpoint's last name, and the budget
#   CHUNKS   processes                           one for each device in CUDA_VISIBLE_DEVICES, else one
#   CONV     conversation template               the one in the checkpoint's config.json, else vicuna_v1
#   PRESET   shapes: the bundled model asked QUESTIONS=60 of every benchmark of the shapes world, on a CPU
#
# A script's arguments go to the program that answers. If a script is stopped, the same command resumes it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
EXTRAS=${EXTRAS:-eval} source scripts/venv.sh

case ${PRESET:-} in
    "") ;;
    shapes)
        CKPT=${CKPT:-ada/checkpoints/shapes-H}
        if [ -z "${DATA:-}" ]; then
            DATA=playground/data/shapes/eval
            # Its last file: what was stopped is made again.
            [ -f "$DATA/lmms/shapes_questions.yaml" ] || python -m playground.shapes.generate \
                --out "$(dirname "$DATA")" --only-benchmarks --benchmarks "${QUESTIONS:-60}" --scenes 60000
        fi
        ;;
    *)
        echo "error: PRESET is '$PRESET'; expected shapes, or nothing for the published benchmarks" >&2
        exit 2
        ;;
esac
DATA=${DATA:-playground/data/eval}
CKPT=${CKPT:-liuhaotian/llava-v1.5-13b}
NAME=${NAME:-$(basename "$CKPT")${BUDGET:+-budget-$BUDGET}}
IFS=',' read -ra DEVICES <<<"${CUDA_VISIBLE_DEVICES:-}"
CHUNKS=${CHUNKS:-$((${#DEVICES[@]} ? ${#DEVICES[@]} : 1))}
if ! [[ $CHUNKS =~ ^[1-9][0-9]*$ ]]; then
    echo "error: CHUNKS is '$CHUNKS'; expected an integer from 1 up" >&2
    exit 2
fi

# What a checkpoint was trained with is in its config; the published ones, of which nothing is, were with vicuna_v1.
[ -n "${CONV:-}" ] || grep -qs '"conv_mode"' "$CKPT/config.json" || CONV=vicuna_v1

answer() { # module answers-file flags...: every question answered, by CHUNKS processes, merged in order
    answer_parts "$@"
    merge_parts "$2"
}

part_of() { # answers-file index: prints the name of the answers of one process
    local folder=${1%.jsonl}
    [ "$(basename "$1")" != merge.jsonl ] || folder=$(dirname "$1")
    echo "$folder/${CHUNKS}_$2.jsonl"
}

answer_parts() { # module answers-file flags...: every question answered, by CHUNKS processes, into a file each
    local module=$1 merged=$2 part failed=0 index running=()
    shift 2
    rm -f "$merged" # it may be of other settings; the parts are checked
    for ((index = 0; index < CHUNKS; index++)); do
        part=$(part_of "$merged" "$index")
        mkdir -p "$(dirname "$part")"
        (
            if [ ${#DEVICES[@]} -gt 0 ]; then
                export CUDA_VISIBLE_DEVICES=${DEVICES[index % ${#DEVICES[@]}]}
            elif [ "$CHUNKS" -gt 1 ]; then # share the processor's cores
                cores=$(($(nproc) / CHUNKS))
                export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores ? cores : 1))}
            fi
            exec python -m "llava.eval.$module" --model-path "$CKPT" --answers-file "$part" \
                --num-chunks "$CHUNKS" --chunk-idx "$index" --temperature 0 \
                ${CONV:+--conv-mode "$CONV"} ${BUDGET:+--latency-budget "$BUDGET"} "$@"
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
}

merge_parts() { # answers-file: what CHUNKS processes answered, in order
    local merged=$1 index parts=()
    for ((index = 0; index < CHUNKS; index++)); do
        parts+=("$(part_of "$merged" "$index")")
        if [ ! -f "${parts[index]}" ]; then
            echo "error: there is no ${parts[index]}; CHUNKS is $CHUNKS: is it the number that the answers were made with," \
                "and has each process ended?" >&2
            exit 2
        fi
    done
    cat "${parts[@]}" >"$merged.new"
    mv "$merged.new" "$merged"
}

judge_is_there() { # whether a judge can be asked; says how, if not
    [ -n "${OPENAI_BASE_URL:-}${OPENAI_API_KEY:-}" ] && return
    echo "Not judged: set OPENAI_API_KEY, or OPENAI_BASE_URL for another server (JUDGE names the model), and run again."
    return 1
}
