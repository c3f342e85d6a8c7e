# PRESET=easy-vqa, sourced by recipe.sh: fine-tunes the bundled H model on the package easy-vqa on a CPU, under random
# budgets. The shapes preset lists the variables; in addition: BUDGETS= low:high.
EXTRAS=easy-vqa
_given_data=${DATA:-}
default DATA playground/data/easy-vqa/conversations.json
default MODEL ada/checkpoints/shapes-H
default OUT runs/easy-vqa
default STEPS 600
default BATCH 24
default SAVE_STEPS 100
source scripts/v1_5/presets/shapes.sh

# test.jsonl is what the converter writes last.
[ -n "$_given_data" ] || [ -n "${DRY_RUN:-}" ] || [ -f "$(dirname "$DATA")/test.jsonl" ] ||
    python -m playground.easy_vqa.convert --out "$(dirname "$DATA")"

PRESET_FLAGS+=(
    --latency_budget "${BUDGETS:-0.5:1.0}"
    --learning_rate 1e-3
)
