#!/usr/bin/env bash
# Measures what each part of the training recipe brings: short runs of AdaLLaVA-H from the bundled base model, for each
# variant one run per seed, asked validation questions of the shapes world (the test questions are for the recipe that was
# chosen). The table is printed, and written to OUT/ablations.md. Stopped at any moment, the same command resumes.
#
#   bash scripts/shapes/ablations.sh
#   ONLY="as published|all three" STEPS=60 SEEDS="1 2 3 4 5" QUESTIONS=5000 OUT=elsewhere bash scripts/shapes/ablations.sh
#
# DATA= folder of the world, generated where it is missing. QUESTIONS= number of questions asked. ONLY= an extended regular
# expression: the variants to run, matched against the full name. Further arguments go to python -m ada.eval.sweep.
set -euo pipefail
cd "$(dirname "$0")/../.."
EXTRAS=eval source scripts/venv.sh

OUT=$(realpath -m "${OUT:-runs/ablations}")
DATA=${DATA:-runs/shapes/data}
SEEDS=${SEEDS:-1 2 3}

sandwich="--budget_sampling sandwich"
distilled="--distillation_weight 1"
cooled="--scheduler_temperature 1:0.3"
all="$sandwich $distilled $cooled"

# name|prefix layers|training file|flags
variants="as published, half of the layers tunable|5|short|
as published|2|short|
as published, eight questions an image|2|conversations|
sandwich budgets|2|short|$sandwich
distilled from the full answer|2|short|$distilled
cooled draws|2|short|$cooled
all three|2|short|$all
all three, the scheduler's own learning rate|2|short|$all --scheduler_lr 3e-3
all three, the scheduler reads the budget alone|2|short|$all --scheduler_input budget
all three, planner even|2|short|$all --planner even"

variants=$(grep -xE "(${ONLY:-.*})[|].*[|].*[|].*" <<< "$variants") || {
    echo "ONLY=$ONLY matches no variant; their names are in ${BASH_SOURCE[0]}." >&2
    exit 2
}

[ -f "$DATA/short.json" ] && [ -f "$DATA/test.jsonl" ] || python -m playground.shapes.generate --out "$DATA" --scenes "${SCENES:-60000}"

mkdir -p "$OUT"
head -n "${QUESTIONS:-1000}" "$DATA/validation.jsonl" > "$OUT/questions.jsonl"

models=()
for seed in $SEEDS; do # one seed after the other, so that a stopped run has complete seeds
    while IFS='|' read -r name prefix data flags; do
        run=$OUT/$(echo "$name" | tr -cs 'a-z0-9\n' -)-$seed
        # shellcheck disable=SC2086 # flags are several words
        [ -f "$run/model.safetensors" ] ||
            PRESET=shapes DATA="$DATA/$data.json" OUT="$run" PREFIX=$prefix STEPS="${STEPS:-300}" BATCH=24 \
                bash scripts/v1_5/finetune_ada_heads.sh --check_data False --learning_rate 5e-4 --seed "$seed" \
                $flags < /dev/null
        models+=("$name #$seed=$run")
    done <<< "$variants"
done

python -m ada.eval.sweep --question-file "$OUT/questions.jsonl" --image-folder "$DATA/images" --out "$OUT/sweep" \
    --budgets 1,0.85,0.6,0.5 --planners learned --timed-questions 0 --model-path "${models[@]}" "$@"
python -m ada.eval.ablations "$OUT/sweep/sweep.json" --against "as published" --out "$OUT/ablations.md"
