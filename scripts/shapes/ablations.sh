#!/usr/bin/env bash
# What each part of the training recipe brings: short runs of AdaLLaVA-H from the bundled base model, SEEDS of each
# variant, asked the test questions of the shapes world; the table is printed and kept in OUT/ablations.md. Stopped at
# any moment, the same line goes on where it was.
#
#   bash scripts/shapes/ablations.sh
#   STEPS=400 SEEDS="1 2 3 4 5" OUT=elsewhere bash scripts/shapes/ablations.sh
#
# DATA= the world's folder, made where it is not there. Further arguments go to python -m ada.eval.sweep.
set -euo pipefail
cd "$(dirname "$0")/../.."
EXTRAS=eval source scripts/venv.sh

OUT=$(realpath -m "${OUT:-runs/ablations}")
DATA=${DATA:-runs/shapes/data}
SEEDS=${SEEDS:-1 2 3}

sandwich="--budget_sampling sandwich"
distilled="--distillation_weight 1"
own_rate="--scheduler_lr 3e-3"
cooled="--scheduler_temperature 1:0.3"
all="$sandwich $distilled $own_rate $cooled"

# name|prefix layers|flags
variants="as published, half of the layers tunable|5|
as published|2|
sandwich budgets|2|$sandwich
distilled from the full answer|2|$distilled
the scheduler's own learning rate|2|$own_rate
cooled draws|2|$cooled
all four|2|$all
all four, the scheduler reads the budget alone|2|$all --scheduler_input budget
all four, planner even|2|$all --planner even"

[ -f "$DATA/test.jsonl" ] || python -m playground.shapes.generate --out "$DATA" --scenes "${SCENES:-60000}"

models=()
for seed in $SEEDS; do # a seed after the other, so that a run that is stopped has whole seeds
    while IFS='|' read -r name prefix flags; do
        run=$OUT/$(echo "$name" | tr -cs 'a-z0-9\n' -)-$seed
        # shellcheck disable=SC2086 # flags are several words
        [ -f "$run/model.safetensors" ] ||
            PRESET=shapes DATA="$DATA/conversations.json" OUT="$run" PREFIX=$prefix STEPS="${STEPS:-100}" BATCH=24 \
                bash scripts/v1_5/finetune_ada_heads.sh --check_data False --learning_rate 5e-4 --seed "$seed" $flags \
                < /dev/null
        models+=("$name #$seed=$run")
    done <<< "$variants"
done

python -m ada.eval.sweep --question-file "$DATA/test.jsonl" --image-folder "$DATA/images" --out "$OUT/sweep" \
    --budgets 1,0.85,0.6,0.5 --planners learned --timed-questions 0 --model-path "${models[@]}" "$@"
python -m ada.eval.ablations "$OUT/sweep/sweep.json" --against "as published" --out "$OUT/ablations.md"
