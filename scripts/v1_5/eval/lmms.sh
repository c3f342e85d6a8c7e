#!/usr/bin/env bash
# lmms-eval, the released package, with the model ada_llava: scores, and the cost of the answers. common.sh says
# what the variables mean; arguments go to lmms-eval. More variables:
#
#   TASKS        what is asked, separated by commas     shapes_questions, in DATA/lmms, offline
#   MODEL_ARGS   more of them: planner=even,dtype=...   none
#   LMMS_VENV    virtual environment of this script     .venv-lmms: lmms-eval brings many packages along
#
# Results go to DATA/lmms/answers/NAME/results.json, every answer to samples_TASK.jsonl in the same folder.
OWN_VENV=${LMMS_VENV:-.venv-lmms} EXTRAS=eval,lmms
source "$(dirname "$0")/common.sh"

if ! python -c $'try: import torchvision\nexcept ModuleNotFoundError: pass' 2>/dev/null; then
    echo "removing torchvision from $VIRTUAL_ENV: lmms-eval asks for it, but this one is built for another torch than" \
        "the one here; it does not import, and while it is there neither do transformers' image processors." \
        "ada_llava and most tasks do without." >&2
    python -m pip uninstall --quiet --yes torchvision
fi

TASKS=${TASKS:-shapes_questions}
mkdir -p "$DATA/lmms"
folder=$(cd "$DATA/lmms" && pwd)
answers=$folder/answers/$NAME
[ ! -d "$CKPT" ] || CKPT=$(cd "$CKPT" && pwd)
if [ "$TASKS" = shapes_questions ]; then
    if [ ! -f "$folder/$TASKS.yaml" ]; then
        echo "error: no $TASKS.yaml in $folder; python -m playground.shapes.generate --out ${DATA%/*} --benchmarks N writes it" >&2
        exit 2
    fi
    [ ! -d "$CKPT" ] || export HF_HUB_OFFLINE=1
    export HF_DATASETS_OFFLINE=1
fi

arguments=pretrained=$CKPT${CONV:+,conv_template=$CONV}${BUDGET:+,latency_budget=$BUDGET}${MODEL_ARGS:+,$MODEL_ARGS}
several=()
[ "$CHUNKS" -eq 1 ] || several=(torch.distributed.run --standalone --nproc-per-node "$CHUNKS" -m)
rm -rf "$answers.part"
( # in the task's folder: its paths are relative
    cd "$folder"
    exec python -m ${several[@]+"${several[@]}"} lmms_eval --model ada_llava --model_args "$arguments" \
        --tasks "$TASKS" --include_path . --log_samples --output_path "$answers.part" "$@"
)

# lmms-eval ends with code 0 when it fails, too: check what it has written.
results=$(find "$answers.part" -name '*_results.json' 2>/dev/null || true)
samples=$(find "$answers.part" -name '*_samples_*.jsonl' 2>/dev/null || true)
if [ -z "$results" ] || [ -z "$samples" ]; then
    echo "error: lmms-eval left no results for $NAME; what went wrong is above" >&2
    exit 1
fi
mkdir "$answers.part/whole"
mv "$results" "$answers.part/whole/results.json"
while read -r file; do
    mv "$file" "$answers.part/whole/samples_${file##*_samples_}"
done <<<"$samples"
rm -rf "$answers"
mv "$answers.part/whole" "$answers"
rm -rf "$answers.part"
echo "$answers/results.json"
